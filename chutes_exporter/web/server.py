"""The HTTP server: sockets, accepting connections, signals and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import resource
import signal
import socket
import stat
import time
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, cast

import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState

from chutes_exporter.config import Address, ConfigError
from chutes_exporter.web.connection import Connection, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from starlette.types import ASGIApp

    from chutes_exporter.web.tls import CurrentContext

_log = structlog.get_logger("server")

_BACKLOG = 1024
_ACCEPTED_AT_ONCE = 32
_PATIENCE_SECONDS = 7
_GRACE_SECONDS = 9
"""Less than 10 seconds, because `docker stop` kills the process then."""
_MAX_HEAD_BYTES = 32 * 1024
"""More bytes than the guard admits, so that the guard can refuse a request with the reason."""
_CHECK_INTERVAL = 1.0
_END_CHECK_INTERVAL = 0.05
_OPEN_FILES = 4096
_RESERVED_FILES = 80
"""Descriptors reserved for requests to the API (at most 60), files, and the process itself."""


class _Server:
    """Accepts connections as long as there is room for them.

    Uvicorn provides the protocol of a connection. Its own server logs a line and wakes for each connection that finds
    no free file descriptor, does not count TLS handshakes, and turns signals into a killed process.
    """

    def __init__(
        self,
        config: Config,
        sockets: Sequence[socket.socket],
        context: CurrentContext | None,
        limits: Limits,
    ) -> None:
        self._config = config
        self._sockets = sockets
        self._context = context
        self._limits = limits
        self._room = min(limits.connections, files_for_connections())
        self._state = ServerState()
        self._arriving: dict[Connection, asyncio.Task[None]] = {}
        """Tasks that set up connections, TLS handshake included."""
        self._loop = asyncio.get_running_loop()

    @property
    def _connections(self) -> list[Connection]:
        return list(cast("set[Connection]", self._state.connections))

    async def run(self) -> None:
        """Serve until the task is cancelled."""
        for opened in self._sockets:
            opened.settimeout(0)
            if opened.family != socket.AF_UNIX:
                # Accepted connections inherit this. Otherwise the end of a small answer waits 40 ms for an ACK.
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            date = formatdate(time.time(), usegmt=True).encode()
            self._state.default_headers = [(b"date", date)] if self._config.date_header else []
            # Each time, because accepting pauses when there are no file descriptors.
            for opened in self._sockets:
                self._loop.add_reader(opened, self._accept, opened)
            for connection in self._connections:
                connection.check()
            await asyncio.sleep(min(_CHECK_INTERVAL, self._limits.client_seconds / 4))

    async def end(self, grace: float) -> None:
        """Stop accepting, and end all connections.

        Args:
            grace: Seconds after which unfinished requests are cut.
        """
        for opened in self._sockets:
            self._loop.remove_reader(opened)
            opened.close()
        arriving = list(self._arriving.values())
        for task in arriving:
            task.cancel()
        for connection in self._connections:
            connection.shutdown()
        ends = self._loop.time() + grace
        while (self._state.connections or self._state.tasks) and self._loop.time() < ends:
            for connection in self._connections:
                connection.check()
            await asyncio.sleep(_END_CHECK_INTERVAL)
        for connection in self._connections:
            connection.transport.abort()
        for request in self._state.tasks:
            request.cancel()
        await asyncio.gather(*arriving, *self._state.tasks, return_exceptions=True)

    def _accept(self, opened: socket.socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            is_full = self._is_full()
            try:
                accepted, _address = opened.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Without a file descriptor, the connection stays in the backlog and would wake the loop all the time.
                _log.warning("accepting connections paused", reason=os.strerror(error.errno or 0))
                self._loop.remove_reader(opened)
                return
            if is_full:
                self._make_room()
            self._set_up(accepted)
            if is_full:
                # Let the other connections send a request before the next one replaces them.
                return

    def _set_up(self, accepted: socket.socket) -> None:
        connection = Connection(self._config, self._state, self._limits)

        async def connect() -> None:
            # Failed handshakes and lost connections are the client's problem.
            with contextlib.suppress(OSError):
                await self._loop.connect_accepted_socket(
                    lambda: connection,
                    accepted,
                    ssl=self._context,
                    ssl_handshake_timeout=None if self._context is None else self._limits.client_seconds,
                )

        def done(task: asyncio.Task[None]) -> None:
            self._arriving.pop(connection, None)
            if task.cancelled():
                accepted.close()

        task = self._loop.create_task(connect())
        self._arriving[connection] = task
        task.add_done_callback(done)

    def _is_full(self) -> bool:
        at_most = len(self._arriving) + len(self._state.connections)
        return at_most >= self._room and len(self._open()) >= self._room

    def _open(self) -> list[Connection]:
        return [one for one in {*self._arriving, *self._connections} if not one.is_closing()]

    def _make_room(self) -> None:
        """Cut the connection that waits longest for its client. If all are being answered, cut the oldest."""
        oldest = min(self._open(), key=lambda one: (not one.waits_for_client(), one.since))
        if oldest in self._connections:
            oldest.transport.abort()
        else:
            self._arriving.pop(oldest).cancel()


def files_for_connections() -> int:
    """Return the maximum number of file descriptors for connections."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _OPEN_FILES
    return max(limit - _RESERVED_FILES, limit // 2)


def open_socket(address: Address, flag: str = "--web.listen-address") -> socket.socket:
    """Open a listening socket. Without a host, it listens on IPv6 and IPv4.

    Args:
        address: The address.
        flag: The flag of the address, for the error.

    Raises:
        ConfigError: It cannot listen on the address. The message says why.
    """
    dual = not address.host and socket.has_dualstack_ipv6()
    try:
        if not address.host.isascii():
            # The standard library leaves the socket open if it fails at this.
            address.host.encode("idna")
        if address.path:
            return _open_unix_socket(address.path)
        if dual:
            try:
                return socket.create_server(
                    ("", address.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
                )
            except OSError:
                # IPv6 is compiled in but disabled, as in some containers.
                return socket.create_server(("", address.port), backlog=_BACKLOG)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except UnicodeError:
        raise ConfigError(f"{flag}: cannot listen on {address}: this is no host name. Choose another address") from None
    except OSError as error:
        # The standard library adds numbers and its own arguments to errors of names.
        name_error = (error.strerror or str(error)).partition(" (while ")[0]
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else name_error
        raise ConfigError(f"{flag}: cannot listen on {address}: {reason}. Choose another address") from None


def _open_unix_socket(path: str) -> socket.socket:
    """Open a Unix socket for this user and group. It replaces a socket that nobody listens on."""
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(path)
        raise OSError(98, "Address already in use")
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise OSError("the path exists and is no socket")
        Path(path).unlink()
    opened = socket.socket(socket.AF_UNIX)
    try:
        # Set the permissions by the umask, so that nobody else can connect between two calls.
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
    """Listen while the context lasts. At the end, remove the path of a Unix socket, unless another socket replaced it.

    Raises:
        ConfigError: It cannot listen on the address. The message says why.
    """
    with open_socket(address) as opened:
        path = Path(address.path) if address.path else None
        created = path.stat() if path is not None else None
        try:
            yield opened
        finally:
            if path is not None and created is not None:
                with contextlib.suppress(FileNotFoundError):
                    found = path.stat()
                    # Inode numbers are reused at once. The time distinguishes the files.
                    if (found.st_ino, found.st_ctime_ns) == (created.st_ino, created.st_ctime_ns):
                        path.unlink()


def bound_address(opened: socket.socket) -> Address:
    """Return the address of a listening socket with its real port."""
    name = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return Address(path=name)
    host, port = name[:2]
    return Address("" if host in ("::", "0.0.0.0") else host, port)  # noqa: S104 - compared, not bound


def allow_many_files() -> None:
    """Raise the soft limit of open files, which is often 1024, so that idle connections do not block others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _OPEN_FILES:
        wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
        # A sandbox may forbid it. Then the old limit applies.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    *,
    context: CurrentContext | None = None,
    date_header: bool = True,
    grace: float = _GRACE_SECONDS,
    patience: float = _PATIENCE_SECONDS,
    hurry: Callable[[], None] | None = None,
    limits: Limits = Limits(),  # noqa: B008 - it is immutable
) -> AsyncIterator[None]:
    """Serve an application on open sockets while the context lasts, then end gracefully.

    Args:
        app: The application.
        sockets: Listening sockets, closed at the end.
        context: The TLS context. None does not encrypt connections.
        date_header: Whether to add a Date header to responses.
        grace: Seconds after which unfinished requests are cut at the end.
        patience: Seconds after which ``hurry`` is called at the end.
        hurry: Makes unfinished requests answer at once with the known data.
        limits: Limits for the connections.

    Raises:
        Exception: The server has a bug, and ends: a process that answers nobody is worse than one that is restarted.
    """
    config = Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        date_header=date_header,
        timeout_keep_alive=math.ceil(limits.idle_seconds),
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
    )
    server = _Server(config, sockets, context, limits)
    running = asyncio.create_task(server.run())
    caller = asyncio.current_task()
    running.add_done_callback(lambda task: None if task.cancelled() or caller is None else caller.cancel())
    try:
        # The sockets listen already. Connections wait in the backlog until the server is ready.
        yield
    except asyncio.CancelledError:
        if running.done():
            running.result()
        raise
    finally:
        running.cancel()
        impatience = asyncio.get_running_loop().call_later(patience, hurry or (lambda: None))
        await server.end(grace)
        impatience.cancel()


@contextlib.contextmanager
def signals(hang_up: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Handle signals while the context lasts, and yield an event that SIGTERM and SIGINT set.

    Blocked signals are delivered when the context begins, and are blocked again when it ends. So no signal kills the
    process during its start or end.

    Args:
        hang_up: Called for SIGHUP.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: stop.set, signal.SIGINT: stop.set, signal.SIGHUP: hang_up}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
    try:
        yield stop
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in handlers:
            loop.remove_signal_handler(number)
