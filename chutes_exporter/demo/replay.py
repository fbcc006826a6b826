"""The recorded day as an API over HTTP, with faults."""

from __future__ import annotations

import asyncio
import email.utils
import re
import time
from collections import Counter, deque
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
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
from chutes_exporter.demo.day import open_day
from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.feeds import definitions as e
from chutes_exporter.web.server import bound_address, open_socket, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from chutes_exporter.api.endpoint import Endpoint
    from chutes_exporter.demo.day import Day

_TIME: Final = re.compile(r'"(\d{4}-\d\d-\d\d)([T ])(\d\d:\d\d:\d\d)((?:\.\d+)?(?:Z|[+-][\d:]+)?)"')
_UNIX_TIME: Final = re.compile(r'("created_at":)(\d{10}(?:\.\d+)?)(?=[,}])')
_OLDEST_MOVED: Final = 40 * DAY
"""Some rules of the service begin on a fixed day. Times that are older than this do not move."""


@dataclass(frozen=True)
class Fault:
    """A fault of an endpoint: seconds of latency, or another status, headers or body.

    Attributes:
        cut_after: Close the connection after this many bytes of the body.
        records: End a stream normally after this many records, like a query that fails halfway.
        once: Whether the fault ends after one request.
    """

    latency: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    records: int | None = None
    once: bool = False


GARBAGE: Final = b'<html>\x00\xff{"data": [[[[ NaN "'
_KINDS: Final[dict[str, Callable[[str], Fault]]] = {
    "status": lambda value: Fault(status=HTTPStatus(int(value)).value),
    "latency": lambda value: Fault(latency=float(value)),
    "cut": lambda value: Fault(cut_after=int(value)),
    "records": lambda value: Fault(records=int(value)),
    "empty": lambda _: Fault(body=b""),
    "garbage": lambda _: Fault(body=GARBAGE),
}
"""Kinds of faults by name. Each makes a fault of the value after the name, which may be empty."""
_ENDPOINT_NAMES: Final = frozenset(endpoint.name for endpoint in (*e.ENDPOINTS, CHAIN))


def parse_fault(text: str) -> tuple[str, Fault]:
    """Parse ``ENDPOINT=KIND`` or ``ENDPOINT=KIND:VALUE``, or raise ValueError with examples.

    Return the name of the endpoint, and its fault.
    """
    name, _, kind_and_value = text.partition("=")
    kind, _, value = kind_and_value.partition(":")
    # An unknown endpoint has no kinds of faults.
    kinds = _KINDS if name in _ENDPOINT_NAMES else {}
    try:
        return name, kinds[kind](value)
    except (KeyError, ValueError):
        raise ValueError(
            f"{text!r} is invalid: write for example scores=status:503, metrics=latency:5, "
            "chutes=cut:1000, chutes=records:25, metagraph=empty, stats=garbage"
        ) from None


class ReceivedRequest(NamedTuple):
    """A request, with the endpoint's name and the status of the response."""

    endpoint: str
    hotkey: str | None
    signed: bool
    status: int
    query: dict[str, str]


