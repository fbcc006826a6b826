"""Open connections: how many there are, and which one makes room for a new one.

They are accepted here and not by uvicorn, so that the limit holds before a TLS handshake, for which
asyncio keeps 256 KB. A connection without a byte needs 10 KB.
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
from weakref import WeakValueDictionary

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Iterator

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
_KERNEL_BYTES = 64 * 1024
"""Bytes that the kernel keeps for a client. It doubles this number, instead of growing to 4 MB."""
_BEGINNING_SECONDS = 0.1
"""Seconds in which the first request of a connection arrives. Until then, it is not idle."""
_DISCARD = struct.pack("ii", 1, 0)
"""Lingering for 0 seconds: the kernel forgets bytes that the client has not read."""
_NO_DESCRIPTORS_SECONDS = 1.0
"""Seconds until a connection is accepted again after the process had no free file descriptor."""
_TLS_TIMEOUTS: dict[str, Any] = {"ssl_handshake_timeout": 10, "ssl_shutdown_timeout": 5}
"""Seconds that asyncio gives a client. It refuses these arguments without TLS."""


class Connection(socket.socket):
    """An accepted connection.

    Attributes:
        client: Address of the client, without its port.
        is_busy: Whether a request waits for the end of its answer.
        since: Monotonic time at which it was accepted or first served, or its last request began or
            ended.
        beginning: Waits for the first byte, and shakes hands. Set when the connection is accepted.
        transport: What the requests use after that. None until then, and after the end.
    """

    def __init__(self, accepted: socket.socket, client: str, connections: Connections) -> None:
        # asyncio sends small answers without waiting for an acknowledgement only if the protocol is
        # IPPROTO_TCP.
        family, kind = accepted.family, accepted.type
        super().__init__(family, kind, socket.IPPROTO_TCP, accepted.detach())
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
        self.client = client
        self.is_busy = False
        self.since = connections.monotonic()
        self.beginning: asyncio.Task[None]
        self.transport: asyncio.Transport | None = None
        self._connections = connections

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Receive few bytes at a time."""
        return super().recv(min(size, _READ_BYTES), flags)

    def recv_into(self, buffer: WriteableBuffer, size: int = 0, flags: int = 0) -> int:
        """Receive few bytes at a time."""
        # A size of 0 means the size of the buffer.
        wanted = size or len(memoryview(buffer))
        return super().recv_into(buffer, min(wanted, _READ_BYTES), flags)

    def abort(self) -> None:
        """Close the connection in the next turns of the event loop, and drop unsent bytes."""
        # A connection that cannot take the option is closed all the same.
        with contextlib.suppress(OSError):
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD)
        if self.transport is not None:
            self.transport.abort()
        else:
            self.beginning.cancel()

    def close_if_cancelled(self, beginning: asyncio.Task[None]) -> None:
        """Close the connection if its first task was cancelled, maybe before it ran at all."""
        if beginning.cancelled():
            self.close()

    def close(self) -> None:
        """Close the connection. asyncio calls this method at its end."""
        self._connections.remove(self)
        self.transport = None
        super().close()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Be busy while the context lasts."""
        self.is_busy = True
        self.since = self._connections.monotonic()
        try:
            yield
        finally:
            self.is_busy = False
            self.since = self._connections.monotonic()


class _Protocol(H11Protocol):
    """Serves the requests of a connection."""

    def __init__(self, server: uvicorn.Server, connection: Connection) -> None:
        # Each request finds its connection in its state.
        state = {"connection": connection}
        super().__init__(server.config, server.server_state, state)
        self._connection = connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # likewise uvicorn
        """Begin to serve requests, after a TLS handshake if there is one."""
        transport.set_write_buffer_limits(high=_WRITE_BYTES)
        self._connection.transport = transport
        super().connection_made(transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget the connection."""
        # With an error, uvicorn would keep the connection until the end of the keep-alive timeout.
        super().connection_lost(None)


