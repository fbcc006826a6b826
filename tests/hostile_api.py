"""A hostile API in a separate process.

It prints its address and serves bad answers until it is killed.

Argument: one of :data:`KINDS` or :data:`ENDLESS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import zlib
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from chutes_exporter.api.decoding import StreamShape
from chutes_exporter.config import Address
from chutes_exporter.feeds.definitions import ENDPOINTS
from chutes_exporter.web.server import bound_address, open_socket, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from starlette.requests import Request

    from chutes_exporter.api.endpoint import Endpoint

_IDS = (
    "chute_id",
    "instance_id",
    "hotkey",
    "uuid",
    "server_id",
    "image_id",
    "job_id",
    "gpu_id",
    "miner_hotkey",
)
_MEGABYTE = b"x" * 1_000_000


def _record(number: int, text: str) -> bytes:
    """Return a record with a text, which every endpoint's decoder accepts."""
    record: dict[str, Any] = dict.fromkeys(_IDS, f"{number:x}") | {"time": "2026-11-24 12:00:00+00"}
    record |= dict.fromkeys(("name", "coldkey", "method", "version", "chute_name", "user"), text)
    numbers = ("incentive", "utilization", "compute_units", "concurrency", "bounty")
    record |= dict.fromkeys(numbers, 1) | {"active": True}
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()


def _framed(endpoint: Endpoint[Any], records: Iterator[bytes]) -> Iterator[bytes]:
    """Yield records in an endpoint's format."""
    if isinstance(endpoint.shape, StreamShape):
        yield from (b"data: " + record + b"\n\n" for record in records)
        return
    opening, closing = {
        "servers": (b'{"servers":[', b"]}"),
        "stats": (b'{"past_hour":{"instance_stats":[', b"]}}"),
        "scores": (b'{"final_scores":{', b"}}"),
    }.get(endpoint.name, (b"[", b"]"))
    yield opening
    for number, record in enumerate(records):
        if number > 0:
            yield b","
        if endpoint.name == "scores":
            # Its scores are no records, but numbers by hotkey.
            yield b'"%x":1' % number
        else:
            yield record
    yield closing


def _large_chunks(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Join small parts, so that fewer are sent."""
    while chunk := b"".join(itertools.islice(parts, 2000)):
        yield chunk


def _full(endpoint: Endpoint[Any]) -> Iterator[bytes]:
    """Yield about as many records as the endpoint's limit allows."""
    text = "x" * 20
    # Each record is framed, and the ids of later ones are longer.
    size = len(_record(0, text)) + 60
    if isinstance(endpoint.shape, StreamShape):
        # They are limited after they were decoded, when they have all their fields.
        size += len(_record(0, text))
    numbers = range(endpoint.max_bytes // size)
    return _large_chunks(_framed(endpoint, (_record(number, text) for number in numbers)))


KINDS = ("compressed line", "full")
"""Kinds of answers of all endpoints: a compressed line without end, or as many records as the limit
of the endpoint allows.
"""
ENDLESS = {
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
"""Answers without end that are little data and much work: the beginning, and what is repeated."""


def _answer(endpoint: Endpoint[Any], kind: str) -> Callable[[Request], Any]:
    """Return what answers the requests to an endpoint."""

    async def line() -> AsyncIterator[bytes]:
        stream = zlib.compressobj(1, wbits=31)  # 31 is the format of gzip
        while True:
            yield stream.compress(_MEGABYTE)
            await asyncio.sleep(0)  # lets the server notice that the client disconnected

    def answer(_request: Request) -> StreamingResponse:
        if kind == "full":
            return StreamingResponse(_full(endpoint))
        return StreamingResponse(line(), headers={"content-encoding": "gzip"})

    return answer


async def _serve_endless(beginning: bytes, part: bytes) -> None:
    """Answer each request with a beginning and a part that is repeated."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The client disconnects when it has had enough.
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(beginning)
            while True:
                writer.write(part * 10_000)
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"http://{bound_address(server.sockets[0])}", flush=True)
    await server.serve_forever()


async def main() -> None:
    """Serve answers of the kind in the argument until the process is killed."""
    if sys.argv[1] in ENDLESS:
        await _serve_endless(*ENDLESS[sys.argv[1]])
    app = Starlette(
        routes=[Route(endpoint.path, _answer(endpoint, sys.argv[1])) for endpoint in ENDPOINTS]
    )
    with open_socket(Address("127.0.0.1", 0)) as opened:
        async with serving(app, [opened]):
            print(f"http://{bound_address(opened)}", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
