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
from collections import Counter
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    import uvicorn

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
_DISCARD = struct.pack("ii", 1, 0)
"""Lingering for 0 seconds: the kernel forgets bytes that the client has not read."""
_RETRY_SECONDS = 1.0
"""Seconds until a connection is accepted again after the kernel refused."""


class _Connection(H11Protocol, asyncio.BufferedProtocol):
    """Serves the requests of a connection.

    Attributes:
        address: Address of the client, without its port.
        read_at: Monotonic time at which it was accepted, or its client sent something.
        task: Lasts as long as the connection. To cancel it closes the connection.
    """

    task: asyncio.Task[None]

    def __init__(self, config: uvicorn.Config, state: ServerState, address: str) -> None:
        super().__init__(config, state, {})
        self.address = address
        self.read_at = time.monotonic()
        self.has_ended = asyncio.Event()
        self._buffer = memoryview(bytearray(_READ_BYTES))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # likewise uvicorn
        transport.set_write_buffer_limits(high=_WRITE_BYTES)
        super().connection_made(transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        # asyncio reads no more than its size at once.
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.read_at = time.monotonic()
        self.data_received(bytes(self._buffer[:nbytes]))

    def connection_lost(self, _exc: Exception | None) -> None:
        # With an error, uvicorn would keep the connection until the end of the keep-alive timeout.
        super().connection_lost(None)
        self.has_ended.set()


class Connections:
    """The open connections of a server.

    Above a limit, each new connection closes another: of the client with the most connections,
    the one that has sent nothing for the longest time. So a client with many connections closes its
    own.
    """

    def __init__(self, config: uvicorn.Config, limit: int) -> None:
        self._config = config
        self._limit = limit
        self._state = ServerState()
        self._open: set[_Connection] = set()

    async def accept(
        self, listening: socket.socket, context: Callable[[], ssl.SSLContext | None]
    ) -> None:
        """Accept and serve connections for ever. Each one has the context of its time."""
        loop = asyncio.get_running_loop()
        # asyncio accepts only at sockets that never block.
        listening.settimeout(0)
        waiting: list[tuple[socket.socket, Any]] = []
        try:
            while True:
                try:
                    if not waiting:
                        waiting.append(await loop.sock_accept(listening))
                    # Accept all others that have come, up to a limit.
                    with contextlib.suppress(BlockingIOError):
                        while len(waiting) < _MAX_WAITING:
                            waiting.append(listening.accept())
                    self._begin(waiting, context())
                except Exception:  # noqa: BLE001 - whatever it was, the next one is served
                    _log.exception("cannot accept connections")
                    await asyncio.sleep(_RETRY_SECONDS)
                # One connection begins in each turn, so that turns stay short for the others.
                await asyncio.sleep(0)
        finally:
            for accepted, _ in waiting:
                accepted.close()

    def _begin(
        self, waiting: list[tuple[socket.socket, Any]], context: ssl.SSLContext | None
    ) -> None:
        """Serve the waiting connection whose client has the fewest connections.

        ``waiting`` has sockets, each with the address of its client, which begins with the host.
        """
        number_by_client = Counter(connection.address for connection in self._open)
        accepted, address = min(waiting, key=lambda one: number_by_client[one[1][0]])
        waiting.remove((accepted, address))
        if len(self._open) >= self._limit:
            _log.warning("too many open connections: those that are needed least are closed")
            least_needed = max(
                self._open, key=lambda one: (number_by_client[one.address], -one.read_at)
            )
            self._open.discard(least_needed)
            least_needed.task.cancel()
        connection = _Connection(self._config, self._state, str(address[0]))
        self._open.add(connection)
        connection.task = asyncio.create_task(self._serve(connection, accepted, context))

    async def _serve(
        self, connection: _Connection, accepted: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection, accepted, ssl=context
            )
            await connection.has_ended.wait()
        except (OSError, asyncio.CancelledError):
            # The handshake failed, or the connection had to make room. One that cannot take the
            # option is closed all the same.
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DISCARD)
            if connection.transport is not None:
                connection.transport.abort()
        finally:
            self._open.discard(connection)

    async def end(self, grace: float) -> None:
        """Close all connections. Those with an unfinished request have so many seconds for it."""
        tasks = [connection.task for connection in self._open]
        for connection in self._open:
            if connection in self._state.connections:
                connection.shutdown()
            else:
                # Its handshake has not ended.
                connection.task.cancel()
        # A request may last longer than its connection.
        if unfinished := [*tasks, *self._state.tasks]:
            await asyncio.wait(unfinished, timeout=grace)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