async def tracked(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass on a request, and note that its connection is busy."""
    with scope["state"]["connection"].busy():
        await app(scope, receive, send)


class Connections:
    """The open connections of a server.

    Above a limit, each new connection closes another. Those of the client with the most connections
    go first, of these the idle ones, and of these the one that is longest in its state. So a client
    with many connections closes its own.

    Args:
        max_open: Maximum of all connections. Before its first byte, a connection needs 10 KB.
        max_served: Maximum of connections whose requests are served.
    """

    def __init__(
        self, max_open: int, max_served: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.monotonic = monotonic
        self._max_open = max_open
        self._max_served = max_served
        self._open: set[Connection] = set()
        self._served: set[Connection] = set()
        # Where a client's first connection waits, and where those of clients that are served wait.
        self._entrances = {False: asyncio.Lock(), True: asyncio.Lock()}
        self._queues: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def accept(
        self, listening: socket.socket, server: uvicorn.Server, context: ssl.SSLContext | None
    ) -> None:
        """Accept connections for ever, and let a server serve their requests."""
        loop = asyncio.get_running_loop()
        # asyncio accepts only at sockets that never block.
        listening.settimeout(0)
        while True:
            await self._make_room(self._open, self._max_open)
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                _log.warning("cannot accept connections: %s", error.strerror)
                await asyncio.sleep(_NO_DESCRIPTORS_SECONDS)
                continue
            connection = Connection(accepted, str(address[0]), self)
            self._open.add(connection)
            connection.beginning = loop.create_task(self._begin(connection, server, context))
            connection.beginning.add_done_callback(connection.close_if_cancelled)

    async def _begin(
        self, connection: Connection, server: uvicorn.Server, context: ssl.SSLContext | None
    ) -> None:
        """Begin to serve requests as soon as there is a byte, and room."""
        try:
            await _first_byte(connection)
            # One connection of each client waits at the entrance, the others behind it, so that
            # a client with many connections takes no more turns than others.
            queue = self._queues.setdefault(connection.client, asyncio.Lock())
            async with queue:
                is_served = any(one.client == connection.client for one in self._served)
                async with self._entrances[is_served]:
                    await self._make_room(self._served, self._max_served)
                    self._served.add(connection)
                    connection.since = self.monotonic()
        except OSError:
            # The client has left.
            connection.close()
            return
        timeouts = {} if context is None else _TLS_TIMEOUTS
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Protocol(server, connection), connection, ssl=context, **timeouts
            )
        except (OSError, asyncio.CancelledError) as error:
            # The handshake failed, or the connection had to make room. asyncio closes it.
            free_frames(error)

    async def _make_room(self, connections: set[Connection], limit: int) -> None:
        """Wait until there is room for a connection. Close the ones that are needed least."""
        while len(connections) >= limit:
            _log.warning("too many open connections: those that are needed least are closed")
            _least_needed(connections, self.monotonic()).abort()
            # Its end takes a turn of the event loop or two. Until then, it is the least needed one
            # again, and to abort it twice does no harm.
            await asyncio.sleep(0)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is being closed."""
        self._open.discard(connection)
        self._served.discard(connection)

    async def end(self) -> None:
        """Close the connections that do not serve requests yet."""
        # The first task of a connection that serves requests has ended, so cancelling it does
        # nothing. uvicorn closes that connection.
        beginning = [one.beginning for one in self._open]
        for task in beginning:
            task.cancel()
        await asyncio.gather(*beginning, return_exceptions=True)

    def abort(self) -> None:
        """Close all connections, and drop unsent bytes."""
        for connection in [*self._open]:
            connection.abort()


def free_frames(error: BaseException) -> None:
    """Let what the frames of an error hold leave memory now.

    The error and its frames refer to each other. Without this, a page, or the 256 KB of a TLS
    handshake, would stay until the garbage collector looks at its oldest objects.
    """
    traceback.clear_frames(error.__traceback__)
    if error.__cause__ is not None:
        traceback.clear_frames(error.__cause__.__traceback__)


async def _first_byte(connection: Connection) -> None:
    """Wait until a client has sent a byte, or raise ConnectionResetError if it has left."""
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(connection, is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(connection)
    # Only look at the byte: it belongs to the first request.
    if not connection.recv(1, socket.MSG_PEEK):
        raise ConnectionResetError


def _least_needed(connections: Collection[Connection], now: float) -> Connection:
    """Return the connection to close. The client with the most connections makes room."""
    number_by_client = Counter(connection.client for connection in connections)

    def rank(connection: Connection) -> tuple[int, bool, float]:
        """Return how little a connection is needed. The highest rank is closed first.

        The number of its client's connections decides, then whether it is idle, then how long it
        has been busy or idle.
        """
        seconds = now - connection.since
        is_idle = not connection.is_busy and seconds > _BEGINNING_SECONDS
        return number_by_client[connection.client], is_idle, seconds

    return max(connections, key=rank)
