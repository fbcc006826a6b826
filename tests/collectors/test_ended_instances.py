"""Metrics of the newest audit report. tests/test_ended.py has recorded ones."""

from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.ended_instances import COLLECTOR
from chutes_exporter.feeds.table import AUDIT_REPORT
from tests.api.reports import INSTANCE
from tests.collectors.support import collected

ENDED = INSTANCE | {
    "created_at": "2026-11-24T11:00:00",
    "activated_at": "2026-11-24T11:10:00",
    "deleted_at": "2026-11-24T11:30:00",
    "deletion_reason": "miner initialized",
    "compute_multiplier": 2.0,
}
LOST = "chutes_miner_window_lost_compute_units"


def run(*instances: dict[str, Any], **options: Any) -> dict[str, float]:
    rows = [
        row | {"instance_id": row.get("instance_id", "i") + str(number)}
        for number, row in enumerate(instances)
    ]
    report = {"instance_audit": rows, "compute_history": []}
    found = collected(COLLECTOR, {AUDIT_REPORT: report}, **options)
    return {
        key: value for key, value in found.items() if value and not key.startswith("chutes_audit_")
    }


@pytest.mark.parametrize(
    "at", [None, "2026-11-24T10:59:59", "2026-11-24T12:00:01", "2099-01-01T00:00:00"]
)
def test_an_end_outside_the_hour_does_not_count(at: str | None) -> None:
    assert run(ENDED | {"deleted_at": at}) == {}


def test_a_miner_that_nobody_watches_is_exported_only_if_chosen() -> None:
    theirs = ENDED | {"miner_hotkey": "other"}
    assert run(theirs) == {}
    assert run(theirs, miners="all")[f"{LOST}{{hotkey=other,window=1h}}"] == 3600


def test_a_multiplier_that_is_unknown_or_without_end_hides_only_the_lost_units() -> None:
    for multiplier in (None, 1e308):
        found = run(ENDED, ENDED | {"compute_multiplier": multiplier})
        assert list(found.values()) == [2]
