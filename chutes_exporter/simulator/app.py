"""The simulated API over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import time
from collections import Counter, deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from chutes_exporter.api.endpoints import ENDPOINTS, HELD_GPUS, MINER_GPUS, PLATFORM_GPUS, Endpoint
from chutes_exporter.api.keys import verify_headers
from chutes_exporter.config import Address
from chutes_exporter.simulator import answers
from chutes_exporter.simulator.faults import Fault
from chutes_exporter.simulator.world import World
from chutes_exporter.web.server import bound_address, open_socket, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import Self

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from chutes_exporter.simulator.world import Miner, Server

_NONCE_TOLERANCE: Final = 600
_CHUNK: Final = 32 * 1024
_MAX_REQUESTS: Final = 10_000


@dataclass(frozen=True)
class ReceivedRequest:
    """A request to the simulator, with the endpoint's name and the status of the response."""

    endpoint: str
    query: dict[str, str]
    hotkey: str | None
    signed: bool
    status: int


@dataclass(frozen=True)
class _Call:
    """An accepted request at a time of the service's clock. Only endpoints with a signature use the signer."""

    request: Request
    now: float
    signer: Miner

    @property
    def path(self) -> dict[str, str]:
        return self.request.path_params

    def query(self, name: str) -> str | None:
        return self.request.query_params.get(name)


class Simulator:
    """A simulated API on a socket. It is an asynchronous context manager.

    Args:
        world: The simulated world. None makes a new default world.
        clock: The service's clock: Unix time in seconds.
        listen: The address to listen on. None takes a free port of the loopback address.

    Attributes:
        url: Its base address.
        faults: Faults by endpoint name. Change them at any time.
        max_concurrent: The highest number of concurrent requests to each endpoint.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        clock: Callable[[], float] = time.time,
        listen: Address | None = None,
    ) -> None:
        self.world = world = world or World(start=clock())
        self.clock = clock
        self.faults: dict[str, Fault] = {}
        self.max_concurrent: Counter[str] = Counter()
        self._received: deque[ReceivedRequest] = deque(maxlen=_MAX_REQUESTS)
        self._in_flight: Counter[str] = Counter()
        self._socket = open_socket(listen or Address("127.0.0.1", 0), "--simulator.listen-address")
        address = bound_address(self._socket)
        self.url = f"http://{address if address.host else f'127.0.0.1:{address.port}'}"
        self._stack = contextlib.AsyncExitStack()
        self.app = Starlette(
            routes=[
                Route(endpoint.path, self._route(endpoint), methods=[endpoint.method])
                for endpoint in ENDPOINTS
                # Their path is that of another endpoint.
                if endpoint not in (MINER_GPUS, PLATFORM_GPUS)
            ],
        )
        self._streams: dict[str, Callable[[_Call], Iterable[answers.Row]]] = {
            "chutes": lambda call: (answers.chute_row(world, chute, call.now) for chute in world.chutes),
            "images": lambda _: answers.image_rows(world.start),
            "nodes": lambda call: (
                answers.node_row(server, gpu) for server in call.signer.servers for gpu in server.gpus
            ),
            "instances": lambda call: answers.instance_rows(world, call.signer, call.now),
            "jobs": lambda call: map(answers.job_row, world.jobs(call.now)),
            "metrics": lambda call: answers.metrics_rows(world, call.now),
        }
        self._values: dict[str, Callable[[_Call], Any]] = {
            "chute": self._chute,
            "servers": lambda call: {"servers": [answers.server_row(one, call.now) for one in call.signer.servers]},
            "inventory": lambda call: answers.inventory(world, call.signer, call.now),
            "active_instances": lambda call: answers.active_instances(world, call.now),
            "stats": self._stats,
            "scores": lambda call: answers.scores(world, call.now),
            "unique_chute_history": self._history,
            # The service removed the rule in May 2026.
            "thrash_cooldowns": lambda _: [],
            "metagraph": lambda call: answers.metagraph(world, call.now),
            "utilization": lambda call: list(answers.utilization(world, call.now)),
            "bounties": lambda call: answers.bounties(world, call.now),
            "rolling_updates": lambda call: answers.rolling_updates(world, call.now),
            "maintenance": lambda call: answers.maintenance(world, call.signer, call.now),
            "server_maintenance": lambda call: answers.server_maintenance(
                world, call.signer, self._server(call), call.now
            ),
            "server_slot": lambda call: {
                "maintenance_pending_window_id": answers.WINDOW_ID
                if self._server(call).maintenance_pending(call.now)
                else None
            },
            "tee_measurements": lambda _: answers.tee_measurements(),
            "supported_gpus": lambda _: answers.supported_gpus(),
            **dict.fromkeys(
                ("held_gpus", "miner_gpus"),
                lambda call: answers.detailed_nodes(world, call.now, call.query("hotkey")),
            ),
            "platform_gpus": lambda call: answers.nodes(world, call.now),
            "audit": lambda call: answers.audit_list(call.now),
            "audit_report": lambda call: answers.audit_report(world, call.query("path") or ""),
            "release_job": self._release_job,
        }

    async def __aenter__(self) -> Self:
        # Responses have the date of the simulated clock. The short grace period ends requests delayed by a fault.
        await self._stack.enter_async_context(serving(self.app, [self._socket], date_header=False, grace=1))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The newest requests, oldest first."""
        return list(self._received)

    def _route(self, endpoint: Endpoint[Any]) -> Callable[[Request], Any]:
        async def route(request: Request) -> Response:
            asked, query = endpoint, request.query_params
            if endpoint is HELD_GPUS:
                asked = MINER_GPUS if "hotkey" in query else HELD_GPUS if "detailed" in query else PLATFORM_GPUS
            name = asked.name
            self._in_flight[name] += 1
            self.max_concurrent[name] = max(self.max_concurrent[name], self._in_flight[name])
            fault = self._take_fault(name)
            try:
                await asyncio.sleep(fault.latency)
                response = self._respond(request, asked, fault)
            except asyncio.CancelledError:
                # The server stops or the client disconnected, so nobody reads this answer.
                return Response(status_code=503)
            except HTTPException as error:
                response = JSONResponse({"detail": error.detail}, status_code=error.status_code)
            finally:
                self._in_flight[name] -= 1
            response.headers.update({**fault.headers, "date": email.utils.formatdate(self.clock(), usegmt=True)})
            headers = request.headers
            self._received.append(
                ReceivedRequest(
                    name,
                    dict(request.query_params),
                    headers.get("x-chutes-hotkey"),
                    "x-chutes-signature" in headers,
                    response.status_code,
                )
            )
            return response if fault.cut_after is None else _CutResponse(response, fault.cut_after)

        return route

    def _take_fault(self, name: str) -> Fault:
        fault = self.faults.get(name, Fault())
        if fault.once:
            del self.faults[name]
        return fault

    def _respond(self, request: Request, endpoint: Endpoint[Any], fault: Fault) -> Response:
        if fault.body is not None:
            return Response(fault.body, fault.status or 200)
        if fault.status is not None:
            raise HTTPException(fault.status, "simulated fault")
        signer: Any = self._authenticate(request, endpoint) if endpoint.signed else None
        call = _Call(request, self.clock(), signer)
        if endpoint.name in self._streams:
            wants_none = endpoint.name == "instances" and call.query("explicit_null") == "true"
            return _stream(self._streams[endpoint.name](call), fault.records, wants_none=wants_none)
        return JSONResponse(self._values[endpoint.name](call))

    def _authenticate(self, request: Request, endpoint: Endpoint[Any]) -> Miner:
        """Check a signature like the service: form, clock, signature, registration."""
        hotkey, nonce, signature = (
            request.headers.get(f"x-chutes-{name}", "") for name in ("hotkey", "nonce", "signature")
        )
        if not nonce.isdigit() or abs(self.clock() - int(nonce)) >= _NONCE_TOLERANCE:
            raise HTTPException(401, "Invalid nonce!")
        if not verify_headers(hotkey, nonce, signature, endpoint.purpose):
            message = f"{hotkey}:{nonce}:{endpoint.purpose}"
            raise HTTPException(401, f"Invalid request signature for hotkey {hotkey}. Message: {message}")
        miner = self.world.by_hotkey.get(hotkey)
        if miner is None:
            raise HTTPException(401, "Hotkey is not registered on netuid 64")
        return miner

    def _chute(self, call: _Call) -> answers.Row:
        for chute in self.world.chutes:
            if (chute.chute_id, chute.version(call.now)) == (call.path["chute_id"], call.path["version"]):
                return answers.chute_row(self.world, chute, call.now)
        raise HTTPException(404, f"chute_id={call.path['chute_id']!r} not found")

    def _server(self, call: _Call) -> Server:
        for server in call.signer.servers:
            if server.server_id == call.path["server_id"]:
                return server
        raise HTTPException(404, "Server not found")

    def _release_job(self, call: _Call) -> None:
        job_id = call.path["job_id"]
        if not any(
            job.job_id == job_id and job.stuck and job.miner is call.signer for job in self.world.jobs(call.now)
        ):
            raise HTTPException(404, f"{job_id=} not found or is not associated with your miner")
        self.world.released_jobs.add(job_id)

    def _stats(self, call: _Call) -> answers.Row:
        hotkey, per_chute = call.query("miner_hotkey"), call.query("per_chute") == "true"
        return {
            window: answers.stats_window(self.world.work(call.now, seconds, hotkey=hotkey, per_chute=per_chute))
            for window, seconds in answers.WINDOWS
        }

    def _history(self, call: _Call) -> list[answers.Row]:
        hotkey = call.path["hotkey"]
        hours = self.world.history(hotkey, call.now) if hotkey in self.world.by_hotkey else None
        if hours is None:
            raise HTTPException(404, f"Miner {hotkey} not found in unique history cache (yet)")
        return [{"time": answers.iso(time), "count": count, "total_count": total} for time, count, total in hours]


