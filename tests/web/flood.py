"""Clients that never pause.

``python -m tests.web.flood HOST PORT ADDRESSES CLIENTS SECONDS [REQUESTS]``

Clients have that many addresses. Each connection sends a request, by default one for each form of
each page in turn. If it announces chunks, they follow for ever. The client reads what it gets, or
leaves after so many seconds. With 0 seconds it never reads, and stays until the server closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from itertools import cycle, islice, product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    server: tuple[str, int], address: str, patience: float, requests: Iterable[str]
) -> None:
    """Send requests one after the other.

    Args:
        server: Its host and port.
        address: The address of the client.
        patience: Seconds after which it leaves. With 0, it never reads, and never leaves.
        requests: The requests, each on a connection of its own.
    """
    # A connection whose buffer is full of one byte reads no more.
    buffer_size = 2**16 if patience else 1
    for request in requests:
        writer = None
        with contextlib.suppress(TimeoutError, ConnectionError):
            reader, writer = await asyncio.open_connection(
                *server, limit=buffer_size, local_addr=(address, 0)
            )
            writer.write(request.encode())
            # Such a request is only a head, whose body the chunks are.
            if "chunked" in request:
                await send_chunks(writer)
            if patience:
                await asyncio.wait_for(reader.read(-1), patience)
            else:
                await writer.wait_closed()
        if writer is not None:
            writer.close()


async def send_chunks(writer: asyncio.StreamWriter) -> None:
    """Send chunks of one byte until the server closes the connection."""
    while True:
        writer.write(b"1\r\na\r\n" * 1000)
        await writer.drain()


async def flood(
    server: tuple[str, int], addresses: int, clients: int, patience: float, requests: list[str]
) -> None:
    """Let clients send requests for ever."""
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            address = f"127.0.0.{1 + number % addresses}"
            # Each begins with another request than the next one, and never ends.
            endless = islice(cycle(requests), number % len(requests), None)
            group.create_task(client(server, address, patience, endless))


if __name__ == "__main__":
    _, host, port, addresses, clients, patience, *requests = sys.argv
    asyncio.run(
        flood(
            (host, int(port)),
            int(addresses),
            int(clients),
            float(patience),
            requests or REQUESTS,
        )
    )
