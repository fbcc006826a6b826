"""The simulated API's sixteen endpoints, over HTTP."""

from __future__ import annotations

import asyncio
import email.utils
import json
from collections import Counter, deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from chutes_exporter.api.endpoints import ENDPOINTS, Endpoint
from chutes_exporter.api.keys import HotkeyError, public_key, verify_headers
from chutes_exporter.simulator.world import DAY, HOUR, WEEK, gpu_details

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from typing import Final

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from chutes_exporter.simulator.faults import Fault
    from chutes_exporter.simulator.world import Chute, Job, Miner, World

Row = dict[str, Any]

_NONCE_TOLERANCE: Final = 600
_CHUNK: Final = 32 * 1024
_SYNC_PERIOD: Final = 300.0
_BLOCK_SECONDS: Final = 12
_REMEMBERED: Final = 10_000


@dataclass(frozen=True)
class Asked:
    """A request that the simulator got.

    Attributes:
        endpoint: The endpoint's name.
        query: Its query parameters.
        hotkey: ``X-Chutes-Hotkey``, or None.
        signed: Whether it brought a signature.
        status: What it was answered with.
    """

    endpoint: str
    query: dict[str, str]
    hotkey: str | None
    signed: bool
    status: int


class SimulatedApi:
    """The API over a world.

    Args:
        world: What it tells of.
        clock: Unix time in seconds, as the service sees it.

    Attributes:
        faults: How endpoints misbehave, by name; change it at any time.
        asked: The newest requests.
        most_at_once: Most requests to each endpoint that were ever under way together.
    """

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self.world = world
        self.clock = clock
        self.faults: dict[str, Fault] = {}
        self.most_at_once: Counter[str] = Counter()
        self._under_way: Counter[str] = Counter()
        self.asked: deque[Asked] = deque(maxlen=_REMEMBERED)
        self.app = Starlette(
            routes=[Route(endpoint.path, self._route(endpoint), methods=[endpoint.method]) for endpoint in ENDPOINTS],
        )

    def _route(self, endpoint: Endpoint[Any]) -> Callable[[Request], Any]:
        # The signed ones get the miner that signed, the others None.
        answer: Callable[[Request, Any], Response] = getattr(self, f"_{endpoint.name}")

        async def route(request: Request) -> Response:
            name = endpoint.name
            self._under_way[name] += 1
            self.most_at_once[name] = max(self.most_at_once[name], self._under_way[name])
            try:
                return await respond(request)
            finally:
                self._under_way[name] -= 1

        async def respond(request: Request) -> Response:
            fault = self._take_fault(endpoint.name)
            if fault is not None and fault.latency:
                try:
                    await asyncio.sleep(fault.latency)
                except asyncio.CancelledError:
                    # The server ends, or the client has left: nobody waits for an answer.
                    return Response(status_code=503)
            response: Response
            if fault is not None and fault.status is not None:
                detail = {"detail": "simulated fault"}
                response = (
                    JSONResponse(detail, fault.status) if fault.body is None else Response(fault.body, fault.status)
                )
            elif fault is not None and fault.body is not None:
                response = Response(fault.body)
            else:
                try:
                    response = answer(request, self._authenticate(request) if endpoint.signed else None)
                except HTTPException as error:
                    response = _detail(error)
            if fault is not None:
                response.headers.update(fault.headers)
                if fault.cut_after is not None:
                    response = _CutResponse(response, fault.cut_after)
            response.headers["date"] = email.utils.formatdate(self.clock(), usegmt=True)
            self.asked.append(
                Asked(
                    endpoint.name,
                    dict(request.query_params),
                    request.headers.get("x-chutes-hotkey"),
                    "x-chutes-signature" in request.headers,
                    response.status_code,
                )
            )
            return response

        return route

    def _take_fault(self, name: str) -> Fault | None:
        fault = self.faults.get(name)
        if fault is not None and fault.times is not None:
            if fault.times <= 1:
                del self.faults[name]
            else:
                self.faults[name] = replace(fault, times=fault.times - 1)
        return fault

    def _authenticate(self, request: Request) -> Miner:
        """Check a signature as the service does: form, clock, signature, registration."""
        hotkey, nonce, signature = (
            request.headers.get(f"x-chutes-{name}", "") for name in ("hotkey", "nonce", "signature")
        )
        if not (hotkey and nonce and signature):
            raise HTTPException(401, "Invalid BT Auth.")
        if not nonce.isdigit() or abs(self.clock() - int(nonce)) >= _NONCE_TOLERANCE:
            raise HTTPException(401, "Invalid nonce!")
        if not verify_headers(hotkey, nonce, signature):
            raise HTTPException(401, "Invalid BT Auth.")
        miner = self.world.by_hotkey.get(hotkey)
        if miner is None:
            raise HTTPException(401, f"Hotkey is not registered on subnet 64: {hotkey}")
        return miner

    def _chutes(self, _request: Request, _signer: Miner | None) -> Response:
        now = self.clock()
        return _stream(self._chute_row(chute, now) for chute in self.world.chutes)

    def _chute(self, request: Request, _signer: Miner | None) -> Response:
        wanted = (request.path_params["chute_id"], request.path_params["version"])
        for chute in self.world.chutes:
            if (chute.chute_id, chute.version) == wanted:
                return JSONResponse(self._chute_row(chute, self.clock()))
        raise HTTPException(404, "Chute not found")

    def _chute_row(self, chute: Chute, now: float) -> Row:
        boost, bounty = chute.boost(now), chute.bounty(now)
        factors = {"base": chute.base_multiplier}
        if boost > 1:
            factors["urgency_boost"] = boost
        if bounty is not None:
            factors["bounty_boost"] = 1.1
        effective = chute.base_multiplier * boost * (1.1 if bounty is not None else 1.0)
        line = f"# {chute.chute_id}\n"
        return {
            "chute_id": chute.chute_id,
            "user_id": None,
            "name": chute.name,
            "tagline": "simulated",
            "readme": line * 8,
            "public": True,
            "standard_template": "vllm" if chute.gpu_count > 1 else None,
            "node_selector": {
                "include": list(chute.models),
                "gpu_count": chute.gpu_count,
                "min_vram_gb_per_gpu": min(gpu_details(model)[1] for model in chute.models),
                "compute_multiplier": chute.base_multiplier,
                "supported_gpus": list(chute.models),
            },
            "slug": chute.slug,
            "code": line * (self.world.size.source_bytes // len(line)),
            "version": chute.version,
            "concurrency": 8,
            "boost": boost if boost > 1 else None,
            "discount": 0.0,
            "max_instances": 20,
            "scaling_threshold": 0.75,
            "shutdown_after_seconds": None if chute.preemptible else 300,
            "tee": chute.tee,
            "disabled": chute.disabled,
            "invocation_count": int(24 * 500 * chute.popularity),
            "preemptible": chute.preemptible,
            "image": "chutes/sglang:0.5.3",
            "effective_compute_multiplier": effective,
            "compute_multiplier_factors": factors,
            "bounty": bounty,
        }

    def _images(self, _request: Request, _signer: Miner | None) -> Response:
        statuses = ("built and pushed", "building", "pending build", 'error: step "RUN"\nexited 1')
        return _stream(
            {
                "image_id": f"00000000-0000-4000-8000-{index:012d}",
                "username": "chutes",
                "name": "sglang",
                "tag": f"0.5.{index}",
                "public": True,
                "status": statuses[index % len(statuses)],
                "created_at": _iso(self.clock() - DAY),
                "chutes_version": "0.5.5",
                "patch_version": "initial",
                "build_started_at": None,
                "build_completed_at": None,
            }
            for index in range(8)
        )

    def _nodes(self, _request: Request, signer: Miner) -> Response:
        now = self.clock()

        def rows() -> Iterator[Row]:
            for server in signer.servers:
                for gpu in server.gpus:
                    name, memory = gpu_details(gpu.model)
                    yield {
                        "uuid": gpu.uuid,
                        "name": name,
                        "memory": memory * 2**30,
                        "processors": 132,
                        "clock_rate": 1980.0,
                        "miner_hotkey": signer.hotkey,
                        "gpu_identifier": gpu.model,
                        "device_index": gpu.device_index,
                        "server_id": gpu.server_id,
                        "created_at": _iso(gpu.created_at),
                        "verification_host": server.ip,
                        "verification_port": 8000,
                        "verification_error": gpu.error(now),
                        "verified_at": _iso(gpu.verified_at(now)),
                    }

        return _stream(rows())

    def _servers(self, _request: Request, signer: Miner) -> Response:
        now = self.clock()
        servers = [
            {
                "server_id": server.server_id,
                "name": server.name,
                "ip": server.ip,
                "is_tee": server.is_tee,
                "version": server.version,
                "maintenance_pending": server.maintenance_pending(now),
                "created_at": _iso(server.created_at),
                "updated_at": _iso(server.created_at + DAY) if server.version else None,
                "gpus": [
                    {
                        "uuid": gpu.uuid,
                        "gpu_identifier": gpu.model,
                        "device_index": gpu.device_index,
                        "verified_at": _iso(gpu.verified_at(now)),
                        "verification_error": gpu.error(now),
                    }
                    for gpu in server.gpus
                ],
            }
            for server in signer.servers
        ]
        return JSONResponse({"servers": servers})

    def _instances(self, request: Request, signer: Miner) -> Response:
        now = self.clock()

        def rows() -> Iterator[Row]:
            for instance in self.world.instances(now, signer.hotkey):
                active = instance.active(now)
                verified = instance.verified_at is not None and instance.verified_at <= now
                yield {
                    "instance_id": instance.instance_id,
                    "chute_id": instance.chute.chute_id,
                    "version": instance.chute.version,
                    "miner_uid": signer.uid,
                    "miner_hotkey": signer.hotkey,
                    "region": "n/a",
                    "active": active,
                    "verified": verified,
                    "last_queried_at": _iso(now - now % 60) if active else None,
                    "created_at": _iso(instance.created_at),
                    "activated_at": _iso(instance.activated_at) if active else None,
                    "last_verified_at": _iso(now - now % HOUR) if verified else None,
                    "stop_billing_at": _iso(instance.ended_at) if instance.chute.preemptible else None,
                    "billed_to": None,
                    "verification_error": instance.error,
                    "consecutive_failures": self.world.failures(instance, now),
                    "chutes_version": "0.5.5",
                    "bounty": instance.bounty,
                    "hourly_rate": instance.multiplier * 1.5,
                    "compute_multiplier": instance.multiplier,
                }

        none = "NO_ITEMS" if request.query_params.get("explicit_null") == "true" else None
        return _stream(rows(), none=none)

    def _jobs(self, _request: Request, _signer: Miner | None) -> Response:
        return _stream(_job_row(job) for job in self.world.jobs(self.clock()))

    def _release_job(self, request: Request, _signer: Miner | None) -> Response:
        job_id = request.path_params["job_id"]
        if job_id not in {job.job_id for job in self.world.jobs(self.clock())}:
            raise HTTPException(404, "Job not found")
        self.world.released_jobs.add(job_id)
        return Response()

    def _inventory(self, _request: Request, signer: Miner) -> Response:
        now = self.clock()
        return JSONResponse(
            [
                {
                    "gpu_id": gpu.uuid,
                    "last_verified_at": _iso(now - now % HOUR) if instance.error is None else None,
                    "verification_error": instance.error,
                    "active": instance.active(now),
                    "chute_id": instance.chute.chute_id,
                    "chute_name": instance.chute.name,
                }
                for instance in self.world.instances(now, signer.hotkey)
                for gpu in instance.gpus
            ]
        )

    def _metrics(self, _request: Request, _signer: Miner | None) -> Response:
        # The service keeps this answer for two minutes.
        now = self.clock() // 120 * 120
        counts: dict[str, int] = {}
        for instance in self.world.instances(now):
            counts[instance.chute.chute_id] = counts.get(instance.chute.chute_id, 0) + instance.active(now)

        def row(chute: Chute) -> Row:
            utilization = chute.utilization(now)
            invocations = int(2000 * utilization)
            price = chute.base_multiplier * 1.5 / HOUR
            return {
                "chute_id": chute.chute_id,
                "end_date": _iso(now),
                "start_date": _iso(now - HOUR),
                "compute_multiplier": chute.base_multiplier,
                "total_invocations": invocations,
                "total_compute_time": invocations * 1.5,
                "error_count": invocations // 200,
                "rate_limit_count": max(0, int((utilization - 0.75) * 400)),
                "instance_count": counts.get(chute.chute_id, 0),
                "utilization": utilization,
                "per_second_price_usd": price,
                "total_usage_usd": invocations * 1.5 * price,
            }

        return _stream(row(chute) for chute in self.world.chutes)

    def _active_instances(self, _request: Request, _signer: Miner | None) -> Response:
        now = self.clock()
        return JSONResponse(
            [
                {
                    "instance_id": instance.instance_id,
                    "miner_hotkey": instance.hotkey,
                    "chute_id": instance.chute.chute_id,
                    "activated_at": _iso(instance.activated_at),
                    "compute_multiplier": instance.multiplier,
                }
                for instance in self.world.instances(now)
                if instance.active(now)
            ]
        )

    def _stats(self, request: Request, _signer: Miner | None) -> Response:
        hotkey = request.query_params.get("miner_hotkey")
        per_chute = request.query_params.get("per_chute", "").lower() in ("true", "1")
        if hotkey is not None:
            try:
                public_key(hotkey)
            except HotkeyError:
                raise HTTPException(400, "Invalid miner_hotkey") from None
        return JSONResponse(
            {
                window: self._stats_window(seconds, hotkey, per_chute=per_chute)
                for window, seconds in (("past_hour", HOUR), ("past_day", DAY), ("all", WEEK))
            }
        )

    def _stats_window(self, seconds: float, hotkey: str | None, *, per_chute: bool) -> Row:
        known = hotkey is None or hotkey in self.world.by_hotkey
        work = self.world.work(self.clock(), seconds, hotkey=hotkey, per_chute=per_chute) if known else {}
        records = [
            {"miner_hotkey": miner}
            | ({"chute_id": chute_id} if per_chute else {})
            | {
                "total_instances": entry.instances,
                "bounty_count": entry.bounties,
                "compute_seconds": entry.seconds,
                "compute_units": entry.units,
                "invocation_count": entry.instances,
            }
            for (miner, chute_id), entry in work.items()
        ]
        bounties = [
            {"miner_hotkey": record["miner_hotkey"], "total_bounty": record["bounty_count"]} for record in records
        ]
        return {"instance_stats": records, "bounties": bounties, "compute_units": records}

    def _scores(self, request: Request, _signer: Miner | None) -> Response:
        now = self.clock()
        shares = self.world.shares(now)
        raw = {
            hotkey: {
                "total_instances": float(entry.instances),
                "bounty_score": float(entry.bounties),
                "instance_seconds": entry.seconds,
                "instance_compute_units": entry.units,
            }
            for (hotkey, _), entry in self.world.work(now, DAY).items()
        }
        wanted = request.query_params.get("hotkey")
        if wanted is not None:
            return JSONResponse({"raw_values": {wanted: raw.get(wanted)}, "final_scores": {wanted: shares.get(wanted)}})
        return JSONResponse({"raw_values": raw, "final_scores": shares})

    def _unique_chute_history(self, request: Request, _signer: Miner | None) -> Response:
        hotkey = request.path_params["hotkey"]
        if hotkey not in self.world.by_hotkey:
            raise HTTPException(404, f"No history for {hotkey}")
        newest = self.clock() // HOUR * HOUR
        points = []
        for hours in range(int(WEEK / HOUR) - 1, -1, -1):
            time = newest - hours * HOUR
            active = [one for one in self.world.all_instances(time, hotkey) if one.active(time)]
            # A chute counts with the GPUs that an instance of it takes, once, however many instances it has.
            chutes = {instance.chute.chute_id: len(instance.gpus) for instance in active}
            points.append(
                {
                    "time": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S+00"),
                    "count": sum(chutes.values()),
                    "total_count": sum(len(instance.gpus) for instance in active),
                }
            )
        return JSONResponse(points)

    def _thrash_cooldowns(self, _request: Request, signer: Miner) -> Response:
        now = self.clock()
        ended = [one for one in self.world.all_instances(now, signer.hotkey) if now - HOUR < one.ended_at <= now]
        return JSONResponse(
            [
                {
                    "chute_id": instance.chute.chute_id,
                    "chute_name": instance.chute.name,
                    "deleted_at": _iso(instance.ended_at, offset=False),
                    "cooldown_expires_at": _iso(instance.ended_at + HOUR, offset=False),
                }
                for instance in ended
                if instance.error is not None
            ]
        )

    def _metagraph(self, _request: Request, _signer: Miner | None) -> Response:
        synced = self.clock() // _SYNC_PERIOD * _SYNC_PERIOD
        shares = self.world.shares(synced)
        return JSONResponse(
            [
                {
                    "netuid": 64,
                    "hotkey": miner.hotkey,
                    "coldkey": miner.coldkey,
                    "node_id": miner.uid,
                    "incentive": 0.0 if miner.blacklist_reason else shares.get(miner.hotkey, 0.0),
                    "trust": round(0.5 + miner.uid / 1000, 6),
                    "vtrust": 0.0,
                    "stake": 100.0 + miner.uid,
                    "tao_stake": 2.5,
                    "alpha_stake": 70.0 + miner.uid / 8,
                    "last_updated": int(synced // _BLOCK_SECONDS) - miner.uid,
                    "blacklist_reason": miner.blacklist_reason,
                    "ip": f"203.0.113.{miner.uid % 256}",
                    "port": 8091,
                    "synced_at": _iso(synced, offset=False),
                }
                for miner in self.world.miners
            ]
        )


class _CutResponse(Response):
    """Sends the start of another response's body, then drops the connection."""

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

        # Without a last part, the server closes the connection inside the body.
        await self._whole(scope, receive, send_some)


def _stream(rows: Iterable[Row], *, none: str | None = None) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        chunk = bytearray()
        empty = True
        for row in rows:
            empty = False
            chunk += b"data: " + json.dumps(row, separators=(",", ":")).encode() + b"\n\n"
            if len(chunk) >= _CHUNK:
                yield bytes(chunk)
                chunk.clear()
                await asyncio.sleep(0)
        if empty and none is not None:
            chunk += f"data: {none}\n\n".encode()
        if chunk:
            yield bytes(chunk)

    return StreamingResponse(lines())


def _detail(error: HTTPException) -> Response:
    return JSONResponse({"detail": error.detail}, status_code=error.status_code, headers=error.headers)


def _job_row(job: Job) -> Row:
    return {
        "job_id": job.job_id,
        "chute_id": job.chute.chute_id,
        "version": job.chute.version,
        "method": "train",
        "created_at": _iso(job.created_at, offset=False),
        "node_selector": None,
        "status": "pending",
        "miner_history": list(job.tried_by),
        "compute_multiplier": job.chute.base_multiplier,
    }


def _iso(time: float | None, *, offset: bool = True) -> str | None:
    if time is None:
        return None
    moment = datetime.fromtimestamp(time, UTC)
    return (moment if offset else moment.replace(tzinfo=None)).isoformat()
