"""systemd: sockets that it has opened, and telling it how things are.

Both are a few lines of its documented protocols; the libraries for it want its headers, or are kept by nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

from chutes_exporter.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_FIRST_DESCRIPTOR = 3


def take_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that systemd has opened, and forget about them for children.

    Args:
        environment: The environment variables; those of the protocol are taken out.

    Raises:
        ConfigError: There are none.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit() or count == "0":
        raise ConfigError("--web.systemd-socket: systemd passed no socket. Start the exporter through a socket unit")
    sockets = []
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)):
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - takes it by position only
        opened = socket.socket(fileno=descriptor)
        if opened.type != socket.SOCK_STREAM or not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ConfigError(
                "--web.systemd-socket: systemd passed a socket that does not listen. "
                "Use ListenStream= in the socket unit"
            )
        sockets.append(opened)
    return sockets


class Notifier:
    """Tells systemd how things are, where it wants to know.

    Args:
        environment: The environment variables.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # @ stands for the abstract namespace.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        wanted = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval = int(wanted) / 2e6 if wanted.isdigit() and ours else 0.0

    def ready(self, status: str) -> None:
        """Say that requests are answered."""
        self._tell(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that the configuration is being read again; :meth:`ready` ends that."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1")

    async def keep_alive(self) -> None:
        """Say again and again that the event loop runs, if a watchdog wants to know; for ever."""
        while self._interval:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._interval)

    def _tell(self, message: str) -> None:
        if self._address:
            # A failed notification must not stop the service.
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told,
            ):
                told.sendto(message.encode(), self._address)
