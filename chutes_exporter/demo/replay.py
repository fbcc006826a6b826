"""The recorded day as an API over HTTP, with faults."""

from __future__ import annotations

import asyncio
import email.utils
import math
import re
import time
from collections import deque
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from cachetools import LRUCache
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chutes_exporter.api.decoding import StreamShape
from chutes_exporter.api.keys import verify_headers
from chutes_exporter.chain.node import CHAIN
from chutes_exporter.config import Address
from chutes_exporter.demo import chain
from chutes_exporter.demo.day import Day
from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.feeds import definitions as e
from chutes_exporter.web.server import bound_address, open_socket, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from starlette.requests import Request

    from chutes_exporter.api.endpoint import Endpoint

_TIME: Final = re.compile(r'"(\d{4}-\d\d-\d\d)([T ])(\d\d:\d\d:\d\d)((?:\.\d+)?(?:Z|[+-][\d:]+)?)"')
_UNIX_TIME: Final = re.compile(r'("created_at":)(\d{10}(?:\.\d+)?)(?=[,}])')
_OLDEST_MOVED: Final = 40 * DAY
"""Some rules of the service begin on a fixed day. Times that are older than this do not move."""
_RECORDED_AS: Final = {"chute": "chutes", "miner_gpus": "held_gpus"}
"""Answers that are a part of a recorded one, with its name."""
_MINER_OF_JOB: Final = ("miner_uid", "miner_hotkey", "miner_coldkey", "instance_id")


@dataclass(frozen=True)
class Fault:
    """A fault of an endpoint: seconds of latency, or another status, headers or body.

    Attributes:
        cut_after: Close the connection after this many bytes of the body.
        once: Whether the fault ends after one request.
    """

    latency: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    once: bool = False


class ReceivedRequest(NamedTuple):
    """A request, with the endpoint's name."""

    endpoint: str
    hotkey: str | None
    signed: bool
    query: dict[str, str]


