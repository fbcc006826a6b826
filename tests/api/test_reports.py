"""How an audit report is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.decoding import Shape, Tally, memory_of
from chutes_exporter.api.endpoints import AUDIT_REPORT

if TYPE_CHECKING:
    from chutes_exporter.api.records import AuditReport

INSTANCE: dict[str, Any] = {
    "instance_id": "i",
    "miner_hotkey": "me",
    "created_at": "2026-11-24T10:00:00",
    **dict.fromkeys(("activated_at", "deleted_at", "stop_billing_at", "billed_to", "valid_termination")),
    "deletion_reason": 'a "quoted" text, {brace} [and] \\, {"started_at": 1}}',
    "compute_multiplier": 1.5,
}
RECORD = {"instance_id": "i", "compute_multiplier": 1.5, "started_at": "2026-11-24T10:00:00", "ended_at": None}


def body(instances: list[Any], records: list[Any] = [RECORD]) -> bytes:  # noqa: B006 - never changed
    return json.dumps({"instance_audit": instances, "compute_history": records}).encode()


def read(text: bytes) -> tuple[AuditReport, Tally]:
    assert isinstance(AUDIT_REPORT.shape, Shape)
    tally = Tally()
    return AUDIT_REPORT.shape.decode(text, tally), tally


@pytest.mark.parametrize("field", list(INSTANCE)[1:])
def test_an_instance_without_a_field_is_rejected(field: str) -> None:
    broken = {name: value for name, value in INSTANCE.items() if name != field}
    report, tally = read(body([INSTANCE, broken]))
    assert len(report.instances) == 1
    assert (tally.accepted, tally.rejected) == (2, 1)


def test_a_report_of_20_000_instances_fits() -> None:
    wide = INSTANCE | {"deletion_reason": "“"}
    text = body([wide, *[INSTANCE | {"deletion_reason": "x" * 400}] * 19_999], [RECORD] * 80_000)
    assert memory_of(text) < AUDIT_REPORT.max_bytes
    assert read(text)[1].accepted == 100_000
