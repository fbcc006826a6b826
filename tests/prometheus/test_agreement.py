"""`status`, the landing page, the Overview board and the alerts agree about the recorded day."""

from __future__ import annotations

import asyncio
import html
import json
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from chutes_exporter.page.exporter import Exporter
from chutes_exporter.web.landing import landing_page
from grafana.alerts import verdict_query
from tests.commands.support import hotkey_file, run
from tests.day import DAY, LAST
from tests.exporters import page_of, patient, read_reports
from tests.grafana.answers import filled_in, whole_day
from tests.replay import Replay
from tests.support import Clock

if TYPE_CHECKING:
    from pathlib import Path

WINDOW: Final = {"upgrades", "waiting_upgrades", "undecided_upgrades", "unmeasured_servers"}
FINDINGS: Final = {
    "ChutesGpusIdle": {"idle_gpus", "dead_servers"},
    "ChutesGpusUnverified": {"unverified_gpus"},
    "ChutesServerInMaintenance": {"maintenance", "refused_boots"},
    "ChutesServerMaintenancePending": {"maintenance_pending"},
    "ChutesUpgradeWindow": WINDOW,
    "ChutesStartInVain": {"starts_in_vain"},
    "ChutesInstancePurgeNear": {"purges"},
    "ChutesChuteFails": {"failing_chutes"},
}
"""The findings that say what an alert says. The other alerts are about the past, which `status`
does not know.
"""
QUIET: Final = {
    # Idle GPUs that cost little have no alert, and these have none.
    *("idle_gpus", "stuck_jobs", "deleted_instances", "silent_instances"),
    # It has one while a window is open.
    "unmeasured_servers",
}
DELAY: Final = 65
"""Minutes within which an alert says what `status` says: audit reports and doubts take up to one
hour."""
OVER: Final = 35
"""Minutes for which an alert goes on after what it is about, at most."""
ACT: Final = {999, 1000}
"""Numbers of the verdict while an alert fires."""
WELL: Final = 1002
NAMED: Final = 1003
"""Only `status` names something to do."""


async def said_at(minute: int, directory: Path) -> tuple[dict[str, Any], str]:
    """Return the JSON of `status` and the text of the landing page at a minute of the day."""
    clock = Clock(DAY.first + 60 * minute)
    async with Replay(DAY, at=60 * minute, clock=clock) as replay:
        flags = ("--json", f"--hotkey-file={hotkey_file(directory)}")
        _, output, _ = await run(replay, "status", *flags)
        settings = patient(replay.url, keys=tuple(DAY.miners.values()))
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            await read_reports(exporter)
            await page_of(exporter)
            page = await landing_page(exporter)
    return json.loads(output), html.unescape(re.sub("<[^>]+>", "", page))


def firing(hotkey: str, first: int, last: int) -> set[tuple[str, str]]:
    """Return the alerts of a miner that fire between two minutes, with their places."""
    return {
        (one.alert, one.place)
        for one, minutes in whole_day().firing.items()
        if one.hotkey == hotkey and any(first <= at <= last for at in minutes)
    }


@pytest.mark.soak
@pytest.mark.parametrize("hour", range(1, 25))
def test_status_landing_page_overview_and_alerts_say_the_same(hour: int, tmp_path: Path) -> None:
    now = 60 * hour
    # It runs an exporter of its own, in a loop of its own.
    verdicts = whole_day().answers
    summary, landing = asyncio.run(said_at(now, tmp_path))
    assert summary["verdict"] in landing
    for key in DAY.miners.values():
        found: dict[str, str] = {}
        for finding in summary["findings"]:
            if finding["hotkey"] == key.address and finding["needs_action"]:
                found[finding["kind"]] = " ".join(finding["things"])
                assert finding["problem"] in landing
                assert finding["command"] in landing
        alerts = firing(key.address, now, now)
        # What still fires later is not over yet.
        for alert, place in alerts & firing(key.address, min(now + OVER, LAST), LAST):
            named = [found[kind] for kind in FINDINGS.get(alert, ()) if kind in found]
            assert alert not in FINDINGS or any(place in things for things in named), alert
        soon = {name for name, _ in firing(key.address, now, now + DELAY)}
        for kind in found.keys() - QUIET:
            assert any(kind in FINDINGS.get(name, ()) for name in soon), (kind, soon)
        [verdict] = verdicts[filled_in(verdict_query("$hotkey"), [key.address])][now].values()
        if alerts:
            assert verdict in ACT
        else:
            assert verdict == (NAMED if found else WELL)
