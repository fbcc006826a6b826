"""No answer of the upstream, however broken, makes the page invalid or brings the process down."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
import tracemalloc
import typing
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UnsetType
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from chutes_exporter.api import records as r
from chutes_exporter.api.decoding import StreamShape
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.feeds.definitions import ENDPOINTS, INSTANCES, NODES
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from tests.exporters import page_of, patient, served, watching
from tests.hostile_api import ENDLESS, KINDS
from tests.pages import count_openmetrics, parse_page, series
from tests.program import LISTEN, hotkey_file, running
from tests.prometheus.server import promtool_complaints
from tests.support import HOTKEY, PATIENCE, ROOT, Clock, examples, fetch, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from pathlib import Path

    from starlette.requests import Request

    from chutes_exporter.api.decoding import Shape

# Few and often the same, so that they collide.
_IDS = st.sampled_from(["a", "b", HOTKEY, "", "\x00", '"', "\\", "\n", "x" * 300]) | st.text(
    max_size=5
)
_TIMES = st.sampled_from(
    ["2026-11-24T12:00:00", "2026-11-17 13:00:00+00", "0001-01-01T00:00:00", "never"]
)
_NUMBERS = st.floats() | st.integers(-(10**30), 10**30) | st.sampled_from([0, 1, -1, 1e308, 5e-324])
_TOO_LARGE = "a number that is too large"
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    r.UnixTime: _TIMES,
    str: _IDS | st.just(_TOO_LARGE),
    bool: st.booleans() | st.just(_TOO_LARGE),
    int: _NUMBERS | st.just(10**400) | st.just(_TOO_LARGE),
    float: _NUMBERS,
    type(None): st.none(),
}


def _value(kind: Any) -> st.SearchStrategy[Any]:
    """Make values of a field's type, by its annotation."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    arguments = [argument for argument in typing.get_args(kind) if argument is not UnsetType]
    if typing.get_origin(kind) is list:
        return st.lists(_value(arguments[0]), max_size=5)
    if typing.get_origin(kind) is dict:
        return st.dictionaries(_IDS, _value(arguments[1]), max_size=5)
    if arguments:
        # A union of types.
        return st.one_of(*map(_value, arguments))
    return _record(kind)


