from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chutes_exporter.api import decoding
from chutes_exporter.api.decoding import Shape, StreamShape, Tally
from chutes_exporter.api.endpoints import (
    ENDPOINTS,
    INSTANCES,
    JOBS,
    METAGRAPH,
    METRICS,
    NODES,
    ON_REQUEST,
    SCORES,
    SERVERS,
    STATS,
)
from chutes_exporter.api.errors import ApiError, CutOffError, TooLargeError, UndecodableError

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
    records, tally = await read_stream(METRICS, body, size)
    assert [(r.chute_id, r.utilization) for r in records] == [("ä", 0.5), ("b", None)]
    assert (tally.accepted, tally.rejected) == (2, 0)


async def test_compressed_bodies_are_inflated_in_small_pieces() -> None:
    body = gzip.compress(b"\n" * 30_000_000)
    assert len(body) < 64 * 1024
    pieces = [len(piece) async for piece in decoding.inflated(chunks(body, len(body)), " GZIP ")]
    assert sum(pieces) == 30_000_000
    assert max(pieces) <= 64 * 1024


async def test_line_ends_and_comments_of_event_streams_are_understood() -> None:
    records, _ = await read_stream(METRICS, b': hello\r\ndata:{"chute_id":"a"}\r\n\r\ndata:   {"chute_id":"b"}')
    assert [r.chute_id for r in records] == ["a", "b"]


async def test_a_record_that_cannot_be_read_is_counted_and_the_rest_kept() -> None:
    good = b'data: {"chute_id":"a"}\n\n' * 3
    body = b'data: {"chute_id":5}\n\n<html>\n\ndata: {"chute_id":"b","utilization":NaN}\n\n'
    records, tally = await read_stream(METRICS, body + good)
    assert [r.chute_id for r in records] == ["a"] * 3
    assert tally.rejected == 3
    assert "chute_id" in tally.first_error


@pytest.mark.parametrize(
    "body", [b"<html>\n<body>\n", b"data: [\n\n", b"data: " + b"[" * 100_000 + b"\n", b"\xff\xfe\n"]
)
async def test_a_stream_of_nothing_readable_fails(body: bytes) -> None:
    with pytest.raises(UndecodableError):
        await read_stream(METRICS, body, 4096)


async def test_a_stream_of_more_garbage_than_records_fails() -> None:
    with pytest.raises(UndecodableError, match="2 of 3 records"):
        await read_stream(METRICS, b'data: {"chute_id":"a"}\n\n<html>\n502\n')


async def test_a_stream_of_endless_garbage_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_REJECTED", 3)
    with pytest.raises(UndecodableError, match="more than 3"):
        await read_stream(METRICS, b"x\n" * 100)


async def test_an_empty_stream_is_a_failure_where_there_is_always_something() -> None:
    with pytest.raises(CutOffError):
        await read_stream(METRICS, b"\n")


async def test_no_instances_must_be_said_explicitly() -> None:
    with pytest.raises(CutOffError):
        await read_stream(INSTANCES, b"")
    assert await read_stream(INSTANCES, b"data: NO_ITEMS\n\n") == ([], Tally())


async def test_a_miner_without_gpus_has_an_empty_stream() -> None:
    assert await read_stream(NODES, b"") == ([], Tally())


async def test_a_stream_that_stops_inside_a_record_is_cut_off_not_misread() -> None:
    with pytest.raises(CutOffError, match="inside a record"):
        await read_stream(METRICS, b'data: {"chute_id":"a"}\n\ndata: {"chute_id":"b","utiliz')


async def test_limits_hold_for_lines_and_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLargeError, match="a record is longer"):
        await read_stream(METRICS, b"data: " + b"x" * decoding.MAX_LINE_BYTES, 65_536)
    monkeypatch.setattr(decoding, "MAX_STREAM_BYTES", 50)
    with pytest.raises(TooLargeError, match="50 bytes"):
        await read_stream(METRICS, b" " * 100)
    monkeypatch.setattr(decoding, "MAX_STREAM_LINES", 10)
    with pytest.raises(TooLargeError, match="10 lines"):
        await read_stream(METRICS, b"\n" * 20)


