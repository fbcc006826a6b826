"""The HTTP server: sockets, signals and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING

import structlog
import uvicorn

from chutes_exporter.config import Address, ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from starlette.types import ASGIApp

_log = structlog.get_logger("server")

_BACKLOG = 128
_PATIENCE_SECONDS = 10
_GRACE_SECONDS = 15


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Uvicorn raises the signal again after its graceful end, which turns a clean exit into a killed process.
        yield


def open_socket(address: Address) -> socket.socket:
    """Open a listening socket; without a host for IPv6 and IPv4 alike.

    Raises:
        ConfigError: The address cannot be listened on; the message says why.
    """
    dual = not address.host and socket.has_dualstack_ipv6()
    try:
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


def bound_address(opened: socket.socket) -> Address:
    """Return where a socket listens in fact, its port resolved."""
    host, port = opened.getsockname()[:2]
    return Address("" if host in ("::", "0.0.0.0") else host, port)  # noqa: S104 - compared, not bound


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    *,
    date_header: bool = True,
    grace: int = _GRACE_SECONDS,
    patience: float = _PATIENCE_SECONDS,
    hurry: Callable[[], None] | None = None,
) -> AsyncIterator[None]:
    """Serve an application on open sockets for as long as the context lasts, then end gracefully.

    Args:
        app: The application.
        sockets: Listening sockets.
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
            timeout_graceful_shutdown=grace,
        )
    )
    running = asyncio.create_task(server.serve(sockets=list(sockets)))
    try:
        # The sockets listen already: what comes before the server is ready waits in their backlog.
        yield
    finally:
        server.should_exit = True
        impatience = asyncio.get_running_loop().call_later(patience, hurry or (lambda: None))
        await running
        impatience.cancel()


async def until_told_to_stop() -> None:
    """Wait for SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
        _log.info("stopping")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
