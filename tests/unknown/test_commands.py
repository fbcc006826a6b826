"""No command says that all is fine while something is not known: one thing at a time is taken away
of the recorded day, of a miner in trouble and of a healthy one.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
import structlog

from chutes_exporter.commands.result import Result
from chutes_exporter.commands.snapshot import read_reports as reports_of_hours
from chutes_exporter.feeds.definitions import STATS_PER_CHUTE
from chutes_exporter.findings import find
from chutes_exporter.fleet.failures import FAILURE_HOURS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.web.landing import landing_page
from tests.commands.support import run
from tests.exporters import read_reports, watching
from tests.golden import blacklist, print_both
from tests.replay import Replay
from tests.support import PATIENCE, SEEDS, Clock, recorded_day, some
from tests.unknown.taken import AT_24, CASES, Case, asked_once, optional_fields, without

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.api.records import HourlyAudit
    from chutes_exporter.page.gaps import NotKnown

WHOLE: Final = "whole"
LANDING: Final = "landing page"
MONEY: Final = ("--gpu.cost=h200=1.9", "--gpu.cost=pro_6000=0.8")
COMMANDS: Final = {LANDING: (), "status": MONEY, "advise": (), "incidents": (), "check": ()}
"""The flags of each command. The landing page says what the command status says."""
MAY_DIFFER: Final = {
    *("not_known", "records", "status", "count", "seconds"),
    *("lost_compute_units_now", "hours_missing"),
}
"""Keys of numbers that may differ: a finding may name fewer things, and the API's clock is known to
the second.
"""
OTHER_FINDINGS: Final = {
    ("findings", kind)
    for kind in (
        *("idle_gpus", "purges", "upgrades", "waiting_upgrades", "undecided_upgrades"),
        *("maintenance", "maintenance_pending"),
    )
}
"""Findings that take over from others, if it is not known what makes those more urgent: that a
server has died, that an instance starts in vain, that a version is refused, that a server cannot
come back, or that nothing runs on one in maintenance.
"""
FINE: Final = (
    *("Nothing needs action.", "No maintenance needs action."),
    *("All checks of the API and of the settings passed.", "No instance ended.", "$0"),
)
"""Texts that say that all is fine."""
NAMING: Final = (
    *("kind", "instance_id", "server_id", "chute_id", "gpu"),
    *("subject", "hotkey", "reason"),
)
"""Keys that tell the objects of a list apart."""


@dataclass
class Output:
    """What a command prints, as a text and as JSON, with its exit status."""

    status: int
    text: str
    json: dict[str, Any]


async def _landing(replay: Replay, key: Hotkey) -> Output:
    """Return what the landing page says about the miner, with the status that the command would
    have.
    """
    clock = replay.clock
    async with Exporter(watching(replay.url, key), clock=clock, monotonic=clock) as exporter:
        await exporter.snapshot(timeout=PATIENCE)
        await read_reports(exporter)
        page = await landing_page(exporter)
    # The tables of feeds and collectors follow under the first heading of this level.
    text = page.partition("<h2>")[0]
    (tone,) = re.findall(r'</h1>\n<p class="state (\w+)">', text)
    return Output({"good": 0, "bad": 1, "wait": 3}[tone], text, {})


async def _run(command: str, replay: Replay, miner: str) -> Output:
    """Return what a command prints, or what the landing page says."""
    key = recorded_day().miners[miner]
    if command == LANDING:
        return await _landing(replay, key)
    flags = ("--chain.url", replay.chain_url, *COMMANDS[command])
    variables = {"MINER_SS58": key.address, "MINER_SEED": SEEDS[miner]}
    status, output, _ = await run(replay, *command.split(), *flags, variables=variables)
    text, brace, in_json = output.partition("\n{\n")
    return Output(status, f"{text}\n", json.loads(brace + in_json))


async def _outputs(miner: str) -> dict[tuple[str, str], Output]:
    """Return the outputs of each command in each case that it can notice, by the names of both."""
    outputs: dict[tuple[str, str], Output] = {}
    clock = Clock(recorded_day().first + AT_24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Result, "print", print_both)
        async with Replay(recorded_day(), at=AT_24, clock=clock) as replay:
            for command in COMMANDS:
                replay.requests.clear()
                outputs[command, WHOLE] = await _run(command, replay, miner)
                asked = {request.endpoint for request in replay.requests}
                if any("per_chute" in request.query for request in replay.requests):
                    asked.add(STATS_PER_CHUTE.name)
                with asked_once(replay):
                    for case in CASES if miner == "troubled" else some(CASES):
                        is_noticed = case.feed.name in asked and case.loss in ("missing", "record")
                        if is_noticed or (command == "check" and case.loss == "missing"):
                            with without(replay, case):
                                outputs[command, str(case)] = await _run(command, replay, miner)
    return outputs


@pytest.fixture(scope="module", params=SEEDS)
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
            for key in value.keys() - MAY_DIFFER:
                yield from numbers(value[key], (*path, key))
        case list():
            for part in value:
                yield from numbers(part, (*path, _name_of(part)))


def _name_of(part: Any) -> str:
    """Return what tells a part of a list from the others."""
    if not isinstance(part, dict):
        return f"{part}"
    names = [f"{part[key]}" for key in NAMING if key in part]
    if "gpu" in part:
        # A chute may be in rows about several models, and a model in rows with other reasons.
        return " ".join([*names, f"{part.get('meaning')}"])
    return names[0] if names else ""


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_says_that_all_is_fine(
    outputs: dict[tuple[str, str], Output], command: str
) -> None:
    whole = outputs[command, WHOLE]
    cases = [case for of, case in outputs if of == command and case != WHOLE]
    assert len(cases) >= 3
    # The status stays 1 if something else needs action. The command check fails (1) without an
    # answer.
    statuses = {3, 1} if whole.status == 1 or command == "check" else {3}
    for case in cases:
        output = outputs[command, case]
        assert output.status in statuses, case
        for text in FINE:
            assert text not in output.text, case
        # Reports have the names of their hours.
        feed = case.partition("-")[0].replace("audit_report", "report")
        assert feed.replace("audit", "report") in output.text, case
        assert _other_numbers(whole, output) == [], case


def _other_numbers(whole: Output, output: Output) -> list[tuple[str, ...]]:
    """Return the places of numbers that are new or differ from the whole output."""
    known = dict(numbers(whole.json))
    others = []
    for path, value in numbers(output.json):
        # What ended instances lost is a lower bound, which the text says.
        is_loss = path[-1] in ("lost_compute_units", "percent_of_day")
        if is_loss and "at least" in output.text and value < known[path]:
            continue
        # Ends that have one of two reasons have their own row.
        if "redeployed or none" in path:
            continue
        # A plan is also made while not all failures are known, and says so.
        is_plan = "plan" in path or "stay_idle" in path
        if is_plan and "It is not known what failed here" in output.text:
            continue
        is_equal = math.isclose(known.get(path, math.inf), value, rel_tol=1e-3)
        if not is_equal and path[:2] not in OTHER_FINDINGS:
            others.append(path)
    return others


NOT_MISSED: Final = {
    # Services before October 2026 have no pending maintenance.
    ("maintenance", "maintenance_status"),
    # A server on which nothing runs is told to boot, which loses nothing.
    ("maintenance", "target_measurement_version"),
    ("tee_measurements", "expected_gpus"),
    ("tee_measurements", "gpu_count"),
}
"""Fields that decide what needs action, and whose absence is no gap."""
ToDo = set[tuple[str, str]]
"""The kind and the text of each finding that needs action, with the number of things and times."""


async def _todo_and_gaps(
    exporter: Exporter, hotkey: str, now: float, reports: list[HourlyAudit]
) -> tuple[ToDo, Sequence[NotKnown]]:
    """Return what needs action, and what is not known."""
    snapshot = await exporter.snapshot(timeout=PATIENCE, reports=reports)
    todo = set()
    for finding in find(snapshot.fleets[hotkey], now, exporter.settings.costs):
        if finding.needs_action:
            todo.add((finding.kind, finding.problem))
    return todo, snapshot.gaps


@pytest.mark.parametrize("is_blacklisted", [False, True])
async def test_what_needs_action_is_not_known_without_a_field_that_decides_it(
    is_blacklisted: bool,  # noqa: FBT001 - a parameter
) -> None:
    day = recorded_day()
    now = day.first + AT_24
    key = day.miners["troubled"]
    wrong, decisive_fields = [], set()
    async with Replay(day, at=AT_24, clock=Clock(now)) as replay:
        if is_blacklisted:
            replay.edits["metagraph"] = blacklist
        settings = watching(replay.url, key)
        async with Exporter(settings, clock=Clock(now), monotonic=Clock(now)) as exporter:
            reports, _ = await reports_of_hours(exporter.client, settings, FAILURE_HOURS)
            whole, gaps = await _todo_and_gaps(exporter, key.address, now, reports)
            assert gaps == []
            for feed in [feed for feed, state in exporter.feeds.states().items() if state.kept]:
                for field in optional_fields(feed):
                    exporter.feeds.forget([feed])
                    with without(replay, Case(feed, field)):
                        todo, gaps = await _todo_and_gaps(exporter, key.address, now, reports)
                    if todo != whole:
                        decisive_fields.add(field)
                        if not gaps and (feed.name, field) not in NOT_MISSED:
                            wrong.append((feed.name, field, whole ^ todo))
                exporter.feeds.forget([feed])

    assert wrong == []
    assert decisive_fields
