"""The simulated API's endpoints, over HTTP."""

from __future__ import annotations

import asyncio
import email.utils
import json
from collections import Counter, deque
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from chutes_exporter.api.endpoints import ENDPOINTS, HELD_GPUS, MINER_GPUS, ON_REQUEST, Endpoint
from chutes_exporter.api.keys import HotkeyError, public_key, verify_headers
from chutes_exporter.simulator import answers
from chutes_exporter.simulator.faults import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import Final

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from chutes_exporter.simulator.answers import Row
    from chutes_exporter.simulator.world import Miner, World

_NONCE_TOLERANCE: Final = 600
_CHUNK: Final = 32 * 1024
_MAX_REQUESTS: Final = 10_000
_NO_FAULT: Final = Fault()
_BOOLS: Final = dict.fromkeys(("true", "1", "on", "t", "y", "yes"), True) | dict.fromkeys(
    ("false", "0", "off", "f", "n", "no"), False
)


@dataclass(frozen=True)
class ReceivedRequest:
    """A request to the simulator.

    Attributes:
        endpoint: The endpoint's name.
        query: Its query parameters.
        hotkey: ``X-Chutes-Hotkey``, or None.
        signed: Whether it has a signature.
        status: The status of the response.
    """

    endpoint: str
    query: dict[str, str]
    hotkey: str | None
    signed: bool
    status: int


@dataclass(frozen=True)
class _Call:
    """An accepted request.

    Attributes:
        now: Unix time of the service's clock.
        signer: The miner that signed it. Unused by endpoints without signature.
        fault: The fault of the answer.
    """

    request: Request
    now: float
    signer: Miner
    fault: Fault

    @property
    def cached_at(self) -> float:
        """The time of the service's cached data: now, unless the refresh has stopped."""
        return self.now if self.fault.as_of is None else min(self.now, self.fault.as_of)