class Replay(AsyncExitStack):
    """A recorded day as an API on a socket, by default a free port of this machine.

    It is an asynchronous context manager. All times of the answers are moved by the same whole
    seconds, so that the moment ``at`` is now. After the day, answers stay as they are.

    Attributes:
        day: The recording.
        clock: The service's clock, which returns the Unix time in seconds.
        url: Its base address.
        chain_url: The address of its node of the chain.
        faults: Faults by endpoint name. Change them at any time.
        edits: Functions that change the JSON of an answer before it is sent, by endpoint name. They
            return the answer, and may change the one that they get. ``stats_per_chute`` is a name
            of its own. An edit of ``chutes`` also changes ``chute``, and one of ``held_gpus``
            ``miner_gpus``.
        requests: The newest requests, oldest first, also those that wait for their answer.
    """

    def __init__(
        self,
        day: Day | None = None,
        *,
        at: float = 22 * HOUR,
        clock: Callable[[], float] = time.time,
        listen: Address | None = None,
    ) -> None:
        """Open the socket.

        Args:
            day: The recording, by default the one of this package.
            at: The moment of the day that is now, in seconds since its first snapshot.
            clock: Returns the Unix time in seconds.
            listen: The address.

        Raises:
            ConfigError: The address cannot be used.
        """
        super().__init__()
        self.day = day or Day()
        self.clock = clock
        # Rounded down, so that the moment is never before a snapshot that begins at ``at``.
        self._shift = math.floor(clock() - at - self.day.first)
        self.faults: dict[str, Fault] = {}
        self.edits: dict[str, Callable[[Any], Any]] = {}
        self.requests: deque[ReceivedRequest] = deque(maxlen=10_000)
        self._released_jobs: set[str] = set()
        # The blocks that the node still knows, by the time of a call. To read the chain takes
        # several calls.
        self._blocks: LRUCache[float, chain.Block] = LRUCache(16)
        self._stops = asyncio.Event()
        # An error about the address names this flag, with which it is chosen.
        self._socket = open_socket(listen or Address("127.0.0.1", 0), "--demo.listen-address")
        # Without a host, the socket listens on all addresses, and the URL names one of them.
        address = bound_address(self._socket)
        self.url = f"http://{Address(address.host or '127.0.0.1', address.port)}"
        self.chain_url = f"{self.url}/chain"
        routes = []
        for endpoint in (*e.ENDPOINTS, CHAIN):
            # MINER_GPUS and PLATFORM_GPUS have the path of HELD_GPUS. `_answer` tells the three
            # apart by their query.
            if endpoint not in (e.MINER_GPUS, e.PLATFORM_GPUS):
                # The node of the chain has no path of its own.
                path, answer = endpoint.path or "/chain", partial(self._answer, endpoint)
                routes.append(Route(path, answer, methods=[endpoint.method]))
        self.app = Starlette(routes=routes)

    async def __aenter__(self) -> Self:
        # Responses have the date of the service's clock.
        await self.enter_async_context(serving(self.app, [self._socket]))
        # At the end, a request that a fault delays does not delay the stop.
        self.callback(self._stops.set)
        return self

    def moment(self) -> float:
        """Return the seconds since the first snapshot. They stand still at the end of the day."""
        return min(self.clock() - self.day.first - self._shift, self.day.last)

    async def _answer(self, endpoint: Endpoint[Any], request: Request) -> Response:
        """Note and answer a request to an endpoint, and apply its fault."""
        query, headers = dict(request.query_params), request.headers
        if endpoint is e.HELD_GPUS and "hotkey" in query:
            endpoint = e.MINER_GPUS
        elif endpoint is e.HELD_GPUS and "detailed" not in query:
            endpoint = e.PLATFORM_GPUS
        name, hotkey = endpoint.name, headers.get("x-chutes-hotkey")
        is_signed = "x-chutes-signature" in headers
        self.requests.append(ReceivedRequest(name, hotkey, is_signed, query))
        fault = self.faults.get(name, Fault())
        if fault.once:
            del self.faults[name]
        if fault.latency:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stops.wait(), fault.latency)
        try:
            response = await self._respond(request, endpoint, fault)
        except HTTPException as error:
            response = JSONResponse({"detail": error.detail}, status_code=error.status_code)
        response.headers.update(fault.headers)
        response.headers["date"] = email.utils.formatdate(self.clock(), usegmt=True)
        if fault.cut_after is not None:
            # The headers keep the length of the whole body, so the server closes the connection.
            response.body = response.body[: fault.cut_after]
        return response

    async def _respond(self, request: Request, endpoint: Endpoint[Any], fault: Fault) -> Response:
        """Return the answer of the recording, or of the fault.

        An HTTPException is an answer with its status.
        """
        if fault.body is not None:
            return Response(fault.body, fault.status or 200)
        if fault.status is not None:
            raise HTTPException(fault.status, "injected fault")
        if endpoint is CHAIN:
            return JSONResponse(self._reply_of_node(await request.json()))
        hotkey = self._authenticate(request, endpoint) if endpoint.signed else ""
        if endpoint is e.RELEASE_JOB:
            return self._release_job(request.path_params["job_id"], hotkey)
        answer = self._recorded(endpoint, {**request.path_params, **request.query_params}, hotkey)
        body = self._moved(msgspec.json.encode(answer))
        if isinstance(endpoint.shape, StreamShape):
            records = msgspec.json.decode(body, type=list[msgspec.Raw])
            body = b"".join(b"data: %s\n\n" % bytes(record) for record in records)
            if not records and "explicit_null" in request.query_params:
                body = b"data: NO_ITEMS\n\n"
        return Response(body, media_type="application/json")

    def _recorded(self, endpoint: Endpoint[Any], asked: Mapping[str, str], hotkey: str) -> Any:
        """Return the recorded answer to a request with these values in its path and its query.

        An HTTPException means that there is none.
        """
        name = endpoint.name
        if endpoint is e.STATS and asked.get("per_chute") == "true":
            name = "stats_per_chute"
        recorded_name = _RECORDED_AS.get(name, name)
        part = asked.get("server_id") or asked.get("path", "")
        miner = hotkey or asked.get("hotkey", "")
        answer = self.day.answer(recorded_name, self.moment(), miner, part)
        if answer is None:
            raise HTTPException(404, "Not Found")
        if endpoint is e.JOBS:
            answer = self._jobs()
        elif endpoint is e.STATS:
            answer = _with_compute_units(answer)
        answer = _part_of(self._edited(recorded_name, answer), endpoint, asked)
        return answer if name == recorded_name else self._edited(name, answer)

    def _edited(self, name: str, answer: Any) -> Any:
        if name not in self.edits:
            return answer
        copy = msgspec.json.decode(msgspec.json.encode(answer))
        return self.edits[name](copy)

    def _moved(self, body: bytes) -> bytes:
        """Return the JSON of an answer with its times moved."""
        shift = timedelta(seconds=self._shift)
        oldest = self.day.first - _OLDEST_MOVED

        def move_time(found: re.Match[str]) -> str:
            moment = datetime.fromisoformat(f"{found[1]}T{found[3]}").replace(tzinfo=UTC)
            if moment.timestamp() < oldest:
                return found[0]
            moment += shift
            return f'"{moment:%Y-%m-%d}{found[2]}{moment:%H:%M:%S}{found[4]}"'

        def move_unix_time(found: re.Match[str]) -> str:
            return f"{found[1]}{float(found[2]) + self._shift:.6f}"

        return _UNIX_TIME.sub(move_unix_time, _TIME.sub(move_time, body.decode())).encode()

    def _jobs(self) -> list[dict[str, Any]]:
        """Return all jobs. One that was released waits for a miner."""
        jobs = self.day.answer("jobs", self.moment()) or []
        nobody = dict.fromkeys(_MINER_OF_JOB)
        return [job | nobody if job["job_id"] in self._released_jobs else job for job in jobs]

    def _release_job(self, job_id: str, hotkey: str) -> Response:
        """Release an unfinished job of the signing miner."""
        for job in self._jobs():
            is_theirs = job["miner_hotkey"] == hotkey and job["finished_at"] is None
            if job["job_id"] == job_id and is_theirs:
                self._released_jobs.add(job_id)
                return JSONResponse(None)
        raise HTTPException(404, f"{job_id=} not found or is not associated with your miner")

    def _reply_of_node(self, call: Mapping[str, Any]) -> Any:
        """Return the node's reply to a call of JSON-RPC, and remember its newest block."""
        now = self.clock()
        if now not in self._blocks:
            seats = self.day.answer("metagraph", self.moment()) or ()
            self._blocks[now] = chain.block_at(now, self.day.first + self._shift, seats)
        known = {block.hash: block for block in self._blocks.values()}
        reply = chain.respond(call, self._blocks[now], known)
        return self._edited(CHAIN.name, reply)

    def _authenticate(self, request: Request, endpoint: Endpoint[Any]) -> str:
        """Return the hotkey that signed, or raise HTTPException.

        The checks and their order are the service's.
        """
        hotkey = request.headers.get("x-chutes-hotkey", "")
        nonce = request.headers.get("x-chutes-nonce", "")
        signature = request.headers.get("x-chutes-signature", "")
        # The nonce is the Unix time of the request.
        if not nonce.isdigit() or abs(self.clock() - int(nonce)) >= 10 * MINUTE:
            raise HTTPException(401, "Invalid nonce!")
        if not verify_headers(hotkey, nonce, signature, endpoint.purpose):
            message = f"{hotkey}:{nonce}:{endpoint.purpose}"
            raise HTTPException(
                401, f"Invalid request signature for hotkey {hotkey}. Message: {message}"
            )
        if hotkey not in {key.address for key in self.day.miners.values()}:
            raise HTTPException(401, "Hotkey is not registered on netuid 64")
        return hotkey


