from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api import decoding
from chutes_exporter.api.decoding import Shape, StreamShape, Tally, memory_of
from chutes_exporter.api.errors import CutOffError, UndecodableError
from chutes_exporter.api.schema_drift import FieldCheck
from chutes_exporter.feeds import definitions as e
from tests.api.reports import INSTANCE, RECORD, body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chutes_exporter.api.endpoint import Endpoint


async def chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield a body in chunks of a size."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def read(
    endpoint: Endpoint[Any], body: object, size: int = 7, check: FieldCheck | None = None
) -> tuple[Any, Tally]:
    """Decode an answer of an endpoint. Return its value, and what was counted.

    Args:
        endpoint: The endpoint.
        body: The bytes of the answer, or a value whose JSON is the answer.
        size: Length of the chunks in which a stream arrives.
        check: The check of the fields, if there is one.
    """
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    tally = Tally(check=check)
    if isinstance(endpoint.shape, StreamShape):
        records = [record async for record in endpoint.shape.decode(chunks(text, size), tally)]
        return records, tally
    assert isinstance(endpoint.shape, Shape)
    return endpoint.shape.decode(text, tally), tally


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_records_come_whole_however_the_stream_is_cut_into_chunks(size: int) -> None:
    body = 'data: {"chute_id":"ä","utilization":0.5}\n\ndata: {"chute_id":"b"}\n\n'.encode()
    records, tally = await read(e.CHUTE_METRICS, body, size)
    assert [(r.chute_id, r.utilization) for r in records] == [("ä", 0.5), ("b", None)]
    assert (tally.accepted, tally.rejected) == (2, 0)


async def test_a_record_that_cannot_be_read_is_counted_and_the_rest_kept() -> None:
    good = b'data: {"chute_id":"a"}\n\n' * 6
    bad = b'data: {"chute_id":5}\n\n<html>\n\ndata: {"chute_id":"b","utilization":NaN}\n\n'
    cut_off = b'data: {"chute_id":"b","utiliz'
    records, tally = await read(e.CHUTE_METRICS, bad + good + cut_off)
    assert [r.chute_id for r in records] == ["a"] * 6
    # Three bad lines, and the one that is cut off.
    assert tally.rejected == 3 + 1
    assert "chute_id" in tally.first_error


async def test_a_stream_of_endless_garbage_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # After one good line, 1 + 3 bad ones are allowed. The fifth is too much.
    monkeypatch.setattr(decoding, "MAX_REJECTED", 3)
    with pytest.raises(UndecodableError, match="5 of 6"):
        await read(e.CHUTE_METRICS, b'data: {"chute_id":"a"}\n' + b"x\n" * 100)


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (e.CHUTE_METRICS, b"\n"),
        (e.INSTANCES, b""),
        (e.METAGRAPH, b"[]"),
        (e.SUPPORTED_GPUS, b"{}"),
        (e.STATS, b" \n"),
    ],
)
async def test_an_empty_answer_is_a_failure_where_there_is_always_something(
    endpoint: Endpoint[Any], body: bytes
) -> None:
    with pytest.raises(CutOffError, match="empty"):
        await read(endpoint, body)


@pytest.mark.parametrize(
    ("endpoint", "body"), [(e.INSTANCES, b"data: NO_ITEMS\n\n"), (e.NODES, b"")]
)
async def test_no_records_are_a_valid_answer_where_the_service_says_so(
    endpoint: Endpoint[Any], body: bytes
) -> None:
    records, tally = await read(endpoint, body)
    assert (records, tally.accepted, tally.rejected) == ([], 0, 0)


async def test_a_report_of_20_000_instances_fits() -> None:
    # A quotation mark outside ASCII takes more memory, but not in all the other texts.
    with_wide_character = INSTANCE | {"deletion_reason": "“"}
    others = [INSTANCE | {"deletion_reason": "x" * 400}] * 19_999
    text = body([with_wide_character, *others], [RECORD] * 80_000)
    assert memory_of(text) < e.AUDIT_REPORT.max_bytes
    _, tally = await read(e.AUDIT_REPORT, text)
    assert tally.accepted == 20_000 + 80_000


WITH_A_NUMBER = {
    e.IMAGES: b'data: {"image_id": "a"}\n\ndata: {"image_id": "b", "status": %b}\n\n',
    e.SERVERS: b"""{"servers": [
        {"server_id": "a"}, {"server_id": "b", "gpus": [{"uuid": "g", "verified_at": %b}]}
    ]}""",
    e.SCORES: b'{"final_scores": {"a": 1, "b": %b}}',
}
"""Answers with two records, the last of which has a number in one of its fields."""


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"7" * 5000], ids=range(3))
@pytest.mark.parametrize("endpoint", WITH_A_NUMBER, ids=lambda endpoint: endpoint.name)
async def test_a_number_that_is_too_large_costs_one_record(
    endpoint: Endpoint[Any], number: bytes
) -> None:
    # The check of the fields reads the answer, too.
    _, tally = await read(endpoint, WITH_A_NUMBER[endpoint] % number, check=FieldCheck(0))
    assert (tally.accepted, tally.rejected) == (1, 1)


OTHER_SHAPES: dict[Endpoint[Any], list[object]] = {
    e.STATS: [{}, [], {"past_hour": {"instance_stats": {}}}],
    e.SCORES: [{}, {"final_scores": []}],
    e.SERVERS: [[], {"servers": {}}, {"servers": [{"name": "no id"}]}],
    e.METAGRAPH: [{}],
    e.MAINTENANCE: [{"detail": "x"}, {"active_window": 5}],
    e.AUDIT_REPORT: [
        {"instance_audit": [], "compute_history": [RECORD]},
        {"instance_audit": [INSTANCE]},
        {"instance_audit": [{"instance_id": 5}, {}], "compute_history": []},
    ],
    e.CHUTE_METRICS: [
        *(b"<html>\n<body>\n", b"data: [\n\n", b"data: " + b"[" * 100_000 + b"\n", b"\xff\xfe\n"),
        b'data: {"chute_id":"a"}\n\n<html>\n502\n',
    ],
}


@pytest.mark.parametrize("endpoint", OTHER_SHAPES, ids=lambda endpoint: endpoint.name)
async def test_another_shape_fails_as_a_whole(endpoint: Endpoint[Any]) -> None:
    for value in OTHER_SHAPES[endpoint]:
        with pytest.raises(UndecodableError):
            await read(endpoint, value, size=4096)