class SimulatedApi:
    """The API of a world.

    Args:
        world: The simulated world.
        clock: The service's clock: Unix time in seconds.

    Attributes:
        faults: Faults by endpoint name. Change them at any time.
        requests: The newest requests.
        max_concurrent: The highest number of concurrent requests to each endpoint.
    """

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self.world = world
        self.clock = clock
        self.faults: dict[str, Fault] = {}
        self.max_concurrent: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self.requests: deque[ReceivedRequest] = deque(maxlen=_MAX_REQUESTS)
        self.app = Starlette(
            routes=[
                Route(endpoint.path, self._route(endpoint), methods=[endpoint.method])
                for endpoint in (*ENDPOINTS, *ON_REQUEST)
                # Its path is that of another endpoint.
                if endpoint is not MINER_GPUS
            ],
        )

    def _route(self, endpoint: Endpoint[Any]) -> Callable[[Request], Any]:
        answer: Callable[[_Call], Response] = getattr(self, f"_{endpoint.name}")

        async def route(request: Request) -> Response:
            is_of_miner = endpoint is HELD_GPUS and "hotkey" in request.query_params
            name = MINER_GPUS.name if is_of_miner else endpoint.name
            self._in_flight[name] += 1
            self.max_concurrent[name] = max(self.max_concurrent[name], self._in_flight[name])
            try:
                return await respond(request, name)
            finally:
                self._in_flight[name] -= 1

        async def respond(request: Request, name: str) -> Response:
            fault = self._take_fault(name)
            if fault.latency:
                try:
                    await asyncio.sleep(fault.latency)
                except asyncio.CancelledError:
                    # The server stops or the client disconnected, so nobody reads this answer.
                    return Response(status_code=503)
            response: Response
            if fault.status is not None:
                detail = {"detail": "simulated fault"}
                response = (
                    JSONResponse(detail, fault.status) if fault.body is None else Response(fault.body, fault.status)
                )
            elif fault.body is not None:
                response = Response(fault.body)
            else:
                try:
                    signer: Any = self._authenticate(request, endpoint) if endpoint.signed else None
                    response = answer(_Call(request, self.clock(), signer, fault))
                except HTTPException as error:
                    response = JSONResponse({"detail": error.detail}, status_code=error.status_code)
            response.headers.update(fault.headers)
            if fault.cut_after is not None:
                response = _CutResponse(response, fault.cut_after)
            response.headers["date"] = email.utils.formatdate(self.clock(), usegmt=True)
            self.requests.append(
                ReceivedRequest(
                    name,
                    dict(request.query_params),
                    request.headers.get("x-chutes-hotkey"),
                    "x-chutes-signature" in request.headers,
                    response.status_code,
                )
            )
            return response

        return route

    def _take_fault(self, name: str) -> Fault:
        fault = self.faults.get(name, _NO_FAULT)
        if fault.times is not None:
            if fault.times <= 1:
                del self.faults[name]
            else:
                self.faults[name] = replace(fault, times=fault.times - 1)
        return fault

    def _authenticate(self, request: Request, endpoint: Endpoint[Any]) -> Miner:
        """Check a signature like the service: form, clock, signature, registration."""
        hotkey, nonce, signature = (
            request.headers.get(f"x-chutes-{name}", "") for name in ("hotkey", "nonce", "signature")
        )
        if not (hotkey and nonce and signature):
            # The endpoints of servers look at the time first.
            raise HTTPException(401, "Invalid BT Auth." if endpoint.purpose == "miner" else "Invalid nonce!")
        if not nonce.isdigit() or abs(self.clock() - int(nonce)) >= _NONCE_TOLERANCE:
            raise HTTPException(401, "Invalid nonce!")
        try:
            bytes.fromhex(signature)
        except ValueError as error:
            raise HTTPException(401, f"Invalid signature: {signature}, with error: {error}") from None
        if not verify_headers(hotkey, nonce, signature, endpoint.purpose):
            message = f"{hotkey}:{nonce}:{endpoint.purpose}"
            raise HTTPException(401, f"Invalid request signature for hotkey {hotkey}. Message: {message}")
        miner = self.world.by_hotkey.get(hotkey)
        if miner is None:
            raise HTTPException(401, "Hotkey is not registered on netuid 64")
        return miner

    def _chutes(self, call: _Call) -> Response:
        bounties = not call.fault.redis_down
        return _stream(
            call, (answers.chute_row(self.world, chute, call.now, bounties=bounties) for chute in self.world.chutes)
        )

    def _chute(self, call: _Call) -> Response:
        chute_id, version = (call.request.path_params[name] for name in ("chute_id", "version"))
        for chute in self.world.chutes:
            if chute.chute_id == chute_id and chute.version(call.now) == version:
                bounties = not call.fault.redis_down
                return JSONResponse(answers.chute_row(self.world, chute, call.now, bounties=bounties))
        raise HTTPException(404, f"{chute_id=} not found")

    def _images(self, call: _Call) -> Response:
        return _stream(call, answers.image_rows(self.world.start, call.now))

    def _nodes(self, call: _Call) -> Response:
        miner = call.signer
        return _stream(
            call,
            (answers.node_row(miner, server, gpu) for server in miner.servers for gpu in server.gpus),
        )

    def _servers(self, call: _Call) -> Response:
        return JSONResponse({"servers": [answers.server_row(server, call.now) for server in call.signer.servers]})

    def _instances(self, call: _Call) -> Response:
        none = "NO_ITEMS" if call.request.query_params.get("explicit_null") == "true" else None
        return _stream(call, answers.instance_rows(self.world, call.signer, call.now), none=none)

    def _jobs(self, call: _Call) -> Response:
        return _stream(call, map(answers.job_row, self.world.jobs(call.now)))

    def _release_job(self, call: _Call) -> Response:
        job_id = call.request.path_params["job_id"]
        job = self.world.release_job(job_id, call.signer.hotkey, call.now)
        if job is None:
            raise HTTPException(404, f"{job_id=} not found or is not associated with your miner")
        if job.chute_id != job.chute.chute_id:
            # The service fails because the chute is gone, but only after it has released the job.
            return PlainTextResponse("Internal Server Error", 500)
        return JSONResponse(None)

    def _inventory(self, call: _Call) -> Response:
        return JSONResponse(answers.inventory(self.world, call.signer, call.now))

    def _metrics(self, call: _Call) -> Response:
        return _stream(call, answers.metrics_rows(self.world, call.now, zeros=call.fault.zeros))

    def _active_instances(self, call: _Call) -> Response:
        return JSONResponse(answers.active_instances(self.world, call.now))

    def _stats(self, call: _Call) -> Response:
        hotkey = call.request.query_params.get("miner_hotkey")
        text = call.request.query_params.get("per_chute", "false")
        per_chute = _BOOLS.get(text.lower())
        if per_chute is None:
            message = "Input should be a valid boolean, unable to interpret input"
            error = {"type": "bool_parsing", "loc": ["query", "per_chute"], "msg": message, "input": text}
            return JSONResponse({"detail": [error]}, 422)
        if call.fault.redis_down and hotkey is not None:
            try:
                public_key(hotkey)
            except HotkeyError:
                raise HTTPException(400, "Invalid hotkey parameter.") from None
        return JSONResponse(
            {
                window: answers.stats_window(
                    self.world.work(
                        call.cached_at, seconds, hotkey=hotkey, per_chute=per_chute, cached=not call.fault.redis_down
                    ),
                    per_chute=per_chute,
                )
                for window, seconds in answers.WINDOWS
            }
        )

    def _scores(self, call: _Call) -> Response:
        if call.fault.redis_down:
            raise HTTPException(503, "Waiting for cache to populate.")
        return JSONResponse(answers.scores(self.world, call.cached_at, call.request.query_params.get("hotkey")))

    def _unique_chute_history(self, call: _Call) -> Response:
        hotkey = call.request.path_params["hotkey"]
        if hotkey not in self.world.by_hotkey:
            raise HTTPException(404, f"Miner {hotkey} not found in metagraph.")
        hours = None if call.fault.redis_down else self.world.history(hotkey, call.cached_at)
        if hours is None:
            raise HTTPException(404, f"Miner {hotkey} not found in unique history cache (yet)")
        return JSONResponse([answers.history_row(*hour) for hour in hours])

    def _thrash_cooldowns(self, _call: _Call) -> Response:
        # The service removed the rule in May 2026.
        return JSONResponse([])

    def _compute_history(self, call: _Call) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            chunk = bytearray(b"instance_id,compute_multiplier,started_at,ended_at\r\n")
            for row in answers.compute_history_rows(self.world, call.now):
                chunk += ",".join(row).encode() + b"\r\n"
                if len(chunk) >= _CHUNK:
                    yield bytes(chunk)
                    chunk.clear()
                    await asyncio.sleep(0)
            yield bytes(chunk)

        return StreamingResponse(lines(), media_type="text/csv")

    def _metagraph(self, call: _Call) -> Response:
        return JSONResponse(answers.metagraph(self.world, call.now))

    def _utilization(self, call: _Call) -> Response:
        rows = answers.utilization(self.world, call.now, call.cached_at, known=not call.fault.zeros)
        return JSONResponse(list(rows))

    def _bounties(self, call: _Call) -> Response:
        return JSONResponse([] if call.fault.redis_down else answers.bounties(self.world, call.now))

    def _rolling_updates(self, call: _Call) -> Response:
        return JSONResponse(answers.rolling_updates(self.world, call.now))

    def _maintenance(self, call: _Call) -> Response:
        return JSONResponse(answers.maintenance(self.world, call.signer, call.now))

    def _tee_measurements(self, call: _Call) -> Response:
        return JSONResponse(answers.tee_measurements(self.world, call.now))

    def _supported_gpus(self, _call: _Call) -> Response:
        return JSONResponse(answers.supported_gpus())

    def _held_gpus(self, call: _Call) -> Response:
        query = call.request.query_params
        if not _BOOLS.get(query.get("detailed", "false").lower()):
            return JSONResponse(answers.nodes(self.world, call.now))
        return JSONResponse(answers.detailed_nodes(self.world, call.now, query.get("hotkey")))


class _CutResponse(Response):
    """Sends the start of another response's body, then closes the connection."""

    def __init__(self, whole: Response, size: int) -> None:
        super().__init__(status_code=whole.status_code)
        self._whole = whole
        self._left = size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._whole.headers.update({"date": self.headers["date"]})

        async def send_some(message: Any) -> None:
            if message["type"] == "http.response.start":
                await send(message)
            elif self._left > 0:
                part = message.get("body", b"")[: self._left]
                self._left -= len(part)
                await send({"type": "http.response.body", "body": part, "more_body": True})

        # Without a last part, the server closes the connection in the middle of the body.
        await self._whole(scope, receive, send_some)


def _stream(call: _Call, rows: Iterable[Row], *, none: str | None = None) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        chunk = bytearray()
        empty = True
        for row in islice(rows, call.fault.records):
            empty = False
            chunk += b"data: " + json.dumps(row, separators=(",", ":")).encode() + b"\n\n"
            if len(chunk) >= _CHUNK:
                yield bytes(chunk)
                chunk.clear()
                await asyncio.sleep(0)
        if empty and none is not None and call.fault.records is None:
            chunk += f"data: {none}\n\n".encode()
        if chunk:
            yield bytes(chunk)

    return StreamingResponse(lines())
