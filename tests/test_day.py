"""The recorded day: what a page and the commands say at each full hour, against the truth of the
service's database, which no code of ours made.
"""

from __future__ import annotations

import json
import lzma
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.duration import HOUR
from chutes_exporter.fleet.gpus import GPU_STATES
from chutes_exporter.page.exporter import Exporter
from tests.commands.support import hotkey_file, run
from tests.exporters import page_of, patient, read_reports
from tests.replay import Replay
from tests.support import RECORDINGS, Clock, recorded_day, some
from tests.truth import Row, add_samples, differences
from tests.unknown.taken import asked_once

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.pages import Page

SOON = 5e-3
"""How much a sum over time may have moved on when the service answers."""

PAGE = (
    Row("chutes_miner_score_ratio", "score_share", "hotkey", 1e-6),
    Row("chutes_miner_score_ratio", "service_says", "hotkey"),
    Row("chutes_miner_score_rank", "score_rank", "hotkey"),
    Row('chutes_miner_window_compute_units{window="1h"}', "compute_units", "hotkey", SOON, "1h"),
    Row('chutes_miner_window_compute_units{window="1d"}', "compute_units", "hotkey", SOON, "1d"),
    Row("chutes_fleet_gpus", "gpus", "hotkey gpu state"),
    Row("chutes_fleet_instances", "instances", "hotkey state"),
    Row("chutes_server_info", "servers", "hotkey name server_id", field="server_id"),
    Row("chutes_server_info", "with_tee", "hotkey name version", field="version"),
    Row('chutes_server_info{tee="true"}', "with_tee", "hotkey name", field="tee"),
    Row("chutes_server_gpus", "servers", "hotkey server state", field="gpus"),
    Row("chutes_server_maintenance_state", "with_tee", "hotkey server state", field="maintenance"),
    Row("chutes_server_upgrade_needed", "with_tee", "hotkey server", field="needs_upgrade"),
    Row('chutes_miner_window_ended_instances{window="1h"}', "ended_1h", "hotkey reason outcome"),
    Row('chutes_miner_window_ended_instances{window="1d"}', "ended_1d", "hotkey reason outcome"),
    Row('chutes_miner_window_lost_compute_units{window="1h"}', "lost_units_1h", "hotkey reason"),
    Row('chutes_miner_window_lost_compute_units{window="1d"}', "lost_units_1d", "hotkey reason"),
    Row('chutes_miner_window_total_lost_compute_units{window="1h"}', "lost_units_1h", "hotkey"),
    Row('chutes_miner_window_total_lost_compute_units{window="1d"}', "lost_units_1d", "hotkey"),
    Row("chutes_launch_gpus", "launchable", "hotkey gpu chute", counted=True),
    Row(
        'chutes_launch_refused_chutes{reason="disabled"}', "idle_models", "hotkey gpu", counted=True
    ),
    Row("chutes_jobs_stuck", "stuck_jobs", "hotkey"),
    Row("chutes_audit_report_end_timestamp_seconds", "report_end"),
)
"""What the page shows, and where the truth has it."""

COMMANDS = (
    Row("status_miners_share", "score_share", "hotkey", 1e-6),
    Row("status_miners_rank", "score_rank", "hotkey"),
    *(
        Row(f"status_miners_gpus_{state}", "gpus", "hotkey gpu", field=state)
        for state in GPU_STATES
    ),
    Row("status_miners_maintenance", "in_slot", "hotkey server status"),
    Row('status_findings_count{kind="stuck_jobs"}', "stuck_jobs", "hotkey", absent=0),
    Row("advise_miners_chutes", "launchable", "hotkey gpu chute"),
    Row("incidents_miners_ended", "ended_1d", "hotkey reason"),
    Row("incidents_miners_ended_lost_compute_units", "lost_units_1d", "hotkey reason"),
    Row('incidents_miners_sums_lost_compute_units{reason="all"}', "lost_units_1d", "hotkey"),
    Row("incidents_1h_miners_ended", "ended_1h", "hotkey reason"),
    Row("incidents_1h_miners_ended_lost_compute_units", "lost_units_1h", "hotkey reason"),
)
"""What the commands show."""

