"""The simulated API over HTTP, with faults."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections import Counter, deque
from contextlib import AsyncExitStack
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chutes_exporter.api.decoding import StreamShape
from chutes_exporter.api.endpoints import ENDPOINTS, HELD_GPUS, MINER_GPUS, PLATFORM_GPUS, Endpoint
from chutes_exporter.api.keys import verify_headers
from chutes_exporter.chain.node import CHAIN
from chutes_exporter.config import Address
from chutes_exporter.demo.chain import Block, respond
from chutes_exporter.demo.replay import CutResponse, Fault, ReceivedRequest, endpoint_of_gpus
from chutes_exporter.duration import MINUTE
from chutes_exporter.simulator import answers, chain
from chutes_exporter.simulator.world import World
from chutes_exporter.web.server import bound_address, open_socket, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from starlette.requests import Request

    from chutes_exporter.simulator.world import Miner


class Simulator(AsyncExitStack):
    """A simulated API on a socket, by default a free port of this machine.

    It is an asynchronous context manager.

    Attributes:
        clock: The service's clock: Unix time in seconds.
        url: Its base address.
        chain_url: The address of its node of the chain.
        faults: Faults by endpoint name. Change them at any time.
        requests: The newest requests, oldest first.
        in_flight: Number of unanswered requests to each endpoint.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        clock: Callable[[], float] = time.time,
        listen: Address | None = None,
    ) -> None:
        super().__init__()
        self.world = world or World(start=clock())
        self.clock = clock
        self.faults: dict[str, Fault] = {}
        self.requests: deque[ReceivedRequest] = deque(maxlen=10_000)
        self.in_flight: Counter[str] = Counter()
        # An error about the address names this flag, with which it is chosen.
        self._socket = open_socket(listen or Address("127.0.0.1", 0), "--simulator.listen-address")
        # Without a host, the socket listens on all addresses, and the URL names one of them.
        address = bound_address(self._socket)
        self.url = f"http://{Address(address.host or '127.0.0.1', address.port)}"
        self.chain_url = f"{self.url}/chain"
        # The blocks that the node still knows, by hash.
        self._blocks: LRUCache[str, Block] = LRUCache(16)
        self.app = Starlette(routes=self._routes())

    async def __aenter__(self) -> Self:
        # Responses have the date of the simulated clock. The short grace period ends requests
        # delayed by a fault.
        await self.enter_async_context(
            serving(self.app, [self._socket], date_header=False, grace=1)
        )
        return self

    def _routes(self) -> list[Route]:
        routes = []
        for endpoint in (*ENDPOINTS, CHAIN):
            # MINER_GPUS and PLATFORM_GPUS have the path of HELD_GPUS. `_answer` tells the three
            # apart by their query.
            if endpoint not in (MINER_GPUS, PLATFORM_GPUS):
                # The node of the chain has no path of its own.
                path = endpoint.path or "/chain"
                answer = partial(self._answer, endpoint)
                routes.append(Route(path, answer, methods=[endpoint.method]))
        return routes

    async def _answer(self, endpoint: Endpoint[Any], request: Request) -> Response:
        """Answer and note a request to an endpoint, and apply its fault."""
        query, headers = request.query_params, request.headers
        if endpoint is HELD_GPUS:
            endpoint = endpoint_of_gpus(query)
        self.in_flight[endpoint.name] += 1
        fault = self.faults.get(endpoint.name, Fault())
        if fault.once:
            del self.faults[endpoint.name]
        try:
            await asyncio.sleep(fault.latency)
            response = await self._respond(request, endpoint, fault)
        except asyncio.CancelledError:
            # The server stops or the client disconnected, so nobody reads this answer.
            return Response(status_code=503)
        except HTTPException as error:
            response = JSONResponse({"detail": error.detail}, status_code=error.status_code)
        finally:
            self.in_flight[endpoint.name] -= 1
        received = ReceivedRequest(
            endpoint=endpoint.name,
            hotkey=headers.get("x-chutes-hotkey"),
            signed="x-chutes-signature" in headers,
            status=response.status_code,
            query=dict(query),
        )
        self.requests.append(received)
        response.headers.update(fault.headers)
        response.headers["date"] = email.utils.formatdate(self.clock(), usegmt=True)
        if fault.cut_after is None:
            return response
        return CutResponse(response, fault.cut_after)

    async def _respond(self, request: Request, endpoint: Endpoint[Any], fault: Fault) -> Response:
        """Return the answer of the world, or of the fault.

        An HTTPException is an answer with its status.
        """
        if fault.body is not None:
            return Response(fault.body, fault.status or 200)
        if fault.status is not None:
            raise HTTPException(fault.status, "simulated fault")
        now = self.clock()
        signer: Any = None
        if endpoint.signed:
            signer = self._authenticate(request, endpoint, now)
        self.world.grow(now)
        if endpoint is CHAIN:
            return JSONResponse(self._reply_of_node(await request.json(), now))
        call = answers.Call(self.world, now, signer, request.path_params, request.query_params)
        # The function of an endpoint has its name.
        answer = getattr(answers, endpoint.name)(call)
        if isinstance(endpoint.shape, StreamShape):
            row_kind = endpoint.shape.kind
            rows = [answers.completed(row_kind, row) for row in islice(answer, fault.records)]
            # A stream that a query has ended early does not say that it is complete.
            is_whole = fault.records is None
            wants_null = request.query_params.get("explicit_null") == "true"
            return _stream(rows, explicit_null=wants_null and is_whole)
        kind = endpoint.shape.kind if endpoint.shape else None
        return JSONResponse(answers.completed(kind, answer))

    def _reply_of_node(self, call: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Return the node's reply to a call of JSON-RPC, and remember its newest block."""
        block = chain.make_block(self.world.start, self.world.seats(now), now)
        self._blocks[block.hash] = block
        return respond(call, block, self._blocks)

    def _authenticate(self, request: Request, endpoint: Endpoint[Any], now: float) -> Miner:
        """Return the miner that signed, or raise HTTPException.

        The checks and their order are the service's.
        """
        hotkey = request.headers.get("x-chutes-hotkey", "")
        nonce = request.headers.get("x-chutes-nonce", "")
        signature = request.headers.get("x-chutes-signature", "")
        # The nonce is the Unix time of the request.
        if not nonce.isdigit() or abs(now - int(nonce)) >= 10 * MINUTE:
            raise HTTPException(401, "Invalid nonce!")
        if not verify_headers(hotkey, nonce, signature, endpoint.purpose):
            message = f"{hotkey}:{nonce}:{endpoint.purpose}"
            raise HTTPException(
                401, f"Invalid request signature for hotkey {hotkey}. Message: {message}"
            )
        if hotkey not in self.world.by_hotkey:
            raise HTTPException(401, "Hotkey is not registered on netuid 64")
        return self.world.by_hotkey[hotkey]


def _stream(rows: list[answers.Json], *, explicit_null: bool) -> Response:
    """Return a stream of rows. With ``explicit_null``, an empty one says that it is complete."""
    events = [f"data: {json.dumps(row)}\n\n" for row in rows]
    if not events and explicit_null:
        events = ["data: NO_ITEMS\n\n"]
    return Response("".join(events))
