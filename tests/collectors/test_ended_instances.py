"""Metrics of the newest audit report. tests/test_ended.py has those of recorded days."""

from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.api.answer import Answer
from chutes_exporter.api.records import AuditReport
from chutes_exporter.collectors import Answers, Miners
from chutes_exporter.collectors.base import Samples
from chutes_exporter.collectors.ended_instances import COLLECTOR
from chutes_exporter.feeds.definitions import AUDIT_REPORT, CHUTES
from chutes_exporter.feeds.reports import Reports
from tests.api.reports import INSTANCE, RECORD
from tests.collectors.support import collected
from tests.support import NOON

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
CHUTE_LOST = "chutes_miner_chute_window_lost_compute_units"
TOTAL = "chutes_miner_window_total_lost_compute_units{hotkey=me,window=1h}"


def samples_of_newest_hour(
    *instances: dict[str, Any], multiplier: float | None = 2.0, **options: Any
) -> Any:
    """Return the samples of the newest hour that are not 0, and its total loss.

    Args:
        instances: The instances in its report. Each gets an id of its own.
        multiplier: The only one of each instance.
        options: The answer about chutes, and other options of the collector.
    """
    rows, records = [], []
    for number, instance in enumerate(instances):
        key = {"instance_id": f"{instance['instance_id']}{number}"}
        rows.append(instance | key)
        records.append(OPEN | key | {"compute_multiplier": multiplier})
    answers: dict[Any, Any] = {AUDIT_REPORT: {"instance_audit": rows, "compute_history": records}}
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


def test_an_end_counts_by_reason_and_by_chute() -> None:
    assert samples_of_newest_hour(ENDED) == {
        TOTAL: 3600,
        "chutes_miner_window_ended_instances{hotkey=me,window=1h,reason=probes,outcome=lost}": 1,
        "chutes_miner_chute_window_ended_instances{hotkey=me,window=1h,chute_id=c,outcome=lost}": 1,
        f"{LOST}{{hotkey=me,window=1h,reason=probes}}": 3600,
        f"{CHUTE_LOST}{{hotkey=me,window=1h,chute_id=c}}": 3600,
    }


def test_a_start_that_a_scale_down_ended_is_named_and_others_are_not() -> None:
    start = ENDED | {"activated_at": None, "deletion_reason": "autoscaler - downscale adjustment"}
    rows = [
        start | {"instance_id": "planned"},
        start | {"instance_id": "failed", "deletion_reason": "miner initialized"},
        ENDED | {"instance_id": "active", "deletion_reason": "autoscaler - downscale adjustment"},
    ]
    report = {"instance_audit": rows, "compute_history": []}
    found = collected(COLLECTOR, {AUDIT_REPORT: report})
    named = {key: value for key, value in found.items() if "planned_start_end" in key}
    assert named == {"chutes_instance_planned_start_end{hotkey=me,instance_id=planned}": 1}


def test_a_miner_that_nobody_watches_is_exported_only_if_chosen() -> None:
    theirs = ENDED | {"miner_hotkey": "other"}
    assert samples_of_newest_hour(theirs) == {TOTAL: 0}
    found = samples_of_newest_hour(theirs, miners="all")
    assert found[f"{LOST}{{hotkey=other,window=1h,reason=probes}}"] == 3600


# The units of 1e308 are more than a number can be.
@pytest.mark.parametrize("multiplier", [None, 1e308, -1.0])
def test_a_multiplier_that_is_unknown_hides_only_the_losses_that_need_it(
    multiplier: float | None,
) -> None:
    found = samples_of_newest_hour(ENDED, ENDED, multiplier=multiplier)
    assert found == {
        "chutes_miner_window_ended_instances{hotkey=me,window=1h,reason=probes,outcome=lost}": 2,
        "chutes_miner_chute_window_ended_instances{hotkey=me,window=1h,chute_id=c,outcome=lost}": 2,
    }


def test_an_end_of_an_unknown_chute_hides_the_numbers_by_chute() -> None:
    found = samples_of_newest_hour(ENDED, ENDED | {"chute_id": None})
    assert found == {
        TOTAL: 7200,
        "chutes_miner_window_ended_instances{hotkey=me,window=1h,reason=probes,outcome=lost}": 2,
        f"{LOST}{{hotkey=me,window=1h,reason=probes}}": 7200,
    }


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


def test_the_factor_of_an_integrated_subnet_tells_a_redeployment_whatever_the_name() -> None:
    factors = {"integrated_subnet": 1.3}
    chute = {"chute_id": "c", "name": "amber/app", "compute_multiplier_factors": factors}
    found = samples_of_newest_hour(UNMARKED, chutes=[chute])
    assert found[f"{LOST}{{hotkey=me,window=1h,reason=redeployed}}"] == 3600


def test_an_end_with_the_mark_of_a_valid_end_is_no_redeployment() -> None:
    chute = {"chute_id": "c", "name": "affine/model", "public": False}
    found = samples_of_newest_hour(UNMARKED | {"valid_termination": True}, chutes=[chute])
    assert any("reason=none,outcome=counts" in key for key in found)


@pytest.mark.parametrize(
    "chutes",
    [None, [{"chute_id": "other", "name": "a", "public": False}], [{"chute_id": "c"}]],
    ids=["no answer", "not listed", "no name"],
)
def test_an_unknown_chute_hides_only_the_reasons_that_its_name_decides(chutes: Any) -> None:
    found = samples_of_newest_hour(UNMARKED, ENDED, chutes=chutes)
    # The total is over all reasons, so it is hidden as well.
    assert TOTAL not in found
    assert found[f"{CHUTE_LOST}{{hotkey=me,window=1h,chute_id=c}}"] == 7200
    assert {key for key in found if "reason=" in key} == {
        "chutes_miner_window_ended_instances{hotkey=me,window=1h,reason=probes,outcome=lost}",
        f"{LOST}{{hotkey=me,window=1h,reason=probes}}",
    }


def test_a_record_that_cannot_be_read_hides_the_windows_that_need_its_report() -> None:
    # The last record has no id.
    report = {"instance_audit": [ENDED, INSTANCE, {}], "compute_history": [OPEN]}
    found = collected(COLLECTOR, {AUDIT_REPORT: report})
    assert found == {
        "chutes_audit_report_end_timestamp_seconds": NOON,
        "chutes_audit_reports_known": 0,
    }


def test_missing_reports_hide_the_windows_that_need_them() -> None:
    # Only the report of the newest hour is there.
    whole = {"instance_audit": [ENDED, INSTANCE], "compute_history": [OPEN]}
    found = collected(COLLECTOR, {AUDIT_REPORT: whole})
    assert found["chutes_audit_reports_known"] == 1
    assert any("window=1h" in key for key in found)
    assert not any("window=1d" in key for key in found)


def test_reports_of_other_miners_say_nothing_about_a_miner() -> None:
    report = AuditReport([], [], end=NOON)
    reports = Reports((report,), hotkeys=frozenset({"other"}), unread=0, due=NOON)
    out = Samples()
    miners = Miners(frozenset({"me", "other"}), "watched")
    assert COLLECTOR.run(Answers({AUDIT_REPORT.name: Answer(reports)}), miners, out)
    hotkeys = set()
    for family in out.collect():
        # The samples about the reports themselves have no hotkey.
        hotkeys |= {sample.labels["hotkey"] for sample in family.samples if sample.labels}
    assert hotkeys == {"other"}
