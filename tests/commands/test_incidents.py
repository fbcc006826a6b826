"""The command ``incidents`` when something is missing. tests/test_worlds.py compares it with the
truth.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api.reports import INSTANCE, RECORD, body
from tests.collectors.test_ended_instances import ENDED
from tests.commands.support import Target, run
from tests.exporters import served
from tests.recorded import recorded_api
from tests.support import HOTKEY

Reports = dict[int, bytes]
"""The body of each report by the hour of its end."""
NAMES = b'[{"chute_id": "c", "name": "vendor/model"}]'
SCORES = {
    "final_scores": {HOTKEY: 0.1},
    "raw_values": {HOTKEY: {"instance_compute_units": 36000.0}},
}
"""What the miner computed in the past day."""
MINE = ENDED | {"miner_hotkey": HOTKEY, "chute_id": "c", "activated_at": "2026-11-24T11:00:01"}


def record(start: str, end: str | None, multiplier: float | None = 2.0) -> dict[str, Any]:
    """Return a multiplier of the instance between two times of the day, or without an end."""
    ended_at = None if end is None else f"2026-11-24T{end}:00"
    times = {"started_at": f"2026-11-24T{start}:00", "ended_at": ended_at}
    return RECORD | times | {"compute_multiplier": multiplier}


async def incidents(
    reports: Reports, *flags: str, minutes: int = 69, **more: bytes
) -> tuple[int, str]:
    """Run the command on audit reports; returns its status and output.

    Args:
        reports: The reports.
        flags: More of the command.
        minutes: How long ago the newest report ended. From 71 on, the next one is late.
        more: Other bodies of the API.
    """
    midnight = datetime(2026, 11, 24, tzinfo=UTC)
    listed = []
    bodies_of_reports = {}
    for hour, body_of_report in reports.items():
        # Any path will do that no other report has.
        path = f"audit/validator/{HOTKEY}/{hour + 24}.json"
        end = midnight + timedelta(hours=hour)
        start = end - timedelta(hours=1)
        times = {"start_time": start.isoformat(), "end_time": end.isoformat()}
        listed.append({"path": path, **times})
        bodies_of_reports[path] = body_of_report
    now = midnight + timedelta(hours=max(reports, default=0), minutes=minutes)
    bodies = {
        "audit": json.dumps(listed).encode(),
        "utilization": NAMES,
        "scores": json.dumps(SCORES).encode(),
        **more,
    }
    api = recorded_api(bodies, bodies_of_reports, now.timestamp())
    async with served(api) as url:
        status, output, _ = await run(
            Target(url), "incidents", "--hotkey", HOTKEY, *flags, variables={}
        )
    return status, output


async def lost(reports: Reports, *flags: str) -> tuple[int, list[dict[str, Any]], list[str]]:
    """Return the status, the ended instances and what is not known."""
    status, output = await incidents(reports, "--json", *flags)
    summary = json.loads(output)
    return status, summary["miners"][0]["ended"], [gap["subject"] for gap in summary["not_known"]]


OPEN = record("11:00", None)
LIVE = MINE | {"deleted_at": None}
DELETED = MINE | {"deletion_reason": "miner initialized"}
LONG = DELETED | {"created_at": "2026-11-24T08:00:00", "activated_at": "2026-11-24T08:00:00"}
"""It ends with its score, 3.5 hours after its activation."""
PENALTY = {
    12: body([LONG], [record("10:00", "11:30", 0.3)]),
    11: body([LONG], [record("10:00", None, 3.0)]),
    10: body([LONG], [record("08:00", "10:00", 2.0)]),
}
"""The last instance of its chute. Only the older reports have the multipliers from before its end.
"""
# Reports, and the lost units that follow from them.
LOSSES: dict[str, tuple[Reports, float | None]] = {
    "older reports have the multipliers that the newest lacks": (
        {
            12: body([MINE | {"created_at": "2026-11-24T10:00:00"}], [OPEN]),
            11: body([LIVE], [record("10:00", "11:00", 3.0), record("11:00", "11:00", 9.0)]),
        },
        3600 * 3.0 + 1800 * 2.0,
    ),
    "no multiplier": ({12: body([MINE], [OPEN | {"compute_multiplier": None}])}, None),
    "the last of its chute": (PENALTY, 5400 * (3.0 - 0.3)),
    "maybe a penalty": ({12: body([LONG], [record("08:00", "11:30")])}, None),
    "maybe a penalty in the first hour": (
        {12: body([DELETED], [record("11:00", "11:30", 0.5)])},
        1800 * 0.5,
    ),
    "a private one without a report that shows the last multiplier": (
        {
            12: body(
                [LONG | {"billed_to": "user"}],
                [record("08:00", "11:15", 2.0), record("11:15", "11:30", 0.0)],
            ),
        },
        11700 * 2.0 + 900 * 2.0,
    ),
}
PRECISIONS = {
    "a private one without a report that shows the last multiplier": "about",
    "maybe a penalty in the first hour": "at_least",
}
"""The precision of the losses that are not exact, of which some units are known."""


@pytest.mark.parametrize("case", LOSSES)
async def test_the_loss_follows_from_the_multipliers_in_all_reports(case: str) -> None:
    reports, units = LOSSES[case]
    precision = PRECISIONS.get(case, "at_least" if units is None else "exact")
    status, (row,), gaps = await lost(reports, "--hours", "1")
    assert row["lost_compute_units"] == pytest.approx(units)
    assert row["lost_precision"] == precision
    is_unclear = precision == "at_least"
    assert status == (3 if is_unclear else 0)
    assert gaps == ["the loss of i"] * is_unclear


async def test_missing_and_bad_reports_are_named_and_nothing_is_invented() -> None:
    good = body([MINE], [OPEN])
    # The report of 11:00 is missing, those of 10:00 and 8:00 cannot be read, and that of 9:00 lacks
    # a record. Its other record is of the instance in the newest report, which counts.
    bad = {
        12: good,
        10: b"{}",
        9: body([MINE | {"instance_id": 5}, MINE | {"deleted_at": "2026-11-24T08:30:00"}], []),
        8: b"",
    }
    status, (row,), gaps = await lost(bad, "--hours", "5")
    assert (status, row["lost_compute_units"]) == (3, 3600.0)
    hours = ("11:00", "10:00", "09:00", "08:00")
    assert gaps == [f"the report of 2026-11-24 {hour} UTC" for hour in hours]


@pytest.mark.parametrize("broken", [b"", b'[{"chute_id": "c"}, {"chute_id": 5}]'])
async def test_without_the_names_of_all_chutes_these_are_a_gap(broken: bytes) -> None:
    found = {12: body([MINE], [OPEN])}
    status, output = await incidents(found, "--hours", "1", utilization=broken)
    assert status == 3
    assert "? utilization: " in output


NOT_LISTED = "the report of {} UTC: the list of reports does not have it"
MADE_NEVER = NOT_LISTED.format("2026-11-24 11:00")
LEFT = NOT_LISTED.format("2026-11-23 13:00")
LATE = "the ends since 2026-11-24 12:00 UTC: the report of 2026-11-24 13:00 UTC is not there yet"


@pytest.mark.parametrize(
    ("missing", "minutes", "gaps"),
    [
        (None, 59, []),
        # At 13:00, the oldest report leaves the list, and the newest is not there yet.
        (-11, 61, [LEFT]),
        (-11, 71, [LATE, LEFT]),
        (11, 59, [MADE_NEVER]),
    ],
    ids=["none", "at the full hour", "late", "never made"],
)
async def test_of_a_missing_hour_the_losses_of_the_others_remain_and_it_says_why(
    missing: int | None, minutes: int, gaps: list[str]
) -> None:
    reports = {hour: body([INSTANCE], []) for hour in range(-11, 12)}
    reports[12] = body([MINE], [OPEN])
    if missing is not None:
        del reports[missing]
    status, output = await incidents(reports, "--json", minutes=minutes)
    summary = json.loads(output)
    assert status == (3 if gaps else 0)
    everything = summary["miners"][0]["sums"][-1]
    precision = "at_least" if gaps else "exact"
    assert (everything["percent_of_day"], everything["lost_precision"]) == (10.0, precision)
    assert everything["instances"] == (None if gaps else 1)
    assert [f"{gap['subject']}: {gap['reason']}" for gap in summary["not_known"]] == gaps
