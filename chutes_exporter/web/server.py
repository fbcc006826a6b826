"""The HTTP server: sockets, the limits of connections, signals and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, cast

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from chutes_exporter.config import Address, ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from starlette.types import ASGIApp

    from chutes_exporter.web.tls import CurrentContext

_log = structlog.get_logger("server")

_BACKLOG = 1024
_PATIENCE_SECONDS = 10
_GRACE_SECONDS = 15
_HANDSHAKE_SECONDS = 10
_MAX_HEADER_BYTES = 16 * 1024
_MAX_CONNECTIONS = 512
_REQUEST_SECONDS = 10
"""Seconds that a client has to send a whole request, or to be idle between two."""
_STUCK_SECONDS = 30
"""Seconds that a client has for the rest of an answer, once all of it is handed over."""
_LOOK_EVERY = 1.0
_OPEN_FILES = 4096


class _Connection(H11Protocol):
    """A connection that is cut when its client is too slow."""

    idle_since = 0.0
    stuck_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self.idle_since = self.stuck_since = self.loop.time()
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and not tls.context.admits(tls.getpeercert()):
            _log.warning("refused a client's certificate: it has no allowed name", client=str(self.client))
            transport.abort()
        elif len(self.connections) > _MAX_CONNECTIONS:
            self._make_room()

    def _make_room(self) -> None:
        """Cut the connection that has been idle for longest: who is served stays, and who comes gets in."""
        idle = [one for one in cast("set[_Connection]", self.connections) if not one.is_busy()]
        min(idle, key=lambda one: one.idle_since, default=self).transport.abort()

    def is_busy(self) -> bool:
        """Tell whether a request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # None until the first request
        return cycle is not None and not cycle.response_complete

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's says nothing, and the connection is closed
        # Who has sent all that he will may still read the answer; TLS has no such thing.
        return self.is_busy() and self.scheme == "http"

    def on_response_complete(self) -> None:
        self.idle_since = self.stuck_since = self.loop.time()
        super().on_response_complete()

    def check(self) -> None:
        """Cut the connection where its client has been too slow."""
        now = self.loop.time()
        unsent, busy = self.transport.get_write_buffer_size(), self.is_busy()
        # While a page is being sent its own limit holds; reading a little now and then buys no time after that.
        if unsent == 0 or busy:
            self.stuck_since = now
        idle = 0.0 if busy or unsent else now - self.idle_since
        if idle > _REQUEST_SECONDS or now - self.stuck_since > _STUCK_SECONDS:
            self.transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, context: CurrentContext | None) -> None:
        super().__init__(config)
        self._context = context
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End gracefully, from now on."""
        self.should_exit = True
        self._stop.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Uvicorn raises the signal again after its graceful end, which turns a clean exit into a killed process.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Uvicorn's own has no time limit for handshakes, and takes no context that is made already.
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                lambda: _Connection(config=self.config, server_state=self.server_state, app_state={}),
                sock=opened,
                backlog=_BACKLOG,
                ssl=self._context,
                ssl_handshake_timeout=None if self._context is None else _HANDSHAKE_SECONDS,
            )
            for opened in sockets or []
        ]
        self.started = True

    async def main_loop(self) -> None:
        # Uvicorn's own wakes ten times a second, and notes only then that it shall end.
        while not await self.on_tick(0):
            for connection in cast("set[_Connection]", self.server_state.connections).copy():
                connection.check()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), _LOOK_EVERY)


def open_socket(address: Address) -> socket.socket:
    """Open a listening socket; without a host for IPv6 and IPv4 alike.

    Raises:
        ConfigError: The address cannot be listened on; the message says why.
    """
    dual = not address.host and socket.has_dualstack_ipv6()
    try:
        if address.path:
            return _open_unix_socket(address.path)
        if dual:
            try:
                return socket.create_server(
                    ("", address.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
                )
            except OSError:
                # IPv6 is compiled in but switched off, as in some containers.
                return socket.create_server(("", address.port), backlog=_BACKLOG)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigError(f"cannot listen on {address}: {reason}. Choose another address") from None


def _open_unix_socket(path: str) -> socket.socket:
    """Open a Unix socket for this user and group, in the place of one that nobody listens on any more."""
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(path)
        raise OSError(98, "Address already in use")
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(Path(path).stat().st_mode):
            Path(path).unlink()
    opened = socket.socket(socket.AF_UNIX)
    try:
        # Nobody else may connect, not even between the two calls.
        before = os.umask(0o117)
        try:
            opened.bind(path)
        finally:
            os.umask(before)
        opened.listen(_BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


@contextlib.contextmanager
def listening(address: Address) -> Iterator[socket.socket]:
    """Listen for as long as the context lasts; the path of a Unix socket goes with it, unless another took its place.

    Raises:
        ConfigError: The address cannot be listened on; the message says why.
    """
    with open_socket(address) as opened:
        path = Path(address.path) if address.path else None
        mine = path.stat() if path is not None else None
        try:
            yield opened
        finally:
            if path is not None and mine is not None:
                with contextlib.suppress(FileNotFoundError):
                    there = path.stat()
                    # Numbers of files are used again at once; the time tells them apart.
                    if (there.st_ino, there.st_ctime_ns) == (mine.st_ino, mine.st_ctime_ns):
                        path.unlink()


def bound_address(opened: socket.socket) -> Address:
    """Return where a socket listens in fact, its port resolved."""
    name = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return Address(path=name)
    host, port = name[:2]
    return Address("" if host in ("::", "0.0.0.0") else host, port)  # noqa: S104 - compared, not bound


def allow_many_files() -> None:
    """Raise the soft limit of open files, which is often 1024: idle connections must not keep others out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _OPEN_FILES:
        wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        # A sandbox may forbid it; then what there is must do.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    *,
    context: CurrentContext | None = None,
    date_header: bool = True,
    grace: int = _GRACE_SECONDS,
    patience: float = _PATIENCE_SECONDS,
    hurry: Callable[[], None] | None = None,
) -> AsyncIterator[None]:
    """Serve an application on open sockets for as long as the context lasts, then end gracefully.

    Args:
        app: The application.
        sockets: Listening sockets.
        context: Encrypts connections; None where they are not encrypted.
        date_header: Whether to add a Date header to responses.
        grace: Seconds that requests under way have to finish at the end; then they are cut.
        patience: Seconds of these after which they are hurried.
        hurry: Lets requests under way answer at once with what they have.
    """
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            date_header=date_header,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            timeout_graceful_shutdown=grace,
        ),
        context,
    )
    running = asyncio.create_task(server.serve(sockets=list(sockets)))
    try:
        # The sockets listen already: what comes before the server is ready waits in their backlog.
        yield
    finally:
        server.stop()
        impatience = asyncio.get_running_loop().call_later(patience, hurry or (lambda: None))
        await running
        impatience.cancel()


@contextlib.contextmanager
def signals(hang_up: Callable[[], None] | None = None) -> Iterator[asyncio.Event]:
    """Take note of signals for as long as the context lasts: yields an event that SIGTERM and SIGINT set.

    The context encloses the start and the end: a signal that comes during either must not kill the process.

    Args:
        hang_up: What SIGHUP does.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: stop.set, signal.SIGINT: stop.set} | ({signal.SIGHUP: hang_up} if hang_up else {})
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield stop
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
