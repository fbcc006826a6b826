from __future__ import annotations

import asyncio
import contextlib
import time

import httpx
import pytest
from starlette.responses import PlainTextResponse, Response

from chutes_exporter.config import Address
from chutes_exporter.web.server import bound_address, open_socket, serving
from tests.exporters import served
from tests.support import PATIENCE, get, patient_client

APP = PlainTextResponse("hello")


async def test_without_a_host_every_address_answers() -> None:
    opened = open_socket(Address("", 0))
    async with serving(APP, [opened]):
        address = bound_address(opened)
        assert str(address) == f":{address.port}"
        for host in ("127.0.0.1", "[::1]"):
            assert (await get(f"http://{host}:{address.port}/")).text == "hello"


async def said(url: httpx.URL, request: bytes) -> bytes:
    """Send bytes, and return all that comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request)
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.transport.abort()
    return answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 17_000,
        b"GET /" + b"a" * 17_000,
        # The beginning of a TLS handshake.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_oversized_or_invalid_requests_are_refused_and_the_next_one_is_answered(
    request_bytes: bytes,
) -> None:
    async with served(APP) as url:
        answer = await said(httpx.URL(url), request_bytes)
        # Either nothing, or "HTTP/1.1 400 ...".
        assert answer == b"" or answer.split()[1] == b"400"
        assert (await get(url)).text == "hello"


async def test_answers_on_a_kept_connection_are_sent_without_delay() -> None:
    seconds = []
    async with served(APP) as url, patient_client() as client:
        for _ in range(8):
            started = time.monotonic()
            assert (await client.get(url)).text == "hello"
            seconds.append(time.monotonic() - started)
    # Otherwise, each end of an answer waits until the client acknowledges its beginning: 40 ms.
    assert min(seconds[1:]) < 0.035


async def test_an_idle_connection_does_not_delay_the_end() -> None:
    opened = open_socket(Address("127.0.0.1", 0))
    async with serving(APP, [opened], grace=PATIENCE):
        reader, writer = await asyncio.open_connection(*opened.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.readuntil(b"hello")
        started = time.monotonic()
    assert time.monotonic() - started < PATIENCE / 2
    writer.transport.abort()


async def test_a_client_that_does_not_read_is_cut_at_the_end_without_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened = open_socket(Address("127.0.0.1", 0))
    page = Response(b"x" * 10_000_000)
    async with serving(page, [opened], grace=1):
        reader, writer = await asyncio.open_connection(*opened.getsockname(), limit=1)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.read(1) == b"H"
        started = time.monotonic()
    assert 0.9 < time.monotonic() - started < 2
    assert [line for line in caplog.records if line.levelname == "ERROR"] == []
    writer.transport.abort()
