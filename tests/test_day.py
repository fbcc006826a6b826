"""The recorded day: what a page and the commands say at each full hour, against the truth of the
service's database, which no code of ours made.
"""

from __future__ import annotations

import json
import lzma
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.duration import HOUR
from chutes_exporter.fleet.gpus import GPU_STATES
from chutes_exporter.page.exporter import Exporter
from tests.commands.support import hotkey_file, run
from tests.exporters import page_of, patient, read_reports
from tests.replay import Replay
from tests.support import RECORDINGS, Clock, recorded_day, some
from tests.truth import Row, differences
from tests.unknown.taken import asked_once

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.pages import Page

SOON = 5e-3
"""How much a sum over time may have moved on when the service answers."""

PAGE = (
    Row("chutes_miner_score_ratio{hotkey}", "{hotkey}.score_share", 1e-6),
    Row("chutes_miner_score_ratio{hotkey}", "{hotkey}.service_says.score_share"),
    Row("chutes_miner_score_rank{hotkey}", "{hotkey}.score_rank"),
    Row("chutes_miner_window_compute_units{hotkey,window=1h}", "{hotkey}.compute_units.1h", SOON),
    Row("chutes_miner_window_compute_units{hotkey,window=1d}", "{hotkey}.compute_units.1d", SOON),
    Row("chutes_fleet_gpus{hotkey,gpu,state}", "{hotkey}.gpus.{gpu}.{state}"),
    Row("chutes_fleet_instances{hotkey,state}", "{hotkey}.instances.{state}"),
    Row(
        "chutes_server_info{hotkey,name,server_id}",
        "{hotkey}.servers.{name}.server_id.{server_id}",
    ),
    Row("chutes_server_info{hotkey,name,version}", "{hotkey}.servers.{name}.version.{version}"),
    Row("chutes_server_info{hotkey,name,tee=true} exists", "{hotkey}.with_tee.{name}"),
    Row("chutes_server_gpus{hotkey,server,state}", "{hotkey}.servers.{server}.gpus.{state}"),
    Row(
        "chutes_server_maintenance_state{hotkey,server,state}",
        "{hotkey}.servers.{server}.maintenance.{state}",
    ),
    Row("chutes_server_upgrade_needed{hotkey,server}", "{hotkey}.servers.{server}.needs_upgrade"),
    Row(
        "chutes_miner_window_ended_instances{hotkey,window=1h,reason,outcome}",
        "{hotkey}.ended_1h.{reason,outcome}.instances",
    ),
    Row(
        "chutes_miner_window_ended_instances{hotkey,window=1d,reason,outcome}",
        "{hotkey}.ended_1d.{reason,outcome}.instances",
    ),
    Row(
        "chutes_miner_window_lost_compute_units{hotkey,window=1h,reason}",
        "{hotkey}.lost_units_1h.{reason}",
    ),
    Row(
        "chutes_miner_window_lost_compute_units{hotkey,window=1d,reason}",
        "{hotkey}.lost_units_1d.{reason}",
    ),
    Row(
        "chutes_miner_window_total_lost_compute_units{hotkey,window=1h}", "{hotkey}.lost_units_1h.*"
    ),
    Row(
        "chutes_miner_window_total_lost_compute_units{hotkey,window=1d}", "{hotkey}.lost_units_1d.*"
    ),
    Row("chutes_launch_gpus{hotkey,gpu,chute} exists", "{hotkey}.launchable.{gpu}.{chute}"),
    Row(
        "chutes_launch_refused_chutes{hotkey,gpu,reason=disabled} exists",
        "{hotkey}.idle_models.{gpu}",
    ),
    Row("chutes_jobs_stuck{hotkey}", "{hotkey}.stuck_jobs.*"),
    Row("chutes_audit_report_end_timestamp_seconds{}", "report_end"),
)
"""What the page shows, and where the truth has it."""

COMMANDS = (
    Row("status.miners.{hotkey}.share", "{hotkey}.score_share", 1e-6),
    Row("status.miners.{hotkey}.rank", "{hotkey}.score_rank"),
    *(
        Row(f"status.miners.{{hotkey}}.gpus.{{gpu}}.{state}", f"{{hotkey}}.gpus.{{gpu}}.{state}")
        for state in GPU_STATES
    ),
    Row(
        "status.miners.{hotkey}.maintenance.{server,status}",
        "{hotkey}.in_slot.{server}.{status}",
    ),
    Row("status.findings.{hotkey,kind=stuck_jobs}.count", "{hotkey}.stuck_jobs.*"),
    Row(
        "advise.miners.{hotkey}.chutes.{gpu,chute}",
        "{hotkey}.launchable.{gpu}.{chute}",
    ),
    Row("incidents.miners.{hotkey}.ended.{reason}", "{hotkey}.ended_1d.{reason}.instances"),
    Row(
        "incidents.miners.{hotkey}.ended.{reason}.lost_compute_units",
        "{hotkey}.lost_units_1d.{reason}",
    ),
    Row(
        "incidents.miners.{hotkey}.sums.{reason=all}.lost_compute_units", "{hotkey}.lost_units_1d.*"
    ),
    Row("incidents_1h.miners.{hotkey}.ended.{reason}", "{hotkey}.ended_1h.{reason}.instances"),
    Row(
        "incidents_1h.miners.{hotkey}.ended.{reason}.lost_compute_units",
        "{hotkey}.lost_units_1h.{reason}",
    ),
)
"""What the commands show."""

UNCLEAR = 19 * HOUR
"""At this hour, an instance was deleted in the oldest of the 24 reports. Only the report before
shows whether the service cut its multiplier."""
HOURS: Sequence[dict[str, Any]] = some(
    json.loads(lzma.decompress((RECORDINGS / "day-truth.json.xz").read_bytes()))["hours"]
)


def truth_of(hour: dict[str, Any]) -> dict[str, Any]:
    """Return what is true at an hour, by hotkey."""
    day = recorded_day()
    true = {name: hour[name] for name in ("at", "snapshot")}
    for name, key in day.miners.items():
        miner = hour[name]
        servers = {}
        for server, about in miner["servers"].items():
            # A server without TEE has no maintenance.
            hidden = set() if about["tee"] else {"maintenance", "needs_upgrade"}
            servers[server] = {key: about[key] for key in about.keys() - hidden}
        in_slot = {
            server: about["maintenance"]
            for server, about in servers.items()
            if about.get("maintenance", "none") != "none"
        }
        true[key.address] = miner | {
            "servers": servers,
            "with_tee": [server for server, about in servers.items() if about["tee"]],
            "in_slot": in_slot,
            "stuck_jobs": hour["stuck_jobs"][name],
            "service_says": hour["service_says"][name],
        }
        true["report_end"] = day.first + miner["audit_report_end"]
    return true


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
                if found := differences(page, {}, truth_of(hour), PAGE):
                    wrong.append(f"at {hour['at'] / HOUR:g}:00\n{found}")
    assert "\n".join(wrong) == ""


@pytest.mark.parametrize("hour", HOURS, ids=lambda hour: f"{hour['at'] / HOUR:g}:00")
async def test_commands_show_the_truth_at_each_hour_of_the_day(
    hour: dict[str, Any], tmp_path: Path
) -> None:
    day = recorded_day()
    true = truth_of(hour)
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
        rows = [row for row in rows if "lost_units_1d" not in row.true]
        (gap,) = outputs["incidents"]["not_known"]
        assert gap["subject"].startswith("the loss of ")
    assert differences({}, outputs, true, rows) == ""