class Replay(AsyncExitStack):
    """A recorded day as an API on a socket, by default a free port of this machine.

    It is an asynchronous context manager. All times of the answers are moved by the same whole
    seconds, so that the moment ``at`` is now. After the day, answers stay as they are.

    Attributes:
        day: The recording.
        clock: The service's clock: Unix time in seconds, ``speed`` times as fast as the given one.
        url: Its base address.
        chain_url: The address of its node of the chain.
        faults: Faults by endpoint name. Change them at any time.
        edits: Functions that change the JSON of an answer before it is sent, by endpoint name. They
            return the answer, and may change the one that they get. ``stats_per_chute`` is a name
            of its own. An edit of ``chutes`` also changes ``chute``, and one of ``held_gpus``
            ``miner_gpus``.
        requests: The newest requests, oldest first.
        in_flight: Number of unanswered requests to each endpoint.
    """

    def __init__(
        self,
        day: Day | None = None,
        *,
        at: float = 22 * HOUR,
        speed: float = 1.0,
        clock: Callable[[], float] = time.time,
        listen: Address | None = None,
    ) -> None:
        """Open the socket.

        Args:
            day: The recording, by default the one of this package.
            at: The moment of the day that is now, in seconds since its first snapshot.
            speed: How many seconds of the day pass in a second.
            clock: Returns the Unix time in seconds.
            listen: The address.

        Raises:
            DayError: The recording cannot be used.
            ConfigError: The address cannot be used.
        """
        super().__init__()
        self.day = day or open_day()
        started = clock()
        self._shift = round(started - at - self.day.first)
        start = self.day.first + self._shift + at
        self.clock: Callable[[], float] = lambda: start + speed * (clock() - started)
        self.faults: dict[str, Fault] = {}
        self.edits: dict[str, Callable[[Any], Any]] = {}
        self.requests: deque[ReceivedRequest] = deque(maxlen=10_000)
        self.in_flight: Counter[str] = Counter()
        # Jobs by id, as they are since their release.
        self._released: dict[str, dict[str, Any]] = {}
        # What was sent last to a miner at an address, with the recorded answer that it is made of.
        self._sent: LRUCache[tuple[str, str], tuple[Any, bytes]] = LRUCache(256)
        # The blocks that the node still knows, by hash, and the number of the newest one.
        self._blocks: LRUCache[str, chain.Block] = LRUCache(16)
        # The newest one by the time of the last call: to read the chain takes several calls.
        self._heads: dict[float, chain.Block] = {}
        # An error about the address names this flag, with which it is chosen.
        self._socket = open_socket(listen or Address("127.0.0.1", 0), "--demo.listen-address")
        # Without a host, the socket listens on all addresses, and the URL names one of them.
        address = bound_address(self._socket)
        self.url = f"http://{Address(address.host or '127.0.0.1', address.port)}"
        self.chain_url = f"{self.url}/chain"
        self.app = Starlette(routes=self._routes())

    async def __aenter__(self) -> Self:
        # Responses have the date of the service's clock. The short grace period ends requests
        # delayed by a fault.
        await self.enter_async_context(serving(self.app, [self._socket], grace=1))
        return self

    def moment(self) -> float:
        """Return the seconds since the first snapshot. They stand still at the end of the day."""
        return min(self.clock() - self.day.first - self._shift, self.day.last)

    def _routes(self) -> list[Route]:
        routes = []
        for endpoint in (*e.ENDPOINTS, CHAIN):
            # MINER_GPUS and PLATFORM_GPUS have the path of HELD_GPUS. `_answer` tells the three
            # apart by their query.
            if endpoint not in (e.MINER_GPUS, e.PLATFORM_GPUS):
                # The node of the chain has no path of its own.
                path = endpoint.path or "/chain"
                answer = partial(self._answer, endpoint)
                routes.append(Route(path, answer, methods=[endpoint.method]))
        return routes

    async def _answer(self, endpoint: Endpoint[Any], request: Request) -> Response:
        """Answer and note a request to an endpoint, and apply its fault."""
        query, headers = request.query_params, request.headers
        if endpoint is e.HELD_GPUS:
            endpoint = _endpoint_of_gpus(query)
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
        return _CutResponse(response, fault.cut_after)

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
        body = self._body(request, endpoint, hotkey)
        if isinstance(endpoint.shape, StreamShape):
            wants_end = request.query_params.get("explicit_null") == "true"
            body = _stream(body, fault.records, wants_end=wants_end)
        return Response(body, media_type="application/json")

    def _body(self, request: Request, endpoint: Endpoint[Any], hotkey: str) -> bytes:
        """Return the JSON of an answer with its times moved, or raise HTTPException."""
        query, ids = request.query_params, request.path_params
        name = endpoint.name
        if endpoint is e.STATS and query.get("per_chute") == "true":
            name = "stats_per_chute"
        recorded_name = _MADE_OF.get(name, name)
        miner = hotkey or ids.get("hotkey", "")
        part = ids.get("server_id") or query.get("path", "")
        recorded = self.day.answer(recorded_name, self.moment(), miner, part)
        if recorded is None:
            raise HTTPException(404, "Not Found")
        asked = (hotkey, str(request.url))
        made_of, body = self._sent.get(asked, (None, b""))
        if made_of is recorded and not self.edits:
            return body
        answer = self._edited(recorded_name, self._completed(recorded_name, recorded))
        if name in _PARTS:
            answer = _PARTS[name](answer, {**ids, **query})
        if name != recorded_name:
            answer = self._edited(name, answer)
        body = self._moved(msgspec.json.encode(answer))
        if not self.edits:
            self._sent[asked] = (recorded, body)
        return body

    def _completed(self, name: str, recorded: Any) -> Any:
        """Return a recorded answer with what the recording leaves out, and with released jobs."""
        if name in _STATS:
            # The service sends these records under two names.
            windows = recorded.items()
            return {name: one | {"compute_units": one["instance_stats"]} for name, one in windows}
        if name == "jobs":
            return [self._released.get(job["job_id"], job) for job in recorded]
        return recorded

    def _edited(self, name: str, answer: Any) -> Any:
        if name not in self.edits:
            return answer
        copy = msgspec.json.decode(msgspec.json.encode(answer))
        return self.edits[name](copy)

    def _moved(self, body: bytes) -> bytes:
        """Return the JSON of an answer with its times moved."""
        if not self._shift:
            return body
        shift = timedelta(seconds=self._shift)
        oldest = self.day.first - _OLDEST_MOVED

        def move_time(found: re.Match[str]) -> str:
            moment = datetime.fromisoformat(f"{found[1]}T{found[3]}").replace(tzinfo=UTC)
            if moment.timestamp() < oldest:
                return found[0]
            moment += shift
            return f'"{moment:%Y-%m-%d}{found[2]}{moment:%H:%M:%S}{found[4]}"'

        text = _TIME.sub(move_time, body.decode())
        return _UNIX_TIME.sub(
            lambda found: f"{found[1]}{float(found[2]) + self._shift:.6f}", text
        ).encode()

    def _release_job(self, job_id: str, hotkey: str) -> Response:
        """Release an unfinished job of the signing miner: from now on, it waits for a miner."""
        for job in self._completed("jobs", self.day.answer("jobs", self.moment()) or []):
            is_theirs = job["miner_hotkey"] == hotkey and job["finished_at"] is None
            if job["job_id"] == job_id and is_theirs:
                self._released[job_id] = job | dict.fromkeys(_MINER_OF_JOB)
                self._sent.clear()
                return JSONResponse(None)
        raise HTTPException(404, f"{job_id=} not found or is not associated with your miner")

    def _reply_of_node(self, call: Mapping[str, Any]) -> Any:
        """Return the node's reply to a call of JSON-RPC, and remember its newest block."""
        now = self.clock()
        if now not in self._heads:
            seats = self.day.answer("metagraph", self.moment()) or ()
            block = chain.block_at(now, self.day.first + self._shift, seats)
            self._heads = {now: block}
            self._blocks[block.hash] = block
        return self._edited(CHAIN.name, chain.respond(call, self._heads[now], self._blocks))

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


