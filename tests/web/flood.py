"""Clients that never pause: ``python -m tests.web.flood HOST PORT CLIENTS SECONDS [REQUESTS]``.

Each connection sends the requests, by default one for each form of each page in turn. It reads what
it gets, or leaves after so many seconds. With 0 seconds it never reads, and stays until the server
closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from itertools import cycle, islice, product

PATHS = ("/metrics", "/", "/-/ready", "/unknown")
ACCEPTS = ("text/plain", "application/openmetrics-text;version=1.0.0")
ENCODINGS = ("identity", "gzip")
REQUESTS = [
    f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nAccept-Encoding: "
    f"{encoding}\r\nConnection: close\r\n\r\n"
    for path, accept, encoding in product(PATHS, ACCEPTS, ENCODINGS)
    # Other pages than the metrics have one form.
    if path == "/metrics" or (accept, encoding) == (ACCEPTS[0], ENCODINGS[0])
]


async def client(
    address: tuple[str, int], patience: float, requests: list[str], number: int
) -> None:
    """Ask for ever, beginning with another request than the next client."""
    for request in islice(cycle(requests), number % len(requests), None):
        # A connection whose buffer is full of one byte reads no more.
        reader, writer = await asyncio.open_connection(*address, limit=2**16 if patience else 1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            writer.write(request.encode())
            await (
                asyncio.wait_for(reader.read(-1), patience) if patience else writer.wait_closed()
            )
        writer.close()


async def flood(host: str, port: int, clients: int, patience: float, requests: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client((host, port), patience, requests, number))


if __name__ == "__main__":
    _, host, port, clients, patience, *requests = sys.argv
    asyncio.run(flood(host, int(port), int(clients), float(patience), requests or REQUESTS))
