"""Clients that ask for every page and never pause: ``python -m tests.web.flood HOST PORT SECONDS``.

They read what they get, or leave after so many seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from itertools import cycle, islice, product

CLIENTS = 100
PATHS = ("/metrics", "/", "/-/ready", "/unknown")
ACCEPTS = ("text/plain", "application/openmetrics-text;version=1.0.0")
ENCODINGS = ("identity", "gzip")
REQUESTS = [
    f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nAccept-Encoding: {encoding}\r\nConnection: close\r\n\r\n"
    for path, accept, encoding in product(PATHS, ACCEPTS, ENCODINGS)
    # Other pages than the metrics have one form.
    if path == "/metrics" or (accept, encoding) == (ACCEPTS[0], ENCODINGS[0])
]


async def client(host: str, port: int, patience: float, number: int) -> None:
    """Ask for ever, beginning with another page than the next client."""
    for request in islice(cycle(REQUESTS), number, None):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(request.encode())
        with contextlib.suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(reader.read(-1), patience)
        writer.close()


async def flood(host: str, port: int, patience: float) -> None:
    async with asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            clients.create_task(client(host, port, patience, number))


if __name__ == "__main__":
    asyncio.run(flood(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
