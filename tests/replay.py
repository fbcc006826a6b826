"""The recorded day as an API that notes requests, checks signatures, and has faults."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
from bittensor_core import verify
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from chutes_exporter.demo import replay
from chutes_exporter.duration import MINUTE
from chutes_exporter.feeds import definitions as e

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request

    from chutes_exporter.api.endpoint import Endpoint


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


class Replay(replay.Replay):
    """A recorded day whose answers a test may change at any time.

    Attributes:
        faults: Faults by endpoint name.
        edits: Functions that change the JSON of an answer before it is sent, by endpoint name. They
            return the answer, and may change the one that they get. ``stats_per_chute`` is a name
            of its own. An edit of ``chutes`` also changes ``chute``, and one of ``held_gpus``
            ``miner_gpus``.
        requests: The newest requests, oldest first, also those that wait for their answer.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.faults: dict[str, Fault] = {}
        self.edits: dict[str, Callable[[Any], Any]] = {}
        self.requests: deque[ReceivedRequest] = deque(maxlen=10_000)
        self._released_jobs: set[str] = set()
        self._stops = asyncio.Event()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        # A Replay is an exit stack: when it is left, the latency of faults in `respond` ends first.
        self.callback(self._stops.set)
        return self

    async def respond(self, endpoint: Endpoint[Any], request: Request) -> Response:
        name, headers = endpoint.name, request.headers
        hotkey, is_signed = headers.get("x-chutes-hotkey"), "x-chutes-signature" in headers
        received = ReceivedRequest(name, hotkey, is_signed, dict(request.query_params))
        self.requests.append(received)
        fault = self.faults.get(name, Fault())
        if fault.once:
            del self.faults[name]
        if fault.latency:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stops.wait(), fault.latency)
        if fault.body is not None:
            response = Response(fault.body, fault.status or 200)
        elif fault.status is not None:
            response = JSONResponse({"detail": "injected fault"}, fault.status)
        else:
            response = await super().respond(endpoint, request)
        response.headers.update(fault.headers)
        if fault.cut_after is not None:
            # The headers keep the length of the whole body, so the server closes the connection.
            response.body = response.body[: fault.cut_after]
        return response

    async def answer(self, endpoint: Endpoint[Any], request: Request) -> Any:
        if endpoint.signed:
            self._authenticate(request, endpoint)
        if endpoint is e.RELEASE_JOB:
            return self._release_job(
                request.path_params["job_id"], request.headers["x-chutes-hotkey"]
            )
        answer = await super().answer(endpoint, request)
        is_part = endpoint.name in ("chain", "chute", "miner_gpus")
        return self._edited(endpoint.name, answer) if is_part else answer

    def recorded(self, name: str, hotkey: str, part: str) -> Any:
        answer = super().recorded(name, hotkey, part)
        if name == "jobs":
            answer = self._jobs()
        return self._edited(name, answer)

    def _edited(self, name: str, answer: Any) -> Any:
        if name not in self.edits:
            return answer
        copy = msgspec.json.decode(msgspec.json.encode(answer))
        return self.edits[name](copy)

    def _jobs(self) -> list[dict[str, Any]]:
        """Return all jobs. One that was released waits for a miner."""
        jobs = self.day.answer("jobs", self.moment()) or []
        nobody = dict.fromkeys(("miner_uid", "miner_hotkey", "miner_coldkey", "instance_id"))
        return [job | nobody if job["job_id"] in self._released_jobs else job for job in jobs]

    def _release_job(self, job_id: str, hotkey: str) -> None:
        """Release an unfinished job of the signing miner."""
        for job in self._jobs():
            is_theirs = job["miner_hotkey"] == hotkey and job["finished_at"] is None
            if job["job_id"] == job_id and is_theirs:
                self._released_jobs.add(job_id)
                return
        raise HTTPException(404, f"{job_id=} not found or is not associated with your miner")

    def _authenticate(self, request: Request, endpoint: Endpoint[Any]) -> None:
        """Raise HTTPException without a valid signature, with the checks of the service."""
        names = ("x-chutes-hotkey", "x-chutes-nonce", "x-chutes-signature")
        hotkey, nonce, signature = (request.headers.get(name, "") for name in names)
        # The nonce is the Unix time of the request.
        if not nonce.isdigit() or abs(self.clock() - int(nonce)) >= 10 * MINUTE:
            raise HTTPException(401, "Invalid nonce!")
        message = f"{hotkey}:{nonce}:{endpoint.purpose}"
        if not verify(message.encode(), bytes.fromhex(signature), hotkey):
            raise HTTPException(
                401, f"Invalid request signature for hotkey {hotkey}. Message: {message}"
            )
        if hotkey not in {key.address for key in self.day.miners.values()}:
            raise HTTPException(401, "Hotkey is not registered on netuid 64")
