"""How an audit report is read, record by record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api import decoding
from chutes_exporter.api.decoding import ReportShape, Tally
from chutes_exporter.api.errors import TooLargeError, UndecodableError
from chutes_exporter.api.records import AuditInstance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


async def read(text: bytes, size: int = 1_000_000) -> tuple[list[Any], Tally]:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(text), size):
            yield text[start : start + size]

    tally = Tally()
    return [record async for record in ReportShape().decode(chunks(), tally)], tally


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_records_come_whole_however_the_report_is_cut(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIECE_BYTES", 100)
    nested = INSTANCE | {"new": {"field": 1}}
    records, tally = await read(body([INSTANCE, nested, INSTANCE], [RECORD, RECORD]), size)
    assert [isinstance(record, AuditInstance) for record in records] == [True, True, True, False, False]
    assert {record.deletion_reason for record in records[:3]} == {INSTANCE["deletion_reason"]}
    assert (tally.accepted, tally.rejected) == (5, 0)


async def test_an_empty_report_and_spaces_are_understood() -> None:
    assert await read(b' {"instance_audit":[],"compute_history":[ ] , "new": 1} ') == ([], Tally())


@pytest.mark.parametrize("field", list(INSTANCE)[1:])
async def test_an_instance_without_a_field_is_rejected(field: str) -> None:
    broken = {name: value for name, value in INSTANCE.items() if name != field}
    records, tally = await read(body([INSTANCE, broken]))
    assert len(records) == 2
    assert (tally.accepted, tally.rejected) == (2, 1)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"detail": "x"}',
        body([INSTANCE])[:-1],
        body([INSTANCE])[:100],
        json.dumps({"compute_history": [RECORD], "instance_audit": [INSTANCE]}).encode(),
        body([{"instance_id": 5}, {}]),
        body([[{}], INSTANCE | {"new": [[{"a": {"b": {"c": {}}}}]]}]),
    ],
    ids=range(9),
)
async def test_another_shape_is_refused(text: bytes) -> None:
    with pytest.raises(UndecodableError):
        await read(text)


@pytest.mark.parametrize("limit", ["MAX_LINE_BYTES", "MAX_REPORT_BYTES"])
async def test_a_record_and_a_report_have_a_limit(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, limit, 200_000)
    with pytest.raises(TooLargeError):
        await read(body([INSTANCE | {"deletion_reason": "x" * 400_000}]), 65_536)


async def test_a_report_of_20_000_instances_fits() -> None:
    text = body([INSTANCE | {"deletion_reason": "x" * 400}] * 20_000, [RECORD] * 80_000)
    _, tally = await read(text, 65_536)
    assert tally.accepted == 100_000
