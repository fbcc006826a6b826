"""An HTTP connection: uvicorn's, with strict framing and deadlines for the client."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send
    from uvicorn.config import Config
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle
    from uvicorn.server import ServerState

_log = structlog.get_logger("server")

PORTION_BYTES = 512 * 1024
"""Maximum bytes of an answer that are sent at once. More follow when the client has read nearly all of them."""
_PAUSE_BYTES = 64 * 1024
"""If more bytes than this wait in this process for the client, no further ones are sent."""

# All connections read into the same buffer, because each read is handled before the next one. With asyncio's own
# buffers, pipelined requests could fill 256 KB for each connection.
_READ_BUFFER = memoryview(bytearray(16 * 1024))
_END_OF_HEAD_OR_BARE_LF = re.compile(rb"\r\n\r\n|(?<!\r)\n")
_TCP_INFO_BYTES = 104
_LAST_DATA_RECEIVED = slice(52, 56)
"""Position of ``tcpi_last_data_recv`` in Linux' ``struct tcp_info``: milliseconds since the newest data arrived."""


@dataclass(frozen=True)
class Limits:
    """Limits for the connections of a server.

    Attributes:
        connections: Maximum open connections. A further one replaces the one that waits longest.
        slow_readers: Maximum connections whose answer waits for the client. A further one replaces the one that waits
            longest.
        client_seconds: Seconds that a client has for each step: the TLS handshake, sending a request, and reading each
            512 KB of an answer.
        answer_seconds: Seconds that a client has to read a whole answer. Until then, it keeps a page in memory that may
            have been renewed.
        idle_seconds: Seconds after which a connection without a request is closed. As long as Prometheus' own limit, so
            that scrapers keep their connections from scrape to scrape.
    """

    connections: int = 512
    slow_readers: int = 64
    client_seconds: float = 10.0
    answer_seconds: float = 60.0
    idle_seconds: float = 300.0


class Connection(H11Protocol, asyncio.BufferedProtocol):
    """A connection that is cut when its client is too slow, and that answers one request at a time.

    The ``state`` of each ASGI scope has ``arrived``: the monotonic time in seconds at which the kernel received the
    newest bytes of the request.

    Attributes:
        since: The loop's time at which the present step of the client or of the application began.
        read_since: The loop's time at which the client first had to read more of the present answer, or None.
    """

    def __init__(self, config: Config, state: ServerState, limits: Limits) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self.since = self.loop.time()
        self.read_since: float | None = None
        self._limits = limits
        # Whether nothing has arrived since the last answer.
        self._is_idle = False
        self._application = cast("ASGIApp", self.app)
        self._task: asyncio.Task[None] | None = None
        self.app = self._run

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.is_closing():
            self.cycle.disconnected = True
            return
        self._task = asyncio.current_task()
        # The task is cancelled when the client disconnects. For uvicorn, that is no error.
        with contextlib.suppress(asyncio.CancelledError):
            await self._application(scope, receive, send)

    def _should_upgrade(self) -> bool:
        # There are no WebSockets here. Uvicorn's own method advises the operator to install a library for them.
        return False

    def is_working(self) -> bool:
        """Return whether the application answers a request."""
        cycle: RequestResponseCycle | None = self.cycle  # None until the first request
        return cycle is not None and not cycle.response_complete

    def waits_for_client(self) -> bool:
        """Return whether the client must send a request or read an answer."""
        return not self.is_working() or self.flow.write_paused

    def is_closing(self) -> bool:
        """Return whether the connection is closing."""
        transport: asyncio.Transport | None = self.transport  # None until it is set up
        return transport is not None and transport.is_closing()

    def _is_drained(self) -> bool:
        """Return whether the connection stays open and nothing waits in this process for the client."""
        # A TLS transport that is closing has no size.
        return not self.is_closing() and not self.transport.get_write_buffer_size()

    def check(self) -> None:
        """Cut the connection if its client is too slow."""
        # Uvicorn closes idle connections.
        if (self._is_idle and self._is_drained()) or not self.waits_for_client():
            return
        now = self.loop.time()
        reads = 0.0 if self.read_since is None else now - self.read_since
        if now - self.since > self._limits.client_seconds or reads > self._limits.answer_seconds:
            self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin, unless the client's certificate has a name that is not allowed."""
        super().connection_made(transport)
        self.since = self.loop.time()
        transport.set_write_buffer_limits(_PAUSE_BYTES)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and not tls.context.admits(tls.getpeercert()):
            _log.warning("client certificate refused", client=str(self.client), reason="no name in client_allowed_sans")
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop answering: nobody reads the answer any more."""
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()

    def shutdown(self) -> None:
        """Close the connection after the present answer, or now if there is none."""
        owes_nothing = not self.is_working() and self._is_drained()
        super().shutdown()
        if owes_nothing:
            # With TLS, it would wait for the client to say goodbye.
            self.transport.abort()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return the buffer for received bytes."""
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Handle received bytes."""
        data = bytes(_READ_BUFFER[:nbytes])
        if self._is_idle:
            self._is_idle, self.since = False, self.loop.time()
        was_working = self.is_working()
        if not was_working and _has_bare_line_feed(self.conn.trailing_data[0] + data):
            self.send_400_response("A line of the request ends without CR: end each line with CRLF.")
            return
        self.app_state = {"arrived": self.loop.time() - _seconds_in_kernel(self.transport)}
        self.data_received(data)
        if not self.is_working():
            return
        if not was_working:
            self.since = self.loop.time()
        # Pipelined requests and bodies that are still on their way are not read: the connection ends with this answer.
        more = self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]
        if more and self.cycle.keep_alive:
            self._answer_last()

    def _answer_last(self) -> None:
        """Let the connection end with the present answer."""
        self.cycle.keep_alive = False
        self.headers.append((b"connection", b"close"))

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's says nothing, and the connection is closed
        """Return whether the connection stays open although the client sends nothing more."""
        # A client that sends nothing more may still read the answer, but not with TLS.
        stays = self.is_working() and self.scheme == "http"
        if stays:
            self._answer_last()
        return stays

    def on_response_complete(self) -> None:
        """Note that it is the client's turn."""
        self.since, self.read_since, self._is_idle = self.loop.time(), None, True
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Note that the client has to read, and cut the slowest reader when there are too many."""
        super().pause_writing()
        self.since = self.loop.time()
        self.read_since = self.read_since or self.since
        slow = [one for one in cast("set[Connection]", self.connections) if one.flow.write_paused]
        if len(slow) > self._limits.slow_readers:
            min(slow, key=lambda one: one.since).transport.abort()

    def resume_writing(self) -> None:
        """Note that the client has read a portion."""
        super().resume_writing()
        self.since = self.loop.time()


def _has_bare_line_feed(data: bytes) -> bool:
    """Return whether a line of the request's head ends without CR. Proxies interpret such lines differently."""
    found = _END_OF_HEAD_OR_BARE_LF.search(data)
    return found is not None and found[0] == b"\n"


def _seconds_in_kernel(transport: asyncio.Transport) -> float:
    """Return how long the newest bytes of a connection waited for this process, 0 if unknown."""
    # Only TCP sockets on Linux have this option.
    with contextlib.suppress(OSError, AttributeError):
        info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return int.from_bytes(info[_LAST_DATA_RECEIVED], sys.byteorder) / 1000
    return 0.0
