"""What boards say about alerts: what to do first, and which alerts are blind without a feed."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.collectors import Answers, fleet, launch
from chutes_exporter.collectors.base import Samples
from chutes_exporter.demo.replay import Replay
from chutes_exporter.page.exporter import Exporter
from grafana import alerts
from tests.day import DAY
from tests.prometheus.scenario import ALERTS
from tests.support import Clock, read_reports, watching

if TYPE_CHECKING:
    from chutes_exporter.page.exposition import States


def test_each_alert_has_a_first_step_that_its_own_text_names_too() -> None:
    # Rules with other severities of an alert have texts of their own.
    texts: dict[str, str] = defaultdict(str)
    for rule in ALERTS:
        # The watchdog always fires, and reports no problem.
        if rule["alert"] != "Watchdog":
            texts[rule["alert"]] += rule["annotations"]["description"]
    assert alerts.FIRST.keys() == texts.keys()
    for name, step in alerts.FIRST.items():
        # Such as "chutes-exporter query nodes" or "chutes-exporter advise".
        for command in re.findall(r"chutes-exporter (?:query )?[a-z-]+(?: --[a-z]+)?", step):
            assert command in texts[name], (name, command)


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


async def test_a_metric_of_the_fleet_needs_the_feeds_without_which_it_is_absent() -> None:
    # A server waits for its upgrade, others have idle GPUs, and one is no TEE server.
    at = 22 * 3600
    clock = Clock(DAY.first + at)
    async with Replay(DAY, at=at, clock=clock) as replay:
        settings = watching(replay.url, DAY.miners["troubled"])
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            await exporter.warm_up()
            await read_reports(exporter)
            states = exporter.feeds.states()
    everything = metrics(exporter, states)
    needed: dict[str, set[str]] = defaultdict(set)
    for feed_name in sorted({feed.name for feed in exporter.plan.feeds}):
        for metric in everything - metrics(exporter, states, without=feed_name):
            needed[metric].add(feed_name)
    for part in (*fleet.COLLECTOR.parts, *launch.COLLECTOR.parts):
        for declared in part.metrics:
            # Of others, no alert must know what they need.
            if declared.needs:
                assert needed[declared.name] == declared.needs, declared.name


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
