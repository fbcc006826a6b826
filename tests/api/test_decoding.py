from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import UNSET

from chutes_exporter.api import decoding
from chutes_exporter.api import endpoints as e
from chutes_exporter.api.decoding import Shape, StreamShape, Tally
from chutes_exporter.api.errors import CutOffError, TooLargeError, UndecodableError
from tests.api.test_reports import INSTANCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chutes_exporter.api.endpoints import Endpoint


async def chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def read_stream(endpoint: Endpoint[Any], body: bytes, size: int = 7) -> tuple[list[Any], Tally]:
    assert isinstance(endpoint.shape, StreamShape)
    tally = Tally()
    return [record async for record in endpoint.shape.decode(chunks(body, size), tally)], tally


def read(endpoint: Endpoint[Any], value: object) -> tuple[Any, Tally]:
    assert isinstance(endpoint.shape, Shape)
    tally = Tally()
    return endpoint.shape.decode(json.dumps(value).encode(), tally), tally


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_records_come_whole_however_the_stream_is_cut_into_chunks(size: int) -> None:
    body = 'data: {"chute_id":"ä","utilization":0.5}\n\ndata: {"chute_id":"b"}\n\n'.encode()
    records, tally = await read_stream(e.CHUTE_METRICS, body, size)
    assert [(r.chute_id, r.utilization) for r in records] == [("ä", 0.5), ("b", None)]
    assert (tally.accepted, tally.rejected) == (2, 0)


async def test_compressed_bodies_are_inflated_in_small_pieces() -> None:
    body = gzip.compress(b"\n" * 30_000_000)
    assert len(body) < 64 * 1024
    pieces = [len(piece) async for piece in decoding.inflated(chunks(body, len(body)), " GZIP ")]
    assert sum(pieces) == 30_000_000
    assert max(pieces) <= 64 * 1024


async def test_a_record_that_cannot_be_read_is_counted_and_the_rest_kept() -> None:
    good = b'data: {"chute_id":"a"}\n\n' * 3
    body = b'data: {"chute_id":5}\n\n<html>\n\ndata: {"chute_id":"b","utilization":NaN}\n\n'
    # The last one stops in the middle.
    records, tally = await read_stream(e.CHUTE_METRICS, body + good + good + b'data: {"chute_id":"b","utiliz')
    assert [r.chute_id for r in records] == ["a"] * 6
    assert tally.rejected == 4
    assert "chute_id" in tally.first_error


@pytest.mark.parametrize(
    "body",
    [
        b"<html>\n<body>\n",
        b"data: [\n\n",
        b"data: " + b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
        b'data: {"chute_id":"a"}\n\n<html>\n502\n',
    ],
)
async def test_a_stream_of_which_most_cannot_be_read_fails(body: bytes) -> None:
    with pytest.raises(UndecodableError):
        await read_stream(e.CHUTE_METRICS, body, 4096)


async def test_a_stream_of_endless_garbage_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_REJECTED", 3)
    with pytest.raises(UndecodableError, match="more than 3"):
        await read_stream(e.CHUTE_METRICS, b"x\n" * 100)


@pytest.mark.parametrize(("endpoint", "body"), [(e.CHUTE_METRICS, b"\n"), (e.INSTANCES, b"")])
async def test_an_empty_stream_is_a_failure_where_there_is_always_something(
    endpoint: Endpoint[Any], body: bytes
) -> None:
    with pytest.raises(CutOffError, match="empty"):
        await read_stream(endpoint, body)


@pytest.mark.parametrize(("endpoint", "body"), [(e.INSTANCES, b"data: NO_ITEMS\n\n"), (e.NODES, b"")])
async def test_no_records_are_a_valid_answer_where_the_service_says_so(endpoint: Endpoint[Any], body: bytes) -> None:
    assert await read_stream(endpoint, body) == ([], Tally())


async def test_limits_hold_for_lines_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLargeError, match="a record is longer"):
        await read_stream(e.CHUTE_METRICS, b"data: " + b"x" * decoding.MAX_LINE_BYTES, 65_536)
    monkeypatch.setattr(decoding, "MAX_STREAM_BYTES", 50)
    with pytest.raises(TooLargeError, match="50 bytes"):
        await read_stream(e.CHUTE_METRICS, b" " * 100)


def test_what_cannot_be_read_costs_only_itself() -> None:
    servers, tally = read(
        e.SERVERS,
        {
            "servers": [
                {"server_id": "s1", "gpus": [{"uuid": "g"}]},
                {"server_id": "s2"},
                {"server_id": "s3", "gpus": 5},
            ]
        },
    )
    assert [(s.server_id, s.gpus and [g.uuid for g in s.gpus]) for s in servers] == [("s1", ["g"]), ("s2", None)]
    assert (tally.accepted, tally.rejected) == (2, 1)
    chute = {"chute_id": "c", "instance_id": "i"}
    gpus, tally = read(
        e.HELD_GPUS, {"a": {"provisioned": [{"gpu": "h200", "chute": chute}] * 3 + [{"gpu": "h200"}]}, "b": {}}
    )
    assert {(gpu.hotkey, gpu.gpu, gpu.instance_id, gpu.activated_at) for gpu in gpus} == {("a", "h200", "i", UNSET)}
    assert (tally.accepted, tally.rejected) == (3, 2)


def test_records_of_stats_have_their_window() -> None:
    answer: Any = {
        "past_hour": {"instance_stats": []},
        "past_day": None,
        "all": {"instance_stats": [{"miner_hotkey": "m"}]},
    }
    assert [(record.window, record.miner_hotkey) for record in read(e.STATS, answer)[0]] == [("7d", "m")]
    assert read(e.STATS, {"past_hour": {"instance_stats": []}})[0] == []


@pytest.mark.parametrize(
    ("endpoint", "value"),
    [
        (e.STATS, {}),
        (e.STATS, []),
        (e.STATS, {"past_hour": {"instance_stats": {}}}),
        (e.SCORES, {"final_scores": []}),
        (e.SCORES, {}),
        (e.SERVERS, []),
        (e.SERVERS, {"servers": {}}),
        (e.SERVERS, {"servers": [{"name": "no id"}]}),
        (e.METAGRAPH, {}),
        (e.MAINTENANCE, {"detail": "x"}),
        (e.MAINTENANCE, {"active_window": 5}),
        (e.AUDIT_REPORT, []),
        (e.AUDIT_REPORT, {"instance_audit": [], "compute_history": []}),
        (e.AUDIT_REPORT, {"instance_audit": [INSTANCE]}),
        (e.AUDIT_REPORT, {"instance_audit": [{"instance_id": 5}, {}], "compute_history": []}),
    ],
)
def test_another_shape_fails_as_a_whole(endpoint: Endpoint[Any], value: object) -> None:
    with pytest.raises(UndecodableError):
        read(endpoint, value)


@pytest.mark.parametrize(("endpoint", "body"), [(e.METAGRAPH, b"[]"), (e.SUPPORTED_GPUS, b"{}"), (e.STATS, b" \n")])
def test_an_empty_answer_is_a_failure_where_there_is_always_something(endpoint: Endpoint[Any], body: bytes) -> None:
    assert isinstance(endpoint.shape, Shape)
    with pytest.raises(CutOffError):
        endpoint.shape.decode(body, Tally())
