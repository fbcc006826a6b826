"""Exits with 0 if the exporter of this container answers, for the image's HEALTHCHECK."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from pathlib import Path

_REQUEST = b"GET /-/healthy HTTP/1.0\r\n\r\n"
_SECONDS = 4.0


def main(process: str = "1") -> None:
    """Send a request, and wait for an answer. Raise OSError if there is none in time.

    The address is that of the first ``--web.listen-address`` of a process, or of its variable. Any
    answer will do, also that a password is missing. With TLS, the process closes the connection
    instead, because this is no handshake. A process that hangs does neither.
    """
    command = Path(f"/proc/{process}/cmdline").read_text(errors="replace")
    flag = re.search(r"\0--web\.listen-address[=\0]([^\0]+)", command)
    variable = os.environ.get("CHUTES_EXPORTER_WEB_LISTEN_ADDRESS") or ":10064"
    address = flag[1] if flag else variable.split()[0]
    host, _, port = address.rpartition(":")
    server = (host.strip("[]") or "127.0.0.1", int(port))
    with socket.create_connection(server, _SECONDS) as connection, suppress(ConnectionError):
        connection.sendall(_REQUEST)
        connection.recv(1)


if __name__ == "__main__":
    main()