def _record(kind: type[r.Record]) -> st.SearchStrategy[dict[str, Any]]:
    """Make records of the right shape, some without a field or with one of a wrong shape."""
    hints = typing.get_type_hints(kind)
    names = zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
    fields = {encoded: _value(hints[name]) for name, encoded in names}
    # These cannot be read without most of their fields. Random ones would hardly ever have them.
    is_complete = issubclass(kind, r.Body | r.AuditInstance)
    required, optional = (fields, {}) if is_complete else ({}, fields)
    good = st.fixed_dictionaries(required, optional=optional)

    def with_wrong_field(row: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
        return {**row, name: value}

    bad = st.builds(with_wrong_field, good, st.sampled_from(list(fields)), _anything)
    # One in four is bad.
    return st.one_of(good, good, good, bad)


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def _json(value: Any) -> bytes:
    return json.dumps(value).replace(f'"{_TOO_LARGE}"', "1e999").encode()


def _stream(rows: Iterable[Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % _json(row) for row in rows)


def _bodies_of(shape: Shape[Any] | StreamShape[Any]) -> st.SearchStrategy[bytes]:
    """Return bodies of a shape."""
    if isinstance(shape, StreamShape):
        return st.lists(_record(shape.kind), max_size=5).map(_stream)
    return _value(shape.kind).map(_json)


_SHAPED = {one.name: _bodies_of(one.shape) for one in ENDPOINTS if one.shape is not None}
_HOUR = {"start_time": "2026-11-24T11:00:00", "end_time": "2026-11-24T12:00:00"}
_SHAPED["audit"] = st.just(_json([{"path": f"audit/validator/{HOTKEY}/1.json"} | _HOUR]))
_garbage = st.binary(max_size=60) | _anything.map(_json)


def _body(name: str) -> st.SearchStrategy[bytes]:
    """Make bodies of an endpoint: mostly of its shape, but also cut ones and garbage."""
    shaped = _SHAPED[name]

    def cut_off(body: bytes, kept_share: float) -> bytes:
        return body[: int(len(body) * kept_share)]

    cut = st.builds(cut_off, shaped, st.floats(0, 1))
    return st.one_of(shaped, shaped, shaped, cut, _garbage)


_ANSWERS = st.fixed_dictionaries({name: _body(name) for name in _SHAPED})


async def pages_of(url: str) -> tuple[bytes, str]:
    """Return the page of all collectors but the chain's, in both formats.

    For the second one, two of the feeds are requested again.
    """
    on = {collector.name: "chain" not in collector.needs for collector in COLLECTORS}
    settings = watching(url, collectors=on, miners="all")
    async with Exporter(settings, clock=Clock()) as exporter:
        text = await exporter.metrics(Format.TEXT, timeout=PATIENCE)
        for feed in (INSTANCES, NODES):
            exporter.feeds.expire(feed.of(HOTKEY))
        return text, (await exporter.metrics(Format.OPENMETRICS, timeout=PATIENCE)).decode()


@given(answers=_ANSWERS)
@settings(
    max_examples=examples(10),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
async def test_any_answer_of_the_api_makes_a_valid_page(answers: dict[str, bytes]) -> None:
    routes = []
    for endpoint in ENDPOINTS:
        body = answers.get(endpoint.name, b"")
        routes.append(Route(endpoint.path, lambda _, body=body: Response(body)))
    async with served(Starlette(routes=routes)) as url:
        with structlog.testing.capture_logs() as logs:
            text, openmetrics = await pages_of(url)
    parse_page(text.decode())
    assert promtool_complaints(text) == ""
    assert count_openmetrics(openmetrics) > 0
    # A collector or a feed that came upon something that it did not expect is logged as a bug.
    assert [log for log in logs if log["log_level"] == "error"] == []


async def repeated(chunk: bytes) -> AsyncIterator[bytes]:
    """Yield a chunk without end."""
    while True:
        yield chunk
        await asyncio.sleep(0)  # or nobody notices that the client has left


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("metrics", b'data: {"chute_id": "a", "utilization": 1}\n\n' * 500),
        ("metrics", b"x" * 65_536),
        ("metagraph", b"x" * 65_536),
        ("metagraph", b"1," * 32_768),
    ],
    ids=["lines", "line", "letters", "numbers"],
)
async def test_an_endless_answer_is_refused_at_a_limit(endpoint: str, body: bytes) -> None:
    async def answer(_request: Request) -> Response:
        return StreamingResponse(repeated(body))

    path = next(other.path for other in ENDPOINTS if other.name == endpoint)
    app = Starlette(routes=[Route(path, answer)])
    async with served(app) as url, Exporter(watching(url), clock=Clock()) as exporter:
        gc.collect()
        tracemalloc.start()
        try:
            page = await page_of(exporter)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert page[series("chutes_api_requests_total", endpoint=endpoint, code="too_large")] == 1
    # The budget of all answers, and what the served body takes.
    assert peak < 110e6


@contextmanager
def hostile_api(kind: str) -> Iterator[str]:
    """Run a hostile API in a separate process; yields its address."""
    command = [sys.executable, "-m", "tests.hostile_api", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as api:
        try:
            assert api.stdout is not None
            yield api.stdout.readline().strip()
        finally:
            api.kill()


@pytest.mark.parametrize("kind", ENDLESS)
async def test_an_answer_of_endless_small_parts_ends_and_does_not_delay_scrapes(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chutes_exporter.api.client._TOTAL_TIMEOUT", 2.0)
    names = {"metagraph", "metrics", "scores", "stats"}
    collectors = {collector.name: collector.name in names for collector in COLLECTORS}
    with hostile_api(kind) as url:
        async with Exporter(patient(url, collectors=collectors), clock=Clock()) as exporter:
            thread_before, process_before = time.thread_time(), time.process_time()
            page = await page_of(exporter)
            seconds_of_thread = time.thread_time() - thread_before
            seconds_of_process = time.process_time() - process_before
    for name in names:
        assert page[series("chutes_api_requests_total", endpoint=name, code="timed_out")] == 1
    # Another thread than that of the scrapes did most of the work.
    assert seconds_of_thread < seconds_of_process / 2


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_bad_answers_on_all_endpoints_at_once_fit_into_512_megabytes(
    kind: str, tmp_path: Path
) -> None:
    with hostile_api(kind) as url:
        flags = ("--api.url", url, "--hotkey-file", hotkey_file(tmp_path / "hotkey"))
        with running(*LISTEN, *flags) as service:

            def has_most_feeds() -> bool:
                page = parse_page(fetch(f"{service.url}/metrics"))
                feeds = {dict(labels)["feed"] for name, labels in page if name == "chutes_feed_up"}
                # A miner's default page has 25 feeds. Each is in this metric once it has an
                # answer, or has failed.
                return len(feeds) >= 15

            wait_for(has_most_feeds)
            assert service.peak_megabytes() < 512
