"""Open connections: how many there are, and which one makes room for a new one.

They are accepted here and not by uvicorn, so that the limit holds before a TLS handshake, for which
asyncio keeps 256 KB.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import ssl

    import uvicorn
    from _typeshed import WriteableBuffer
    from starlette.types import ASGIApp, Receive, Scope, Send

_log = logging.getLogger("connections")

_READ_BYTES = 1024
"""Bytes that one turn of the event loop reads of a connection.

Bytes that take long to parse, such as a body in chunks of one byte, then delay others by
milliseconds.
"""
_WRITE_BYTES = 16 * 1024
"""Bytes that wait for a client. With TLS, asyncio would keep 512 KB."""
_MAX_WAITING = 256
"""Maximum accepted connections that wait until they are served. More wait in the kernel."""
_BEGINNING_SECONDS = 0.1
"""Seconds in which the first request of a connection arrives. Until then, it is not idle."""
_DISCARD = struct.pack("ii", 1, 0)
"""Lingering for 0 seconds: the kernel forgets bytes that the client has not read."""
_RETRY_SECONDS = 1.0
"""Seconds until a connection is accepted again after the kernel refused."""
_TLS_TIMEOUTS: dict[str, Any] = {"ssl_handshake_timeout": 10, "ssl_shutdown_timeout": 5}
"""Seconds that asyncio gives a client. It refuses these arguments without TLS."""


class _Socket(socket.socket):
    """An accepted connection, of which asyncio receives few bytes at a time."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        return super().recv(min(size, _READ_BYTES), flags)

    def recv_into(self, buffer: WriteableBuffer, size: int = 0, flags: int = 0) -> int:
        # A size of 0 means the size of the buffer.
        wanted = size or len(memoryview(buffer))
        return super().recv_into(buffer, min(wanted, _READ_BYTES), flags)


class _Connection(H11Protocol):
    """Serves the requests of a connection.

    Attributes:
        address: Address of the client, without its port.
        is_busy: Whether a request waits for the end of its answer.
        since: Monotonic time at which the connection was accepted, or its last request began or
            ended.
        task: Lasts as long as the connection. To cancel it closes the connection.
    """

    task: asyncio.Task[None]

    def __init__(self, server: uvicorn.Server, address: str) -> None:
        # Each request finds its connection in its state.
        super().__init__(server.config, server.server_state, {"connection": self})
        self.address = address
        self.is_busy = False
        self.since = time.monotonic()
        self.has_ended = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # likewise uvicorn
        transport.set_write_buffer_limits(high=_WRITE_BYTES)
        super().connection_made(transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        # With an error, uvicorn would keep the connection until the end of the keep-alive timeout.
        super().connection_lost(None)
        self.has_ended.set()

    def set_busy(self, *, is_busy: bool) -> None:
        self.is_busy = is_busy
        self.since = time.monotonic()


async def tracked(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass on a request, and note that its connection is busy."""
    connection = scope["state"]["connection"]
    connection.set_busy(is_busy=True)
    try:
        await app(scope, receive, send)
    finally:
        connection.set_busy(is_busy=False)


class Connections:
    """The open connections of a server.

    Above a limit, each new connection closes another. Those of the client with the most connections
    go first, of these the idle ones, and of these the one that is longest in its state. So a client
    with many connections closes its own.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[_Connection] = set()

    async def accept(
        self, listening: socket.socket, server: uvicorn.Server, context: ssl.SSLContext | None
    ) -> None:
        """Accept connections for ever, and let a server serve their requests."""
        loop = asyncio.get_running_loop()
        # asyncio accepts only at sockets that never block.
        listening.settimeout(0)
        waiting: list[tuple[socket.socket, Any]] = []
        try:
            while True:
                try:
                    if not waiting:
                        waiting.append(await loop.sock_accept(listening))
                    while len(waiting) < _MAX_WAITING:
                        waiting.append(listening.accept())
                except BlockingIOError:
                    # No other connection waits in the kernel.
                    pass
                except OSError as error:
                    _log.warning("cannot accept connections: %s", error.strerror)
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                # The client with the fewest connections is first, the others wait.
                open_by_client = Counter(connection.address for connection in self._open)
                accepted, address = min(waiting, key=lambda one: open_by_client[one[1][0]])
                waiting.remove((accepted, address))
                if len(self._open) >= self._limit:
                    self._make_room()
                connection = _Connection(server, str(address[0]))
                self._open.add(connection)
                connection.task = loop.create_task(
                    self._serve(connection, _Socket(fileno=accepted.detach()), context)
                )
                # One connection begins in each turn, so that turns stay short for the others.
                await asyncio.sleep(0)
        finally:
            for accepted, _ in waiting:
                accepted.close()

    def _make_room(self) -> None:
        _log.warning("too many open connections: those that are needed least are closed")
        least_needed = self._least_needed()
        self._open.discard(least_needed)
        least_needed.task.cancel()

    async def _serve(
        self, connection: _Connection, accepted: _Socket, context: ssl.SSLContext | None
    ) -> None:
        timeouts = {} if context is None else _TLS_TIMEOUTS
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=context, **timeouts
            )
            await connection.has_ended.wait()
        except (OSError, asyncio.CancelledError) as error:
            # The handshake failed, or the connection had to make room.
            free_frames(error)
            # A connection that cannot take the option is closed all the same.
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD)
            if connection.transport is not None:
                connection.transport.abort()
        finally:
            self._open.discard(connection)

    def _least_needed(self) -> _Connection:
        number_by_client = Counter(connection.address for connection in self._open)
        now = time.monotonic()

        def rank(connection: _Connection) -> tuple[int, bool, float]:
            """Return how little a connection is needed. The highest rank is closed first."""
            seconds = now - connection.since
            is_idle = not connection.is_busy and seconds > _BEGINNING_SECONDS
            return number_by_client[connection.address], is_idle, seconds

        return max(self._open, key=rank)

    async def end(self) -> None:
        """Close all connections, and drop unsent bytes."""
        ending = [connection.task for connection in self._open]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


def free_frames(error: BaseException) -> None:
    """Let what the frames of an error hold leave memory now.

    The error and its frames refer to each other. Without this, a page, or the 256 KB of a TLS
    handshake, would stay until the garbage collector looks at its oldest objects.
    """
    traceback.clear_frames(error.__traceback__)
    if error.__cause__ is not None:
        traceback.clear_frames(error.__cause__.__traceback__)