NO_GPUS = dict.fromkeys(GPU_STATES, 0)
UNCLEAR = 19 * HOUR
"""At this hour, an instance was deleted in the oldest of the 24 reports. Only the report before
shows whether the service cut its multiplier."""
HOURS: Sequence[dict[str, Any]] = some(
    json.loads(lzma.decompress((RECORDINGS / "day-truth.json.xz").read_bytes()))["hours"]
)


def truth_of(hour: dict[str, Any]) -> dict[str, Any]:
    """Return what is true at an hour, by hotkey."""
    day = recorded_day()
    true: dict[str, Any] = defaultdict(dict)
    for name, key in day.miners.items():
        miner = hour[name]
        # A server without TEE has no maintenance.
        with_tee = {server: about for server, about in miner["servers"].items() if about["tee"]}
        in_slot = {
            server: about["maintenance"]
            for server, about in with_tee.items()
            if about["maintenance"] != "none"
        }
        facts = miner | {
            "with_tee": with_tee,
            "in_slot": in_slot,
            "ended_1h": [by_outcome(end) for end in miner["ended_1h"]],
            "ended_1d": [by_outcome(end) for end in miner["ended_1d"]],
            "gpus": {gpu: NO_GPUS | states for gpu, states in miner["gpus"].items()},
            "stuck_jobs": hour["stuck_jobs"][name],
            "service_says": hour["service_says"][name]["score_share"],
        }
        for fact, value in facts.items():
            true[fact][key.address] = value
        true["report_end"] = day.first + miner["audit_report_end"]
    return dict(true)


def by_outcome(end: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {end["reason"]: {end["outcome"]: end["instances"]}}


def without_neighbours(page: Page) -> Page:
    """Return a page without the miners next in rank, of which no truth is told."""
    watched = {key.address for key in recorded_day().miners.values()}
    return {
        key: value for key, value in page.items() if dict(key[1]).get("hotkey") in (None, *watched)
    }


async def test_a_page_shows_the_truth_at_each_hour_of_the_day() -> None:
    day = recorded_day()
    clock = Clock(day.first)
    wrong = []
    async with Replay(day, at=0, clock=clock) as replay:
        settings = patient(replay.url, keys=tuple(day.miners.values()), chutes="all")
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            for hour in HOURS:
                clock.now = day.first + hour["at"]
                await read_reports(exporter)
                page = without_neighbours(await page_of(exporter))
                if found := differences(page, truth_of(hour), PAGE):
                    wrong.append(f"at {hour['at'] / HOUR:g}:00\n{found}")
    assert "\n".join(wrong) == ""


@pytest.mark.parametrize("hour", HOURS, ids=lambda hour: f"{hour['at'] / HOUR:g}:00")
async def test_commands_show_the_truth_at_each_hour_of_the_day(
    hour: dict[str, Any], tmp_path: Path
) -> None:
    day = recorded_day()
    outputs = {}
    async with Replay(day, at=hour["at"], clock=Clock(day.first + hour["at"])) as replay:
        with asked_once(replay):
            for name in ("status", "advise", "incidents", "incidents_1h"):
                command, *more = name.replace("_1h", " --hours=1").split()
                flags = (*more, "--json", f"--hotkey-file={hotkey_file(tmp_path)}")
                _, output, _ = await run(replay, command, *flags)
                outputs[name] = json.loads(output)
    for miner in outputs["status"]["miners"]:
        # The truth has no sums, and only the servers that hold a slot.
        del miner["gpus"][-1]
        miner["maintenance"] = [row for row in miner["maintenance"] if row["status"] != "none"]
    rows = [*COMMANDS]
    if hour["at"] == UNCLEAR:
        rows = [row for row in rows if row.fact != "lost_units_1d"]
        (gap,) = outputs["incidents"]["not_known"]
        assert gap["subject"].startswith("the loss of ")
    page: Page = {}
    for command, output in outputs.items():
        add_samples(page, command, output)
    assert differences(page, truth_of(hour), rows) == ""
