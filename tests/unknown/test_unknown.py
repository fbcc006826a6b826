"""What is not known never looks fine: one thing at a time is taken away, and nothing that remains
may change.

Of each feed, these are the answer, a record of each of two miners, the trust in it, its freshness,
and the endpoint. Of the hours before, these are all, half, one, or three. Of the flags, these are
costs and prices.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
import structlog

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.feeds.definitions import AUDIT_REPORT, FEEDS
from chutes_exporter.findings import find
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.gaps import find_gaps
from chutes_exporter.simulator import Simulator, Size
from chutes_exporter.web.landing import landing_page
from tests.commands.support import run
from tests.grafana.scenes import COSTS, OPTIONAL, SICK_TROUBLES, Tried
from tests.support import (
    HOTKEY,
    NOON,
    PATIENCE,
    Clock,
    Prometheus,
    data_of,
    page_of,
    patient,
    read_reports,
    series,
    watching,
)
from tests.unknown.eras import QUERIES, Era, Eras, Found
from tests.unknown.taken import (
    CASES,
    FIELD,
    OLDER,
    Api,
    Case,
    asks,
    optional_fields,
    page_without,
)
from tests.unknown.test_fields import SAYS_WHAT_IS_KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from chutes_exporter.page.gaps import NotKnown
    from chutes_exporter.simulator.service import Chute, Instance
    from tests.support import Labels, Page

END: Final = NOON + 35 * 60
"""The report of the hour is out."""
WHOLE: Final = "whole"
HOURS: Final = {
    "hours-none": (24.0, 0.2),
    "hours-half": (24.0, 12.0),
    "hours-gap": (15.5, 14.5),
    "hours-late": (5.5, 2.5),
}
"""Hours before the end, from and to, without a scrape."""
FLAGS: Final = {
    "flag-cost": {
        "chutes_miner_cost_usd_per_hour",
        "chutes_miner_estimated_profit_usd_per_day",
        "chutes_server_cost_usd_per_gpu_hour",
        "chutes_server_idle_cost_usd_per_day",
    }
}
"""The metrics that need each flag."""
NAMES: Final = [*HOURS, *FLAGS, *map(str, CASES)]
FAILURES: Final = [str(case) for case in CASES if case.loss != OLDER]
"""The cases without that of an older hour, which is no failure of the feed:
chutes_audit_reports_known tells it.
"""
ABOUT_GAPS: Final = {"ChutesFeedFailing", "ChutesDataIncomplete"}
SUCCESS: Final = "chutes_scrape_collector_success"
INSTEAD: Final = ("docs/money.md", "hours known of 24", "at least")
"""Parts of the legends of numbers that boards show instead of an unknown one, with what is missing.
"""


class Changing(Tried):
    """A world in which another miner has just disabled its instances, and some chutes have just got
    a new version.

    Its service still has cooldowns.
    """

    cooldown = 86400.0

    def make_chute(self, index: int) -> Chute:
        """Make a chute. Every third one was deployed half an hour before the start."""
        chute = super().make_chute(index)
        if index % 3 != 0:
            return chute
        phase = (self.start - 1800) / chute.deploy_period % 1
        return replace(chute, phase=phase)

    def add(self, instance: Instance) -> None:
        if instance.hotkey == self.miners[1].hotkey:
            instance.disabled_at = self.start - 600
        super().add(instance)


async def _eras(directory: Path) -> dict[str, Era]:
    """Return the page of each case, with what a Prometheus makes of it."""
    # All seats are taken, and three chutes have a bounty.
    size = Size(miners=256, active_miners=6, chutes=40, other_servers=3)
    world = Changing(start=END, size=size, troubles=SICK_TROUBLES)
    clock, steady = Clock(END), Clock(END)
    simulator, watched = Simulator(world, clock=clock), world.miners[:2]
    hotkeys = [miner.hotkey for miner in watched]
    api = Api(simulator, *hotkeys)
    async with simulator:
        settings = patient(
            simulator.url,
            keys=tuple(miner.key for miner in watched),
            chain_url=simulator.chain_url,
            miners="active",
            collectors=OPTIONAL,
            gpu_costs=COSTS,
        )
        async with Exporter(settings, clock=clock, monotonic=steady) as exporter:
            # One page for the first half of the day before, and one for the second half.
            past = [await _page_at(exporter, clock, steady, hours) for hours in (18, 7)]
            clock.now = steady.now = END
            exporter.feeds.forget(exporter.plan.feeds)
            with api.remembered():
                await read_reports(exporter)
                eras = _eras_with(await page_of(exporter))
                for case in CASES:
                    # An exporter keeps the reports that it has read, so only a new one lacks one.
                    async with Exporter(settings, clock=clock, monotonic=steady) as new:
                        asking = new if case.feed is AUDIT_REPORT else exporter
                        eras[str(case)] = Era(await page_without(case, api, asking, clock, steady))
    with Prometheus(directory, more=Eras.CONFIGURATION, flags=Eras.FLAGS) as prometheus:
        await asyncio.to_thread(Eras(prometheus, eras, past, END, hotkeys).evaluate)
    return eras


def _eras_with(page: Page) -> dict[str, Era]:
    """Return the eras with a whole page, and those that lack the metrics of a flag."""
    eras = {name: Era(page, hours) for name, hours in HOURS.items()}
    eras[WHOLE] = Era(page)
    for name, metrics in FLAGS.items():
        kept = {key: value for key, value in page.items() if key[0] not in metrics}
        assert kept.keys() < page.keys()
        eras[name] = Era(kept)
    return eras


async def _page_at(exporter: Exporter, clock: Clock, steady: Clock, hours: float) -> Page:
    """Return the page of some hours ago, with its times as if it was that of the end."""
    clock.now = steady.now = END - hours * 3600
    page = await page_of(exporter)
    for key in page:
        if key[0].endswith("_timestamp_seconds"):
            page[key] += hours * 3600
    return page


@pytest.fixture(scope="module")
def eras(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Era]:
    with structlog.testing.capture_logs():
        return asyncio.run(_eras(tmp_path_factory.mktemp("eras")))


def false_values(whole: Found, found: Found) -> dict[Labels, tuple[float | None, float]]:
    """Return the values that differ from those of the whole by more than 0.1 %, and new ones."""
    differing = {}
    for labels, value in found.items():
        before = whole.get(labels)
        if not _equal(before, value):
            differing[labels] = before, value
    return differing


def _equal(before: float | None, value: float) -> bool:
    """Return whether a value was known before, and differs by 0.1 % at most."""
    return before is not None and math.isclose(before, value, rel_tol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_no_number_of_a_page_is_new_or_another(eras: dict[str, Era], name: str) -> None:
    whole, page = data_of(eras[WHOLE].page), data_of(eras[name].page)
    for key, value in page.items():
        # A counter tells what its process has seen.
        if not key[0].endswith("_total") and not _equal(whole.get(key), value):
            assert key[0] in SAYS_WHAT_IS_KNOWN or _is_lower_bound(page, key), key
            assert value < whole[key], key


def _is_lower_bound(page: Page, key: tuple[str, Labels]) -> bool:
    """Return whether a value is about losses, and the page says that there may be more."""
    labels = {name: value for name, value in key[1] if name in ("hotkey", "window")}
    says_all = page.get(series("chutes_miner_window_unknown_losses", **labels)) == 0
    return key[0].endswith("lost_compute_units") and not says_all


@pytest.mark.parametrize("name", [str(case) for case in CASES if case.loss != "doubted"])
def test_no_case_is_empty_because_nothing_depends_on_the_answer(
    eras: dict[str, Era], name: str
) -> None:
    # The list of a miner's GPUs is only used where other answers do not place an instance.
    if not name.startswith("miner_gpus-"):
        assert data_of(eras[name].page).keys() < data_of(eras[WHOLE].page).keys()


@pytest.mark.parametrize("name", [*HOURS, *FAILURES])
def test_a_collector_that_lacks_a_metric_is_not_successful(eras: dict[str, Era], name: str) -> None:
    whole, page = eras[WHOLE].page, eras[name].page
    for collector in COLLECTORS:
        # It is no failure if a deployment lacks an endpoint.
        is_off = page.get(series("chutes_scrape_collector_off", collector=collector.name))
        # The endpoint may only choose the chutes that the collector exports.
        feed, _, loss = name.rpartition("-")
        only_chooses = loss == "404" and feed not in collector.source_feeds
        if is_off or only_chooses:
            continue
        metrics = {metric.name for metric in collector.metrics}
        lacking = {key for key in whole.keys() - page.keys() if key[0] in metrics}
        if lacking:
            assert not _is_successful(collector.name, whole, page), collector.name


def _is_successful(collector: str, whole: Page, page: Page) -> bool:
    """Return whether a page says for all miners of the whole one that a collector succeeded."""
    label = ("collector", collector)
    outcomes = [key for key in whole if key[0] == SUCCESS and label in key[1]]
    return all(page.get(key) == 1 for key in outcomes)


@pytest.mark.parametrize("name", NAMES)
def test_no_recording_is_new_or_another(eras: dict[str, Era], name: str) -> None:
    differing = {}
    for recording, result in eras[name].recorded.items():
        differing[recording] = false_values(eras[WHOLE].recorded[recording], result)
    # The first one also counts the alerts about the gap, and the second one the missing feeds.
    del differing["alert:chutes_alerts:severity"], differing["hotkey_feed:chutes_feed:blind"]
    # Where the pay is not known, the number of idle GPUs decides.
    del differing["hotkey_server_id:chutes_idle_gpus:ratio"]
    # What ended instances lost is a lower bound.
    values = differing["alert:chutes_alerts:compute_units_per_day"]
    for labels, (before, value) in list(values.items()):
        if ("alertname", "ChutesDayLoss") in labels and value < (before or 0):
            del values[labels]
    assert {recording: values for recording, values in differing.items() if values} == {}


@pytest.mark.parametrize("name", NAMES)
def test_no_alert_starts_that_is_not_about_the_gap(eras: dict[str, Era], name: str) -> None:
    started = eras[name].conditions - eras[WHOLE].conditions
    feed, _, loss = name.partition("-")
    for alert, severity, labels in started:
        assert alert in ABOUT_GAPS, (alert, severity, labels)
        assert dict(labels)["feed"] == feed
    # An answer that is doubted may still be good enough.
    if loss != "doubted":
        # A deployment can lack an endpoint.
        is_no_failure = name in {*HOURS, *FLAGS} or loss in ("404", OLDER)
        assert bool(started) != is_no_failure


@pytest.mark.parametrize("name", NAMES)
def test_no_board_shows_another_number(eras: dict[str, Era], name: str) -> None:
    wrong = []
    for (board, panel, legend), expression in QUERIES.items():
        if _says_what_is_known(panel, legend):
            continue
        whole, shown = eras[WHOLE].shown[expression], eras[name].shown[expression]
        expected_alerts = ABOUT_GAPS | {dict(labels).get("alertname") for labels in whole}
        for labels, (before, value) in false_values(whole, shown).items():
            texts = dict(labels)
            # How long an alert fires, and the name of its place, are not always known.
            is_of_alert = texts.get("alertname", "") in expected_alerts
            # A question mark says that the rank before is not known.
            is_without_rank = texts.get("before") == "?"
            # While it is not known what earns on a server, the board says not to reboot it, which
            # has a lower number.
            is_of_maintenance = (panel, legend) == ("Maintenance", "A __auto")
            is_more_careful = is_of_maintenance and value < (before or 0)
            if is_of_alert or is_without_rank or is_more_careful:
                continue
            wrong.append(f"{board}, {panel}, {legend}: {value} instead of {before}: {texts}")
    assert wrong == []


def _says_what_is_known(panel: str, legend: str) -> bool:
    """Return whether a query shows how much is known, so that it differs with what is taken."""
    if any(part in legend for part in INSTEAD):
        return True
    # It says how many days are known.
    if panel == "Compute units by server, 30 days":
        return True
    return (panel, legend) in (
        # It says when a server was last known to earn on all GPUs.
        ("Servers by state", "C __auto"),
        # It counts the alerts about the gap, too.
        ("Verdict", "C warnings"),
    )


MONEY: Final = tuple(f"--gpu.cost={model}={cost}" for model, cost in COSTS.items())
LANDING: Final = "landing page"
SMALL: Final = Size(miners=24, active_miners=6, chutes=40, other_servers=3)
COMMANDS: Final = {
    LANDING: (),
    "status": MONEY,
    "status --maintenance": MONEY,
    "advise": MONEY,
    "incidents": (),
    "check": (),
}
"""The flags of each command. The landing page says what the command status says."""
OTHERS: Final = {
    "not_known",
    "records",
    "status",
    "count",
    "seconds",
    "bounty_seconds_left",
    "age_minutes",
    "lost_compute_units_now",
    "hours_missing",
}
"""Keys of numbers that may differ: a finding may name fewer things, and time goes on."""
TAKE_OVER: Final = {
    ("findings", kind)
    for kind in ("purges", "upgrades", "undecided_upgrades", "maintenance_pending")
}
"""Findings that take over from others, if it is not known what makes those more urgent: that an
instance starts in vain, that a version is refused, that a server cannot come back, or that nothing
runs on one in maintenance.
"""
FINE: Final = (
    *("Nothing needs action.", "No maintenance needs action.", "All will make it."),
    *("All checks passed.", "No instance ended.", "$0"),
)
"""Texts that say that all is fine."""
GROUPS: Final = ("kind", "instance_id", "server_id", "chute_id", "gpu", "feed", "hotkey")
"""Keys that tell the objects of a list apart."""


@dataclass
class Output:
    """What a command prints, as a text and as JSON, with its exit status."""

    status: int
    text: str
    json: dict[str, Any]


async def _landing(simulator: Simulator) -> Output:
    """Return what the landing page says about the miner, with the status that the command would
    have.
    """
    async with Exporter(watching(simulator.url)) as exporter:
        await exporter.samples((), timeout=PATIENCE)
        await read_reports(exporter)
        page = await landing_page(exporter)
    # The tables of feeds and collectors follow under the first heading of this level.
    text = page.partition("<h2>")[0]
    (tone,) = re.findall(r'</h1><p><span class="state (\w+)">', text)
    return Output({"good": 0, "bad": 1, "wait": 3}[tone], text, {})


async def _run(command: str, simulator: Simulator) -> Output:
    """Return what a command prints, or what the landing page says."""
    if command == LANDING:
        return await _landing(simulator)
    arguments = (*command.split(), "--chain.url", simulator.chain_url, *COMMANDS[command])
    status, text, _ = await run(simulator, *arguments)
    _, json_text, _ = await run(simulator, *arguments, "--json")
    return Output(status, text, json.loads(json_text))


async def _outputs(troubles: Sequence[str]) -> dict[tuple[str, str], Output]:
    """Return the outputs of each command in each case that it can notice, by the names of both."""
    # Commands first see the real clock, and then that of the API, which stands still.
    clock = Clock(time.time())
    world = Changing(start=clock(), size=SMALL, troubles=troubles)
    simulator = Simulator(world, clock=clock)
    api = Api(simulator, *(miner.hotkey for miner in world.miners[:2]))
    outputs: dict[tuple[str, str], Output] = {}
    async with simulator:
        with api.remembered():
            for command in COMMANDS:
                api.asked.clear()
                outputs[command, WHOLE] = await _run(command, simulator)
                cases_of_asked = [case for case in CASES if asks(case.feed) in api.asked]
                for case in cases_of_asked:
                    if _can_notice(command, case):
                        with api.without(case):
                            outputs[command, str(case)] = await _run(command, simulator)
    return outputs


def _can_notice(command: str, case: Case) -> bool:
    """Return whether a command can notice what is taken away from it.

    It asks once, so that of all doubts it has only that two answers contradict each other.
    """
    if case.loss == "doubted":
        return "disagrees" in case.feed.checks and command != "incidents"
    return case.loss in ("missing", "record", "404")


@pytest.fixture(scope="module", params=[SICK_TROUBLES, ()], ids=["troubled", "calm"])
def outputs(request: pytest.FixtureRequest) -> dict[tuple[str, str], Output]:
    with structlog.testing.capture_logs():
        return asyncio.run(_outputs(request.param))


def numbers(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Return the numbers in a JSON value, with their places."""
    match value:
        case bool():
            return
        case int() | float():
            yield path, value
        case dict():
            for key in value.keys() - OTHERS:
                yield from numbers(value[key], (*path, key))
        case list():
            for part in value:
                yield from numbers(part, (*path, _name_of(part)))