def _with_compute_units(windows: Any) -> Any:
    """Return stats with the records that the service sends under two names, of which the recording
    has one.
    """
    return {
        window: stats | {"compute_units": stats["instance_stats"]}
        for window, stats in windows.items()
    }


def _part_of(answer: Any, endpoint: Endpoint[Any], asked: Mapping[str, str]) -> Any:
    """Return the part of a recorded answer that a request asks for, or raise HTTPException."""
    if endpoint is e.STATS and "miner_hotkey" in asked:
        return _stats_of_miner(answer, asked["miner_hotkey"])
    if endpoint is e.MINER_GPUS:
        miner = asked["hotkey"]
        return {miner: answer[miner]} if miner in answer else {}
    if endpoint is e.CHUTE:
        return _chute(answer, asked["chute_id"], asked["version"])
    return answer


def _stats_of_miner(windows: Any, miner: str) -> Any:
    found: dict[str, dict[str, Any]] = {}
    for window, stats in windows.items():
        found[window] = {}
        for kind, records in stats.items():
            found[window][kind] = [one for one in records if one["miner_hotkey"] == miner]
    return found


def _chute(chutes: Any, chute_id: str, version: str) -> Any:
    for chute in chutes:
        if (chute["chute_id"], chute["version"]) == (chute_id, version):
            return chute
    raise HTTPException(404, "Not Found")
