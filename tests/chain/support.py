"""A node of the chain with a recorded block, in which a test can change values and answers."""

from __future__ import annotations

import contextlib
import json
import lzma
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chutes_exporter.chain import subnet
from chutes_exporter.chain.node import Node
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.config import Settings, make_settings
from chutes_exporter.demo import chain
from chutes_exporter.demo.chain import Block, respond
from chutes_exporter.page.exporter import Exporter
from tests.exporters import page_of, served
from tests.support import NOON, PATIENCE, RECORDINGS, Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from tests.pages import Page


EXPECTED = json.loads(lzma.decompress((RECORDINGS / "chain-expected.json.xz").read_bytes()))
"""What is to be known about the recorded block."""


def recorded_block(**changes: str | None) -> Block:
    """Return the recorded block, half a minute before noon, with other texts of some items."""
    block = chain.recorded_block()
    changes = {"milliseconds": number(1000 * (NOON - 30), 8), **changes}
    values = {subnet.ITEMS[name].key: text for name, text in changes.items()}
    return replace(block, storage={**block.storage, **values})


def number(value: float, size: int) -> str:
    """Return a number as the chain stores it, in ``size`` bytes."""
    return "0x" + int(value).to_bytes(size, "little").hex()


@dataclass
class FakeNode:
    """A node with one block, and an API that knows the price of TAO.

    ``change`` may change its reply to a method.
    """

    block: Block = field(default_factory=recorded_block)
    change: Callable[[str, dict[str, Any]], Any] = lambda _method, reply: reply
    fmv: bytes = b'{"tao": 400}'
    calls: list[str] = field(default_factory=list)
    urls: set[str] = field(default_factory=set)

    async def _answer(self, request: Request) -> Response:
        call = await request.json()
        self.calls.append(call["method"])
        self.urls.add(str(request.url))
        reply = self.change(
            call["method"], respond(call, self.block, {self.block.hash: self.block})
        )
        return reply if isinstance(reply, Response) else JSONResponse(reply)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Yield its address."""
        routes = [
            Route("/rpc", self._answer, methods=["POST"]),
            Route("/rpc/fmv", lambda _: Response(self.fmv)),
        ]
        async with served(Starlette(routes=routes)) as url:
            yield f"{url}/rpc"

    @contextlib.asynccontextmanager
    async def reader(self) -> AsyncIterator[Node]:
        """Yield what reads it at noon."""
        async with (
            self.serve() as url,
            contextlib.aclosing(Node(url, timeout=PATIENCE, clock=lambda: NOON)) as node,
        ):
            yield node

    async def page(self, **more: Any) -> Page:
        """Return the page of an exporter at noon that asks nobody but this node."""
        async with self.serve() as url, Exporter(settings(url, **more), clock=Clock()) as exporter:
            return await page_of(exporter)


def settings(url: str, **more: Any) -> Settings:
    """Return the settings of an exporter with no other collector."""
    on = {collector.name: collector.name == "chain" for collector in COLLECTORS}
    return make_settings(api_url=url, chain_url=url, api_timeout=PATIENCE, collectors=on, **more)