_MADE_OF: Final = {"chute": "chutes", "miner_gpus": "held_gpus"}
"""Answers that are made of a recorded one, with its name."""
_STATS: Final = ("stats", "stats_per_chute")
_MINER_OF_JOB: Final = ("miner_uid", "miner_hotkey", "miner_coldkey", "instance_id")


def _endpoint_of_gpus(query: Mapping[str, str]) -> Endpoint[Any]:
    """Return the endpoint that a query means, of the three with the path of HELD_GPUS."""
    if "hotkey" in query:
        return e.MINER_GPUS
    return e.HELD_GPUS if "detailed" in query else e.PLATFORM_GPUS


def _stream(body: bytes, most_records: int | None, *, wants_end: bool) -> bytes:
    """Return a list as events of a stream, of which a fault may leave out the last ones."""
    records = msgspec.json.decode(body, type=list[msgspec.Raw])
    events = [b"data: %s\n\n" % bytes(record) for record in records[:most_records]]
    # A stream that a query has ended early does not say that it is complete.
    if not events and wants_end and most_records is None:
        return b"data: NO_ITEMS\n\n"
    return b"".join(events)


def _chute(chutes: Any, asked: Mapping[str, str]) -> Any:
    for chute in chutes:
        if (chute["chute_id"], chute["version"]) == (asked["chute_id"], asked["version"]):
            return chute
    raise HTTPException(404, "Not Found")


def _gpus_of_miner(gpus_by_hotkey: Any, asked: Mapping[str, str]) -> Any:
    miner = asked["hotkey"]
    return {miner: gpus_by_hotkey[miner]} if miner in gpus_by_hotkey else {}


def _stats_of_miner(windows: Any, asked: Mapping[str, str]) -> Any:
    """Return the stats of a miner, or those of all miners if the request names none."""
    miner = asked.get("miner_hotkey")
    if miner is None:
        return windows
    found: dict[str, dict[str, list[Any]]] = {}
    for window, stats in windows.items():
        found[window] = {}
        for kind, records in stats.items():
            found[window][kind] = [one for one in records if one["miner_hotkey"] == miner]
    return found


_PARTS: Final[dict[str, Callable[[Any, Mapping[str, str]], Any]]] = {
    "chute": _chute,
    "miner_gpus": _gpus_of_miner,
    "stats_per_chute": _stats_of_miner,
}
"""Functions that take the part of an answer that a request asks for, by its path and query. An
HTTPException means that there is none.
"""


class _CutResponse(Response):
    """Sends the start of a body, with the headers of the whole one.

    Its last part never follows, so the server closes the connection.
    """

    def __init__(self, whole: Response, size: int) -> None:
        super().__init__(whole.body[:size], whole.status_code, whole.headers)

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
