"""What boards say about alerts: what to do first, and which alerts are blind without a feed."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.collectors import Answers
from chutes_exporter.collectors.base import Samples
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.simulator import TROUBLES, DemoWorld, Simulator
from grafana import alerts
from tests.prometheus.scenario import ALERTS
from tests.support import NOON, Clock, read_reports, watching

if TYPE_CHECKING:
    from chutes_exporter.page.rendering import States


def test_each_alert_has_a_first_step_that_its_own_text_names_too() -> None:
    # Rules with other severities of an alert have texts of their own.
    texts: dict[str, str] = defaultdict(str)
    for rule in ALERTS:
        # The watchdog always fires, and reports no problem.
        if rule["alert"] != "Watchdog":
            texts[rule["alert"]] += rule["annotations"]["description"]
    assert alerts.FIRST.keys() == texts.keys()
    for name, step in alerts.FIRST.items():
        # Such as "chutes-exporter query nodes" or "chutes-exporter advise --plan".
        for command in re.findall(r"chutes-exporter (?:query )?[a-z-]+(?: --[a-z]+)?", step):
            assert command in texts[name], (name, command)


def test_a_first_step_fits_into_a_cell_of_a_table() -> None:
    assert max(len(step) for step in alerts.FIRST.values()) <= 64


def test_each_alert_with_a_first_step_links_to_a_board() -> None:
    assert alerts.BOARDS.keys() == alerts.FIRST.keys()


def metrics(exporter: Exporter, states: States, without: str = "") -> set[str]:
    """Return the names of the metrics that collectors make of the answers in ``states``, but for
    the answer of one feed.

    ``without`` is the name of this feed. If it is empty, the collectors get all answers.
    """
    names = set()
    for entry in exporter.plan.entries:
        out = Samples()
        # A collector runs for one hotkey after another, with the feeds that it needs.
        for hotkey, feeds in entry.feeds.items():
            answers = {}
            for feed in feeds:
                snapshot = states[feed].snapshot
                if snapshot is not None and feed.name != without:
                    answers[feed.name] = snapshot.answer
            entry.collector.run(Answers(answers), replace(entry.miners, hotkey=hotkey), out)
        for family in out.collect():
            names |= {sample.name for sample in family.samples}
    return names


async def test_the_feeds_that_a_metric_of_the_fleet_needs_are_those_without_which_it_is_absent(
    clock: Clock,
) -> None:
    # A miner on the blacklist can launch nothing, whatever the other feeds say.
    world = DemoWorld(start=NOON, troubles=[name for name in TROUBLES if name != "blacklisted"])
    async with Simulator(world, clock=clock) as simulator:
        settings = watching(simulator.url, world.miners[0].key)
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            await exporter.warm_up()
            await read_reports(exporter)
            states = exporter.feeds.states()
            everything = metrics(exporter, states)
            needed: dict[str, set[str]] = defaultdict(set)
            for feed_name in sorted({feed.name for feed in exporter.plan.feeds}):
                for metric in everything - metrics(exporter, states, without=feed_name):
                    needed[metric].add(feed_name)
    for metric, feeds in alerts.FEEDS_OF_FLEET.items():
        assert needed[metric] == set(feeds), metric


@pytest.mark.parametrize(
    ("alert", "feeds"),
    [
        ("ChutesGpusIdle", {"servers", "nodes", "inventory", "instances"}),
        # Without the stats, the critical one still fires.
        ("ChutesMinerEarnsNothing", {"metagraph"}),
        ("ChutesInstancesLostEarly", {"instances", "audit_report"}),
        # What is only subtracted blinds nothing.
        ("ChutesMinerLowestIncentive", {"metagraph"}),
    ],
)
def test_an_alert_needs_the_feeds_without_which_it_cannot_fire(alert: str, feeds: set[str]) -> None:
    assert alerts.NEEDED[alert] == feeds
    assert all(alert in alerts.blinded()[feed] for feed in feeds)


def test_alerts_about_the_exporter_itself_need_no_feed() -> None:
    about_exporter = {name for name, board in alerts.BOARDS.items() if board == "chutes-exporter"}
    assert not about_exporter & alerts.NEEDED.keys()
