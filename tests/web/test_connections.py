from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
from typing import TYPE_CHECKING, Any

import httpx
from starlette.responses import PlainTextResponse

from chutes_exporter.web import connections, server
from tests.exporters import served
from tests.support import PATIENCE, get, until

if TYPE_CHECKING:
    import socket

    import pytest


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HELLO = PlainTextResponse("hello")
OTHER = "127.0.0.2"
"""The address of another client than the usual one."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(url: str, sent: bytes = b"", client: str = "127.0.0.1") -> Stream:
    """Open a connection from an address of a client, and send something."""
    address = httpx.URL(url)
    stream = await asyncio.open_connection(address.host, address.port, local_addr=(client, 0))
    stream[1].write(sent)
    return stream


async def answer(stream: Stream) -> bytes:
    """Return the next answer of a connection, empty if it is closed."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        # With Python 3.11, asyncio.wait_for can lose a cancellation.
        async with asyncio.timeout(PATIENCE):
            return await stream[0].readuntil(b"hello")
    return b""


async def is_open(stream: Stream) -> bool:
    """Return whether a connection answers a request."""
    with contextlib.suppress(ConnectionError):
        stream[1].write(REQUEST)
        return await answer(stream) != b""
    return False


def close(*streams: Stream) -> None:
    for _, writer in streams:
        writer.transport.abort()


async def test_the_client_with_the_most_connections_loses_a_silent_one_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As many as the scraper and the others have.
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 4)
    async with served(HELLO) as url:
        scraper = await connect(url, REQUEST, OTHER)
        assert await answer(scraper)
        others = []
        for _ in range(3):
            others.append(await connect(url, REQUEST))
            assert await answer(others[-1])
            # No two of them have the same age.
            await asyncio.sleep(0.01)
        assert await is_open(others[0])
        new = await connect(url, REQUEST, "127.0.0.3")
        assert await answer(new)
        kept = [await is_open(stream) for stream in (scraper, *others, new)]
        close(scraper, *others, new)
    assert kept == [True, True, False, True, True]


def connections_in_memory() -> int:
    gc.collect()
    kind = connections._Connection  # noqa: SLF001 - seen nowhere else
    return sum(isinstance(one, kind) for one in gc.get_objects())


async def test_clients_that_reset_their_connections_are_forgotten() -> None:
    async with served(HELLO) as url:
        for _ in range(5):
            stream = await connect(url, REQUEST)
            assert await answer(stream)
            close(stream)
        # The newest may stay until the next one.
        await until(lambda: connections_in_memory() <= 1)


async def test_without_a_free_descriptor_the_server_goes_on_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, [errno.EMFILE, errno.ENFILE]

    async def sock_accept(listening: socket.socket) -> Any:
        if failures:
            raise OSError(failures.pop(), "Too many open files")
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", sock_accept)
    monkeypatch.setattr(connections, "_RETRY_SECONDS", 0.01)
    async with served(HELLO) as url:
        assert (await get(url)).text == "hello"
    assert not failures
