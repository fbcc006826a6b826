"""Metrics of the newest audit report. tests/test_day.py has those of a recorded day."""

from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.ended_instances import COLLECTOR
from chutes_exporter.feeds.definitions import AUDIT_REPORT, CHUTES
from tests.api.reports import INSTANCE, RECORD
from tests.collectors.support import collected

ENDED = INSTANCE | {
    "created_at": "2026-11-24T11:00:00",
    "activated_at": "2026-11-24T11:10:00",
    "deleted_at": "2026-11-24T11:30:00",
    "deletion_reason": "watchtower - hard probe failure",
    "chute_id": "c",
}
"""An instance that lost the pay of the 1800 seconds since its creation."""
OPEN = RECORD | {"started_at": "2026-11-24T11:00:00", "compute_multiplier": 2.0}
"""With this multiplier of 2, it lost 3600 compute units."""
LOST = "chutes_miner_window_lost_compute_units"
UNKNOWN = "chutes_miner_unknown_losses{hotkey=me,window=1h}"
TOTAL = "chutes_miner_window_total_lost_compute_units{hotkey=me,window=1h}"


def report_of_newest_hour(*instances: dict[str, Any]) -> dict[str, Any]:
    """Return a report with instances, each with an id of its own and a multiplier of 2."""
    rows, records = [], []
    for number, instance in enumerate(instances):
        key = {"instance_id": f"{instance['instance_id']}{number}"}
        rows.append(instance | key)
        records.append(OPEN | key)
    return {"instance_audit": rows, "compute_history": records}


def samples_of_newest_hour(*instances: dict[str, Any], **options: Any) -> Any:
    """Return the samples of the newest hour that are not 0, and its total loss.

    ``options`` are the answer about chutes, and other options of the collector.
    """
    answers: dict[Any, Any] = {AUDIT_REPORT: report_of_newest_hour(*instances)}
    chutes = options.pop("chutes", None)
    if chutes is not None:
        answers[CHUTES] = chutes
    samples = {}
    for series, value in collected(COLLECTOR, answers, **options).items():
        is_shown = value or series == TOTAL
        if "window=1h" in series and is_shown:
            samples[series] = value
    return samples


@pytest.mark.parametrize(
    "at", [None, "2026-11-24T10:59:59", "2026-11-24T12:00:01", "2099-01-01T00:00:00"]
)
def test_an_end_outside_the_hour_does_not_count(at: str | None) -> None:
    assert samples_of_newest_hour(ENDED | {"deleted_at": at}) == {TOTAL: 0}


# The units of 1e308 are more than a number can be.
@pytest.mark.parametrize("multiplier", [None, 1e308, -1.0])
def test_a_multiplier_that_is_unknown_makes_losses_lower_bounds_with_their_number(
    multiplier: float | None,
) -> None:
    report = report_of_newest_hour(ENDED, ENDED)
    report["compute_history"][1]["compute_multiplier"] = multiplier
    found = collected(COLLECTOR, {AUDIT_REPORT: report})
    for metric in (TOTAL, f"{LOST}{{hotkey=me,window=1h,reason=probes}}"):
        assert found[metric] == 3600
    assert found[UNKNOWN] == 1
    # A lower bound of 0 says nothing.
    report["compute_history"][0]["compute_multiplier"] = multiplier
    found = collected(COLLECTOR, {AUDIT_REPORT: report})
    assert found[UNKNOWN] == 2
    assert TOTAL not in found
    assert f"{LOST}{{hotkey=me,window=1h,reason=probes}}" not in found
    assert found[f"{LOST}{{hotkey=me,window=1h,reason=miner}}"] == 0


UNMARKED = ENDED | {"deletion_reason": None, "billed_to": "user"}
"""A private instance that ended without a reason, and without the mark of a valid end."""


# The service redeploys private chutes of some subnets, whose names have a part such as "affine".
@pytest.mark.parametrize(
    ("chute", "reason"),
    [
        ({"name": "lena/x-Affine-321", "public": False}, "redeployed"),
        ({"name": "n/turbovision-42", "public": False}, "redeployed"),
        ({"name": "amber/app", "public": False}, "none"),
        ({"name": "affine/model", "public": True}, "none"),
    ],
)
def test_without_a_reason_and_a_mark_the_name_of_the_chute_tells_a_redeployment(
    chute: dict[str, Any], reason: str
) -> None:
    found = samples_of_newest_hour(UNMARKED, chutes=[{"chute_id": "c", **chute}])
    assert found[TOTAL] == 3600
    assert found[f"{LOST}{{hotkey=me,window=1h,reason={reason}}}"] == 3600


def test_an_end_with_the_mark_of_a_valid_end_is_no_redeployment() -> None:
    chute = {"chute_id": "c", "name": "affine/model", "public": False}
    found = samples_of_newest_hour(UNMARKED | {"valid_termination": True}, chutes=[chute])
    assert any("reason=none,outcome=counts" in key for key in found)
