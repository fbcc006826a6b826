from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import socket
import struct
import time
from typing import TYPE_CHECKING

import h11
import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from chutes_exporter.config import Address
from chutes_exporter.web.connection import PORTION_BYTES, Connection, Limits
from chutes_exporter.web.server import bound_address, open_socket, serving
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"x" * 30_000_000


class Answers:
    """An application that says how often it was asked.

    Args:
        hold: Holds each answer back until it is set.
    """

    def __init__(self, hold: asyncio.Event | None = None) -> None:
        self.scopes: list[Scope] = []
        self.cancelled = 0
        self._hold = hold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        try:
            if self._hold is not None:
                await self._hold.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        await PlainTextResponse(f"answer {len(self.scopes)}")(scope, receive, send)


async def send_large(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Send an answer in portions, as pages are sent."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(LARGE))]})
    for start in range(0, len(LARGE), PORTION_BYTES):
        more = start + PORTION_BYTES < len(LARGE)
        await send({"type": "http.response.body", "body": LARGE[start : start + PORTION_BYTES], "more_body": more})


@contextlib.asynccontextmanager
async def serve(app: ASGIApp, **limits: float) -> AsyncIterator[Address]:
    with open_socket(Address("127.0.0.1", 0)) as opened:
        async with serving(app, [opened], grace=1, limits=Limits(**limits)):  # type: ignore[arg-type]
            yield bound_address(opened)


@contextlib.asynccontextmanager
async def client_of(address: Address) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answer_to(address: Address, request: bytes) -> bytes:
    """Send bytes, and return everything that comes back until the server closes the connection."""
    async with client_of(address) as (reader, writer):
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 20)


async def is_cut(reader: asyncio.StreamReader) -> bool:
    """Read an answer to its end, and tell whether the server closes the connection before that."""
    received = 0
    with contextlib.suppress(ConnectionError):
        while received < len(LARGE) and (chunk := await asyncio.wait_for(reader.read(1_000_000), 20)):
            received += len(chunk)
    return received < len(LARGE)


async def test_one_request_of_a_pipeline_is_answered_and_then_the_connection_is_closed() -> None:
    app = Answers()
    async with serve(app) as address:
        answer = await answer_to(address, GET * 400)
    assert len(app.scopes) == 1
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.endswith(b"answer 1")


async def test_a_request_that_comes_while_another_is_answered_is_not_read() -> None:
    hold = asyncio.Event()
    app = Answers(hold)
    async with serve(app) as address, client_of(address) as (reader, writer):
        writer.write(GET)
        await until(lambda: app.scopes)
        writer.write(GET)
        await until(lambda: not connections()[0].cycle.keep_alive)
        hold.set()
        assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"answer 1")
    assert len(app.scopes) == 1


async def test_a_connection_is_kept_for_requests_one_after_the_other() -> None:
    app = Answers()
    async with serve(app) as address, client_of(address) as (reader, writer):
        for number in range(1, 4):
            writer.write(GET)
            assert (await reader.readuntil(b"answer %d" % number)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_the_connection_is_closed_after_a_request_whose_body_is_still_on_its_way() -> None:
    app = Answers()
    async with serve(app) as address:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        assert (await answer_to(address, head)).endswith(b"answer 1")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nHost: x\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\n",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
async def test_a_line_that_ends_without_cr_is_refused(request_bytes: bytes, size: int) -> None:
    app = Answers()
    async with serve(app) as address, client_of(address) as (reader, writer):
        for start in range(0, len(request_bytes), size):
            writer.write(request_bytes[start : start + size])
            await asyncio.sleep(0.001)
        answer = await asyncio.wait_for(reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"A line of the request ends without CR: end each line with CRLF.")
    assert app.scopes == []


async def test_a_body_may_have_any_line_ends() -> None:
    app = Answers()
    async with serve(app) as address:
        request = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\n\na\n"
        assert (await answer_to(address, request)).endswith(b"answer 1")


async def test_a_body_that_is_not_http_is_refused_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    app = Answers()
    async with serve(app) as address:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await answer_to(address, head + b"nonsense\r\n")).startswith(b"HTTP/1.1 400 ")
    assert app.scopes == []
    assert [record.getMessage() for record in caplog.records] == ["Invalid HTTP request received."]


async def test_an_answer_that_nobody_waits_for_is_not_made() -> None:
    app = Answers(asyncio.Event())
    async with serve(app) as address:
        async with client_of(address) as (_, writer):
            writer.write(GET)
            await until(lambda: app.scopes)
            # Closing resets the connection. Otherwise, the client could have ended its half of it only.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: app.cancelled)


async def test_a_client_that_does_not_read_is_cut() -> None:
    async with serve(send_large, client_seconds=0.3) as address, client_of(address) as (reader, writer):
        writer.write(GET)
        await reader.readexactly(1)
        await until(lambda: not connections())
        assert await is_cut(reader)


async def test_a_client_that_reads_steadily_gets_an_answer_that_takes_longer_than_its_deadline() -> None:
    async with serve(send_large, client_seconds=1) as address:
        with socket.create_connection((address.host, address.port)) as client:
            client.sendall(GET)
            started, received = time.monotonic(), 0
            while received < len(LARGE):
                received += len(await asyncio.to_thread(client.recv, 1_000_000))
                await asyncio.sleep(0.04)
    assert time.monotonic() - started > 1


async def test_a_client_that_reads_steadily_and_takes_too_long_for_an_answer_is_cut() -> None:
    async with serve(send_large, client_seconds=20, answer_seconds=0.5) as address:
        with socket.create_connection((address.host, address.port)) as client:
            client.sendall(GET)
            received = 0
            with contextlib.suppress(ConnectionError):
                while chunk := await asyncio.to_thread(client.recv, 500_000):
                    received += len(chunk)
                    await asyncio.sleep(0.1)
    assert received < len(LARGE)


