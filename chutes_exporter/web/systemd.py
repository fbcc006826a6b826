"""systemd: socket activation and notifications.

Both protocols are short and documented. The libraries for them need systemd's headers or are unmaintained.
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
    from collections.abc import Mapping

_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START: the sockets of systemd begin here


def take_sockets(environment: Mapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that systemd has opened, or raise ConfigError if there is none."""
    pid, count = environment.get("LISTEN_PID", ""), environment.get("LISTEN_FDS", "")
    if pid != str(os.getpid()) or not count.isdigit() or count == "0":
        raise ConfigError("--web.systemd-socket: systemd passed no socket. Start the exporter through a socket unit")
    sockets = []
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)):
        opened = socket.socket(fileno=descriptor)
        if opened.type != socket.SOCK_STREAM or not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ConfigError(
                "--web.systemd-socket: systemd passed a socket that does not listen. "
                "Use ListenStream= in the socket unit"
            )
        sockets.append(opened)
    return sockets


class Notifier:
    """Notifies systemd, if its variables are in the environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # @ means the abstract namespace.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        timeout = environment.get("WATCHDOG_USEC", "")  # microseconds, of which systemd recommends to wait half
        for_this_process = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval = int(timeout) / 2e6 if timeout.isdigit() and for_this_process else 0.0

    def ready(self, status: str) -> None:
        """Notify that the service is ready, also after a reload."""
        self._notify(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Notify that a reload has begun. :meth:`ready` ends it."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Notify that the service stops."""
        self._notify("STOPPING=1")

    async def keep_alive(self) -> None:
        """Notify systemd's watchdog for ever, if there is one, that the event loop runs."""
        while self._interval:
            self._notify("WATCHDOG=1")
            await asyncio.sleep(self._interval)

    def _notify(self, message: str) -> None:
        if self._address:
            # A failed notification must not stop the service.
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
            ):
                sender.sendto(message.encode(), self._address)
