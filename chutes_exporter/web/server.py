"""The HTTP server: listening sockets, uvicorn and signals."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from chutes_exporter.config import Address, ConfigError
from chutes_exporter.web.connections import Connections, tracked

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from starlette.types import ASGIApp

_BACKLOG = 1024
"""Connections that wait in the kernel until they are accepted."""
_GRACE_SECONDS = 7
"""uvicorn needs up to 1.5 seconds more, and `docker stop` kills the process after 10 seconds."""
_IDLE_SECONDS = 300
"""As long as Prometheus' own limit, so that scrapers keep their connections from scrape to scrape.
"""
_MAX_OPEN = 2048
"""Maximum open connections, if the limit of open files allows twice as many."""
_MAX_SERVED = 128
"""Maximum connections whose requests are served. Others wait, although they have sent a byte."""
_OPEN_FILES = 4096
"""The limit of open files that is set if it is lower: half for connections, half for the API."""
_MIN_OPEN_FILES = 128
"""The limit of open files below which nothing could be served for long."""


def open_socket(address: Address, flag: str = "--web.listen-address") -> socket.socket:
    """Open a listening socket, or raise ConfigError, which names the flag.

    Without a host, it has IPv6 and IPv4.
    """
    is_dual = not address.host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual or ":" in address.host else socket.AF_INET
    try:
        return socket.create_server(
            (address.host, address.port), family=family, dualstack_ipv6=is_dual, backlog=_BACKLOG
        )
    except OSError as error:
        # The standard library adds its own arguments to the text.
        reason = str(error.strerror).partition(" (while ")[0]
        raise ConfigError(
            f"{flag}: cannot listen on {address}: {reason}. Choose another address"
        ) from None


def bound_address(opened: socket.socket) -> Address:
    """Return the address of a listening socket with its real port."""
    host, port = opened.getsockname()[:2]
    return Address("" if host in ("::", "0.0.0.0") else host, port)  # noqa: S104 - compared, not bound


def allow_many_files() -> None:
    """Raise a low soft limit of open files, so that connections leave some for the API.

    Raise ConfigError if it stays too low to serve.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= _OPEN_FILES:
        return
    limit = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    # A sandbox may forbid it. Then the old limit applies.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _MIN_OPEN_FILES:
        raise ConfigError(
            f"the limit of open files is {soft}, and at least {_MIN_OPEN_FILES} are needed: raise "
            f"it with ulimit -n {_OPEN_FILES}, LimitNOFILE={_OPEN_FILES} of systemd, or --ulimit "
            f"nofile={_OPEN_FILES} of docker run"
        )


def _max_open() -> int:
    """Return how many connections may be open, so that half of the open files are left for
    requests to the API.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_OPEN if soft == resource.RLIM_INFINITY else min(_MAX_OPEN, soft // 2)


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    *,
    context: ssl.SSLContext | None = None,
    date_header: bool = True,
    grace: int = _GRACE_SECONDS,
) -> AsyncIterator[None]:
    """Serve an application on listening sockets while the context lasts.

    Without ``date_header``, the application itself sets the date of its answers.

    At the end, unfinished requests are cut after the seconds of grace, and the sockets are closed.
    A failure of the server ends the caller, because a process that answers nobody is worse than one
    that is restarted.
    """
    for opened in sockets:
        # Accepted connections inherit this. Otherwise the end of a small answer waits 40 ms for an
        # ACK.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connections = Connections(_max_open(), _MAX_SERVED)
    server = _uvicorn_server(app, date_header=date_header, grace=grace)
    # It gets no sockets, because the connections are accepted here.
    running = asyncio.create_task(server.serve([]))
    accepting = [
        asyncio.create_task(connections.accept(opened, server, context)) for opened in sockets
    ]
    caller = asyncio.current_task()

    def end_caller(task: asyncio.Task[None]) -> None:
        """After a failure, cancel what the caller awaits. The failure is then raised below."""
        if caller is not None and not task.cancelled() and task.exception():
            caller.cancel()

    for task in (running, *accepting):
        task.add_done_callback(end_caller)
    try:
        # The sockets listen already. Connections wait in the backlog until they are accepted.
        yield
    finally:
        for task in accepting:
            task.cancel()
        for opened in sockets:
            opened.close()
        await connections.end()
        server.should_exit = True
        # uvicorn would cut clients that do not read with an error in the log.
        await asyncio.wait([running], timeout=grace)
        connections.abort()
        for ended in await asyncio.gather(running, *accepting, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


def _uvicorn_server(app: ASGIApp, *, date_header: bool, grace: int) -> uvicorn.Server:
    """Return a server that notes which connections are busy, without features that nobody needs.

    ``date_header`` is as for :func:`serving`, and ``grace`` is the time in seconds that unfinished
    requests have at the end.
    """
    config = uvicorn.Config(
        partial(tracked, app),
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=date_header,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=grace + 1,
    )
    return uvicorn.Server(config)


@contextlib.contextmanager
def signals(hang_up: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Handle signals while the context lasts, and yield an event that SIGTERM and SIGINT set.

    SIGHUP calls ``hang_up``.

    uvicorn also ends at SIGTERM and SIGINT, and then raises the signal again. Without these
    handlers, the second signal would kill the process.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: stop.set, signal.SIGINT: stop.set, signal.SIGHUP: hang_up}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield stop
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