async def test_a_further_slow_reader_replaces_the_one_that_waits_longest() -> None:
    async with serve(send_large, slow_readers=2) as address, contextlib.AsyncExitStack() as stack:
        readers = []
        for slow in (1, 2, 2, 2):
            reader, writer = await stack.enter_async_context(client_of(address))
            readers.append(reader)
            writer.write(GET)
            await reader.readexactly(1)
            await until(lambda slow=slow: sum(one.flow.write_paused for one in connections()) == slow)  # type: ignore[misc]
        assert [await is_cut(reader) for reader in readers] == [True, True, False, False]


def connections() -> list[Connection]:
    """Return the connections of the servers in this process."""
    return [one for one in gc.get_objects() if isinstance(one, Connection) and one in one.connections]


async def test_an_idle_connection_is_kept_longer_than_a_client_may_take_for_a_request() -> None:
    async with serve(Answers(), client_seconds=0.3, idle_seconds=4) as address:
        async with client_of(address) as (reader, writer):
            for number in (1, 2):
                writer.write(GET)
                await reader.readuntil(b"answer %d" % number)
                await asyncio.sleep(1)
            # The beginning of a request ends the pause.
            writer.write(GET[:10])
            assert await asyncio.wait_for(reader.read(), 3) == b""
        async with client_of(address) as (reader, writer):
            writer.write(GET)
            await reader.readuntil(b"answer 3")
            assert await asyncio.wait_for(reader.read(), 20) == b""


async def test_a_slow_reader_holds_little_more_than_a_portion() -> None:
    async with serve(send_large) as address, client_of(address) as (reader, writer):
        writer.write(GET)
        received, sizes = len(await reader.read(100_000)), []
        (connection,) = connections()
        while received < len(LARGE):
            sizes.append(connection.transport.get_write_buffer_size())
            received += len(await reader.read(100_000))
    assert PORTION_BYTES / 2 < max(sizes) <= PORTION_BYTES + 64 * 1024


@pytest.mark.parametrize("request_bytes", [GET, GET * 2], ids=["one request", "two, of which one is answered"])
async def test_the_answer_to_a_client_that_sends_nothing_more_is_the_last(request_bytes: bytes) -> None:
    hold = asyncio.Event()
    app = Answers(hold)
    async with serve(app) as address, client_of(address) as (reader, writer):
        writer.write(request_bytes)
        await until(lambda: app.scopes)
        writer.write_eof()
        await asyncio.sleep(0.1)
        hold.set()
        answer = await asyncio.wait_for(reader.read(), 2)
    assert answer.lower().count(b"\r\nconnection: close\r\n") == 1
    assert answer.endswith(b"answer 1")


async def test_the_answers_on_a_kept_connection_are_sent_without_delay() -> None:
    app = Answers()
    async with serve(app) as address, httpx.AsyncClient() as client:
        for number in range(1, 21):
            assert (await client.get(f"http://{address}/")).text == f"answer {number}"
            (connection,) = connections()
            # Without this, the end of an answer waits until the client acknowledges its beginning: 40 ms.
            opened = connection.transport.get_extra_info("socket")
            assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert len({scope["client"] for scope in app.scopes}) == 1


async def test_a_request_carries_the_time_at_which_the_kernel_received_it() -> None:
    app = Answers()
    async with serve(app) as address:
        with socket.create_connection((address.host, address.port)) as client:
            client.sendall(GET)
            sent = time.monotonic()
            # The process gets no time, and the request stays in the kernel.
            time.sleep(0.5)  # noqa: ASYNC251
            await until(lambda: app.scopes)
    assert app.scopes[0]["state"]["arrived"] - sent < 0.25


async def test_uvicorn_has_everything_that_the_connection_relies_on() -> None:
    protocol = H11Protocol(config=uvicorn.Config(Answers(), log_config=None), server_state=ServerState(), app_state={})
    assert {
        "app",
        "app_state",
        "conn",
        "connections",
        "cycle",
        "flow",
        "headers",
        "loop",
        "scheme",
        "transport",
    } <= set(vars(protocol))
    assert isinstance(protocol.conn, h11.Connection)
    assert {"connections", "tasks", "default_headers"} <= set(vars(ServerState()))
    overridden = {
        name for name, value in vars(Connection).items() if inspect.isfunction(value) and hasattr(H11Protocol, name)
    }
    assert overridden == {
        *("__init__", "connection_made", "connection_lost", "eof_received"),
        *("on_response_complete", "pause_writing", "resume_writing", "shutdown", "_should_upgrade"),
    }
    assert {"data_received", "handle_events", "send_400_response", "shutdown"} <= set(vars(H11Protocol))
    cycle = inspect.getsource(RequestResponseCycle)
    assert all(f"self.{name} = " in cycle for name in ("disconnected", "keep_alive", "response_complete"))
    assert "self.write_paused = " in inspect.getsource(FlowControl)


async def test_the_answer_to_every_request_ends_in_the_hook_that_the_deadlines_rely_on() -> None:
    async with serve(Answers()) as address, client_of(address) as (reader, writer):
        await until(connections)
        (connection,) = connections()
        assert (connection.is_working(), connection.waits_for_client()) == (False, True)
        made = connection.since
        writer.write(GET)
        await reader.readuntil(b"answer 1")
        assert connection.since > made
        assert (connection.is_working(), connection.cycle.response_complete) == (False, True)