class _CutResponse(Response):
    """Sends the start of another response's body, then closes the connection."""

    def __init__(self, whole: Response, size: int) -> None:
        super().__init__(status_code=whole.status_code)
        self._whole = whole
        self._left = size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_some(message: Any) -> None:
            if message["type"] == "http.response.start":
                await send(message)
            elif self._left > 0:
                part = message.get("body", b"")[: self._left]
                self._left -= len(part)
                await send({"type": "http.response.body", "body": part, "more_body": True})

        # Without a last part, the server closes the connection in the middle of the body.
        await self._whole(scope, receive, send_some)


def _stream(rows: Iterable[answers.Row], limit: int | None, *, wants_none: bool) -> Response:
    lines = (b"data: " + json.dumps(row, separators=(",", ":")).encode() + b"\n\n" for row in islice(rows, limit))
    return StreamingResponse(_chunks(lines, b"data: NO_ITEMS\n\n" if wants_none and limit is None else b""))


async def _chunks(lines: Iterable[bytes], otherwise: bytes = b"") -> AsyncIterator[bytes]:
    """Join lines to chunks, between which other tasks run. Without a line, there is something else."""
    chunk = bytearray()
    for line in lines:
        otherwise = b""
        chunk += line
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
            await asyncio.sleep(0)
    yield bytes(chunk) or otherwise