def test_one_bad_gpu_costs_neither_its_server_nor_the_others() -> None:
    servers, tally = read(
        SERVERS,
        {
            "servers": [
                {"server_id": "s1", "name": "one", "gpus": [{"uuid": 1}, {"uuid": "g2"}]},
                {"server_id": "s2", "gpus": [{"uuid": "g3"}]},
                {"server_id": "s3"},
                {"server_id": "s5", "gpus": None},
                {"server_id": "s4", "gpus": "none"},
                "rubbish",
                {"name": "no id"},
            ]
        },
    )
    assert [(s.server_id, s.name, s.gpus and [g.uuid for g in s.gpus]) for s in servers] == [
        ("s1", "one", ["g2"]),
        ("s2", None, ["g3"]),
        ("s3", None, None),
        ("s5", None, None),
    ]
    assert (tally.accepted, tally.rejected) == (6, 4)


def test_a_stats_window_without_its_lists_is_unknown_not_empty() -> None:
    stats, _ = read(STATS, {"past_hour": {"instance_stats": []}, "past_day": {"instance_stats": None}, "all": None})
    assert stats.hour == []
    assert stats.day is None
    assert stats.week is None


def test_scores_may_be_null_and_bad_ones_are_counted() -> None:
    scores, tally = read(
        SCORES, {"raw_values": {"a": None, "b": {"total_instances": "x"}}, "final_scores": {"a": None, "b": 0.5}}
    )
    assert scores.shares == {"a": None, "b": 0.5}
    assert scores.raw == {"a": None}
    assert tally.rejected == 1
    assert read(SCORES, {"raw_values": None, "final_scores": {"a": 1}})[0].shares == {"a": 1}


@pytest.mark.parametrize(
    ("endpoint", "value"),
    [
        (STATS, {}),
        (STATS, []),
        (STATS, {"past_hour": {"instance_stats": {}}}),
        (SCORES, {"final_scores": []}),
        (SCORES, {}),
        (SERVERS, []),
        (SERVERS, {"servers": {}}),
        (SERVERS, {"servers": [{"name": "no id"}]}),
        (METAGRAPH, {}),
    ],
)
def test_another_shape_fails_as_a_whole(endpoint: Endpoint[Any], value: object) -> None:
    with pytest.raises(UndecodableError):
        read(endpoint, value)


def test_no_error_quotes_what_could_be_an_echoed_signature() -> None:
    rows = [{"hotkey": "a"}, {"hotkey": "b", "synced_at": "ab" * 64}]
    _, tally = read(METAGRAPH, rows)
    assert tally.rejected == 1
    assert "abab" not in tally.first_error


async def test_no_error_shows_secret_fields_of_instances_or_jobs() -> None:
    secret = {
        "extra": {"key": "marker"},
        "cacert": "marker",
        "job_args": {"prompt": "marker"},
        "symmetric_key": "marker",
    }
    good = {"instance_id": "a", "job_id": "a"} | secret
    for wrong in (
        {"instance_id": 7, "job_id": 7},
        {"created_at": "marker"},
        {"created_at": {"marker": 1}, "compute_multiplier": "marker"},
        {"extra": [[["marker"]]], "cacert": 5, "job_args": None, "active": "marker", "miner_history": "marker"},
    ):
        lines = b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in (good, good | wrong))
        for endpoint in (INSTANCES, JOBS):
            records, tally = await read_stream(endpoint, lines)
            assert tally.rejected == 1
            assert "marker" not in tally.first_error + repr(records)
            with pytest.raises(CutOffError) as caught:
                await read_stream(endpoint, lines[: lines.rindex(b"marker") + 3])
            assert "mar" not in str(caught.value)


def test_an_empty_metagraph_is_a_failure_not_a_subnet_without_miners() -> None:
    with pytest.raises(CutOffError):
        read(METAGRAPH, [])


def test_an_empty_body_is_a_failure_not_an_empty_answer() -> None:
    assert isinstance(STATS.shape, Shape)
    with pytest.raises(CutOffError):
        STATS.shape.decode(b" \n", Tally())


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(body=st.binary(max_size=300) | _json.map(lambda value: json.dumps(value).encode()), size=st.integers(1, 60))
async def test_no_answer_raises_anything_but_the_apis_errors(body: bytes, size: int) -> None:
    for endpoint in (*ENDPOINTS, *ON_REQUEST):
        tally = Tally()
        try:
            if isinstance(endpoint.shape, StreamShape):
                async for _ in endpoint.shape.decode(chunks(body, size), tally):
                    pass
            elif isinstance(endpoint.shape, Shape):
                endpoint.shape.decode(body, tally)
        except ApiError as error:
            assert error.advice  # noqa: PT017 - whatever it is, it says what to do