def _name_of(part: Any) -> str:
    """Return what tells a part of a list from the others."""
    if not isinstance(part, dict):
        return f"{part}"
    for key in GROUPS:
        if key in part:
            return f"{part[key]}"
    return ""


def _is_taken_over(
    path: tuple[str, ...], value: float, known: Mapping[tuple[str, ...], float]
) -> bool:
    """Return whether a number is about a thing that was in a more urgent finding before.

    The first two parts of its path are "findings" and the kind of the finding. ``known`` are all
    numbers when nothing is taken away.
    """
    if path[:2] not in TAKE_OVER:
        return False
    # The GPUs of all things in a finding, their cost, and the next time have no other place.
    if path[2] in ("gpus", "cost_usd_per_hour", "when"):
        return True
    for other_path, other_value in known.items():
        if other_path[2:] == path[2:] and _equal(value, other_value):
            return True
    return False


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_says_that_all_is_fine(
    outputs: dict[tuple[str, str], Output], command: str
) -> None:
    whole = outputs[command, WHOLE]
    cases = [case for of, case in outputs if of == command and case != WHOLE]
    assert len(cases) >= 5
    # The status stays 1 if something else needs action. The command check fails (1) without an
    # answer.
    statuses = {3, 1} if whole.status == 1 or command == "check" else {3}
    for case in cases:
        output = outputs[command, case]
        assert output.status in statuses, case
        for text in FINE:
            assert text not in output.text, case
        assert _names_what_is_missing(output.text, case), case
        assert _other_numbers(whole, output) == [], case


