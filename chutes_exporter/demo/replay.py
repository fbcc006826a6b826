"""The recorded day as an API over HTTP."""

from __future__ import annotations

import email.utils
import math
import re
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from cachetools import LRUCache
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chutes_exporter.api.decoding import StreamShape
from chutes_exporter.chain.node import CHAIN
from chutes_exporter.config import Address
from chutes_exporter.demo import chain
from chutes_exporter.demo.day import Day
from chutes_exporter.duration import DAY, HOUR
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


class Replay(AsyncExitStack):
    """A recorded day as an API on a socket, by default a free port of this machine.

    It is an asynchronous context manager. All times of the answers are moved by the same whole
    seconds, so that the moment ``at`` is now. After the day, answers stay as they are.

    Attributes:
        day: The recording.
        clock: The service's clock, which returns the Unix time in seconds.
        url: Its base address.
        chain_url: The address of its node of the chain.
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
        # The blocks that the node still knows, by hash. To read the chain takes several calls.
        self._blocks: LRUCache[str, chain.Block] = LRUCache(16)
        # An error about the address names this flag, with which it is chosen.
        self._socket = open_socket(listen or Address("127.0.0.1", 0), "--demo.listen-address")
        # Without a host, the socket listens on all addresses, and the URL names one of them.
        address = bound_address(self._socket)
        self.url = f"http://{Address(address.host or '127.0.0.1', address.port)}"
        self.chain_url = f"{self.url}/chain"
        routes = []
        for endpoint in (CHAIN, *e.ENDPOINTS):
            serve = partial(self._serve, endpoint)
            # The node is at an address of its own, without a path.
            routes.append(Route(endpoint.path or "/chain", serve, methods=[endpoint.method]))
        self.app = Starlette(routes=routes)

    async def __aenter__(self) -> Self:
        await self.enter_async_context(serving(self.app, [self._socket]))
        return self

    def moment(self) -> float:
        """Return the seconds since the first snapshot. They stand still at the end of the day."""
        return min(self.clock() - self.day.first - self._shift, self.day.last)

    async def _serve(self, endpoint: Endpoint[Any], request: Request) -> Response:
        # The first of the endpoints with this path gets all requests. Their query tells them apart.
        if endpoint is e.HELD_GPUS and "hotkey" in request.query_params:
            endpoint = e.MINER_GPUS
        elif endpoint is e.HELD_GPUS and "detailed" not in request.query_params:
            endpoint = e.PLATFORM_GPUS
        try:
            response = await self.respond(endpoint, request)
        except HTTPException as error:
            response = JSONResponse({"detail": error.detail}, status_code=error.status_code)
        response.headers["date"] = email.utils.formatdate(self.clock(), usegmt=True)
        return response

    async def respond(self, endpoint: Endpoint[Any], request: Request) -> Response:
        """Return the answer to a request. An HTTPException is an answer with its status."""
        answer = await self.answer(endpoint, request)
        if endpoint is CHAIN:
            return JSONResponse(answer)
        body = self._moved(msgspec.json.encode(answer))
        if isinstance(endpoint.shape, StreamShape):
            records = msgspec.json.decode(body, type=list[msgspec.Raw])
            body = b"".join(b"data: %s\n\n" % bytes(record) for record in records)
            if not records and "explicit_null" in request.query_params:
                body = b"data: NO_ITEMS\n\n"
        return Response(body, media_type="application/json")

    async def answer(self, endpoint: Endpoint[Any], request: Request) -> Any:
        """Return the JSON of an answer with the recorded times, or raise HTTPException."""
        if endpoint is CHAIN:
            seats = self.day.answer("metagraph", self.moment()) or ()
            head = chain.block_at(self.clock(), self.day.first + self._shift, seats)
            self._blocks[head.hash] = head
            return chain.respond(await request.json(), head, self._blocks)
        asked = {**request.path_params, **request.query_params}
        name = endpoint.name
        if endpoint is e.STATS and asked.get("per_chute") == "true":
            name = "stats_per_chute"
        hotkey = asked.get("hotkey") or asked.get("miner_hotkey", "")
        if endpoint.signed:
            hotkey = request.headers.get("x-chutes-hotkey", "")
        part = asked.get("server_id") or asked.get("path", "")
        answer = self.recorded(_RECORDED_AS.get(name, name), hotkey, part)
        return _selected(answer, endpoint, asked)

    def recorded(self, name: str, hotkey: str, part: str) -> Any:
        """Return an answer of the recording, or raise HTTPException. See :meth:`Day.answer`."""
        answer = self.day.answer(name, self.moment(), hotkey, part)
        if answer is None:
            raise HTTPException(404, "Not Found")
        if not name.startswith("stats"):
            return answer
        windows: dict[str, dict[str, Any]] = {}
        for window, stats in answer.items():
            found = windows[window] = {}
            for kind, records in stats.items():
                found[kind] = [one for one in records if hotkey in ("", one["miner_hotkey"])]
            # The service sends these records under two names, of which the recording has one.
            found["compute_units"] = found["instance_stats"]
        return windows

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

        def move_unix_time(found: re.Match[str]) -> str:
            return f"{found[1]}{float(found[2]) + self._shift:.6f}"

        return _UNIX_TIME.sub(move_unix_time, _TIME.sub(move_time, body.decode())).encode()


def _selected(answer: Any, endpoint: Endpoint[Any], asked: Mapping[str, str]) -> Any:
    """Return the part of a recorded answer that a request asks for, or raise HTTPException."""
    if endpoint is e.MINER_GPUS:
        miner = asked["hotkey"]
        return {miner: answer[miner]} if miner in answer else {}
    if endpoint is not e.CHUTE:
        return answer
    for chute in answer:
        if (chute["chute_id"], chute["version"]) == (asked["chute_id"], asked["version"]):
            return chute
    raise HTTPException(404, "Not Found")
