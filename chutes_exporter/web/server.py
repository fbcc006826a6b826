"""The HTTP server: listening sockets, uvicorn and signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn

from chutes_exporter.config import Address, ConfigError
from chutes_exporter.web.connections import Connections

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from starlette.types import ASGIApp

_BACKLOG = 1024
"""Connections that wait in the kernel until they are accepted."""
_GRACE_SECONDS = 7
"""Seconds for unfinished requests at the end. `docker stop` kills the process after 10 seconds."""
_IDLE_SECONDS = 300
"""As long as Prometheus' own limit, so that scrapers keep their connections from scrape to scrape.
"""
_MAX_CONNECTIONS = 128
"""Each may need 0.3 MB with TLS, and takes a share of each turn of the event loop."""
_KERNEL_BYTES = 64 * 1024
"""Bytes that the kernel keeps for a client. It doubles this number, instead of growing to 4 MB."""


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


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    *,
    context: Callable[[], ssl.SSLContext | None] = lambda: None,
    grace: float = _GRACE_SECONDS,
) -> AsyncIterator[None]:
    """Serve an application on listening sockets while the context lasts.

    ``context`` returns the TLS context of a new connection, None without TLS. The application
    itself sets the date of its answers.

    At the end, unfinished requests are cut after the seconds of grace, and the sockets are closed.
    """
    config = uvicorn.Config(
        app,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_SECONDS,
    )
    connections = Connections(config, _MAX_CONNECTIONS)
    accepting = []
    for opened in sockets:
        # Accepted connections inherit these. Without the second one, the end of an answer would
        # wait until the client acknowledges its beginning.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepting.append(asyncio.create_task(connections.accept(opened, context)))
    try:
        # The sockets listen already. Connections wait in the backlog until they are accepted.
        yield
    finally:
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
        for opened in sockets:
            opened.close()
        await connections.end(grace)


@contextlib.contextmanager
def signals(hang_up: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Handle signals while the context lasts, and yield an event that SIGTERM and SIGINT set.

    SIGHUP calls ``hang_up``.
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