def _names_what_is_missing(text: str, case: str) -> bool:
    """Return whether a text names the feed of a case. Reports have the names of their hours."""
    feed, _, _ = case.partition("-")
    if feed in ("audit", "audit_report"):
        return "report" in text
    return feed in text


def _other_numbers(whole: Output, output: Output) -> list[tuple[str, ...]]:
    """Return the places of numbers that are new or differ from the whole output."""
    known = dict(numbers(whole.json))
    others = []
    for path, value in numbers(output.json):
        # What ended instances lost is a lower bound, which the text says.
        is_loss = path[-1] in ("lost_compute_units", "lost_ratio_of_day")
        if is_loss and "at least" in output.text and value < known[path]:
            continue
        if not _equal(known.get(path), value) and not _is_taken_over(path, value, known):
            others.append(path)
    return others


ToDo = dict[tuple[str, float | None], int]
"""The number of things of each finding that needs action, by its kind and the time of what happens
next.
"""


async def _todo_and_gaps(simulator: Simulator) -> tuple[ToDo, list[NotKnown]]:
    """Return what needs action, and what is not known."""
    settings = watching(simulator.url)
    async with Exporter(settings) as exporter:
        collected = await exporter.samples((), timeout=PATIENCE)
    todo = {}
    for finding in find(collected.fleets[HOTKEY], time.time(), settings.costs):
        if finding.needs_action:
            todo[finding.kind, finding.when] = finding.count
    gaps, _ = find_gaps(collected, settings)
    return todo, gaps


@pytest.mark.parametrize(
    "troubles", [SICK_TROUBLES, ("blacklisted",)], ids=["troubled", "blacklisted"]
)
async def test_what_needs_action_is_not_known_without_a_field_that_decides_it(
    troubles: Sequence[str],
) -> None:
    simulator = Simulator(Changing(start=time.time(), size=SMALL, troubles=troubles))
    api = Api(simulator)
    wrong = []
    decisive_fields = set()
    async with simulator:
        with api.remembered():
            whole, gaps = await _todo_and_gaps(simulator)
            assert gaps == []
            asked_feeds = [feed for feed in FEEDS if asks(feed) in api.asked]
            for feed in asked_feeds:
                for field in optional_fields(feed):
                    with api.without(Case(feed, f"{FIELD}{field}")):
                        todo, gaps = await _todo_and_gaps(simulator)
                    if todo != whole:
                        decisive_fields.add(field)
                        if not gaps:
                            wrong.append((feed.name, field, whole.items() ^ todo.items()))
    assert wrong == []
    assert decisive_fields
