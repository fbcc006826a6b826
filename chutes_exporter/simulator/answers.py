"""The answer of each endpoint as JSON values, with the fields that the exporter reads.

The others are null.

The function of an endpoint has its name, and takes a call. That of a stream returns the records.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from bittensor_core import encode_ss58
from starlette.exceptions import HTTPException

from chutes_exporter.api.schema_drift import known, objects
from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.simulator import service
from chutes_exporter.simulator.service import MODELS, last_run, make_random, make_uuid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from chutes_exporter.simulator.service import Chute, Gpu, Instance
    from chutes_exporter.simulator.world import Miner, World

Json = dict[str, Any]

_INVOCATIONS_AT_FULL_LOAD = 2000
_SECONDS_PER_INVOCATION = 1.5


class Call(NamedTuple):
    """An accepted request at a time of the service's clock.

    Only endpoints with a signature use the signer.
    """

    world: World
    now: float
    signer: Miner
    path: Mapping[str, str]
    query: Mapping[str, str]


def completed(kind: Any, value: Any) -> Any:
    """Return an answer of a type with the fields that the service sends and nobody here reads,
    which are null.
    """
    for _, record, fields in objects(kind, value):
        fields.update(dict.fromkeys(known(record).always - fields.keys()))
    return value


def _iso(time: float | None, now: float = math.inf) -> str | None:
    """Format a Unix time. One after now is not known yet, and an infinite one never comes."""
    if time is None or time > now or math.isinf(time):
        return None
    return datetime.fromtimestamp(time, UTC).isoformat()


def _fields(record: object, names: str, now: float = math.inf) -> Json:
    """Return fields by the API's names, and as ``api=ours`` those with another name in the world.

    Functions are called with the time. Times after it are not known yet.
    """
    values = {}
    for name in names.split():
        api, _, ours = name.partition("=")
        value = getattr(record, ours or api)
        values[api] = value(now) if callable(value) else value
    return {
        name: _iso(value, now) if name.endswith("_at") else value for name, value in values.items()
    }


def _library(chute: Chute) -> str:
    if not chute.tee:
        return "0.3.60"
    return "0.6.1" if chute.phase < 0.8 else "0.5.11"


def _refused(load: float) -> float:
    """Return the share of requests that are refused under a load."""
    refused = max(0.0, load - service.SCALING_THRESHOLD)
    return refused and refused / (5 * load + refused)


def chutes(call: Call) -> Iterator[Json]:
    """Yield all chutes. Settings that change nothing in the world are drawn at random."""
    for one in call.world.chutes:
        age = call.world.bounty_age(one, call.now)
        factors = one.factors(call.now, age)
        draw = make_random(one.seed, "settings")
        yield _fields(
            one,
            "chute_id name slug version public tee disabled max_instances preemptible=public",
            call.now,
        ) | {
            "readme": f"# {one.chute_id}\n"
            * (call.world.size.source_bytes // (len(one.chute_id) + 3)),
            "standard_template": draw.choice(("vllm", "diffusion", "tei", "embedding", None)),
            "node_selector": {
                "gpu_count": one.gpu_count,
                "min_vram_gb_per_gpu": min(MODELS[model].memory // 2**30 for model in one.models),
                "supported_gpus": one.models,
            },
            "concurrency": draw.choice((1, 8, 32)),
            "chutes_version": _library(one),
            "discount": draw.choice((0.0, 0.0, 0.0, 0.25)),
            "scaling_threshold": service.SCALING_THRESHOLD,
            "shutdown_after_seconds": draw.choice((300, 900, 1800)),
            "invocation_count": int(
                12_000 * one.utilization(last_run(call.now, service.CACHE_PERIOD))
            ),
            "image": "chutes/sglang:0.5.0",
            "effective_compute_multiplier": math.prod(factors.values()),
            "compute_multiplier_factors": factors,
            "bounty": None if age is None else min(100 + 3 * int(age), 86_400),
        }


def chute(call: Call) -> Json:
    if found := [row for row in chutes(call) if row.items() >= call.path.items()]:
        return found[0]
    raise HTTPException(404, f"chute_id={call.path['chute_id']!r} not found")


def images(call: Call) -> Iterator[Json]:
    start = call.world.start
    # The hours from the build's start and end to the start of the world.
    builds = (
        ("built and pushed", 30.0, 29.8),
        ("building", 0.1, math.inf),
        ("pending build", math.inf, math.inf),
        ("error: step RUN pip install exited with 1", 50.0, math.inf),
    )
    for number, (status, started_before, ended_before) in enumerate(builds):
        yield {
            "image_id": make_uuid("image", number),
            "name": "sglang",
            "tag": f"0.5.{number}",
            "public": number != 1,
            "status": status,
            "created_at": _iso(start - (10 + number) * DAY),
            "chutes_version": "0.6.1",
            "patch_version": "initial",
            "build_started_at": _iso(start - started_before * HOUR),
            "build_completed_at": _iso(start - ended_before * HOUR),
            "username": "chutes",
        }


def metrics(call: Call) -> Iterator[Json]:
    """Yield the demand for each chute that has an instance in any state, as last calculated."""
    at = last_run(call.now, service.SOFT_PERIOD)
    existing, active = call.world.counts(at)
    for one in call.world.chutes:
        if not existing[one]:
            continue
        load = one.utilization(at)
        invocations = int(_INVOCATIONS_AT_FULL_LOAD * load)
        compute_seconds = _SECONDS_PER_INVOCATION * invocations
        price = one.base_multiplier * service.DEAREST_RATE / HOUR
        yield {
            **_fields(one, "chute_id utilization compute_multiplier=base_multiplier", at),
            "total_invocations": invocations,
            "total_compute_time": compute_seconds,
            "rate_limit_count": int(invocations * _refused(load)),
            "instance_count": active[one],
            "per_second_price_usd": price,
            "total_usage_usd": compute_seconds * price,
        }


def utilization(call: Call) -> list[Json]:
    """Return load and number of instances at the autoscaler's last soft run, and current counts and
    targets.
    """
    world, now, run = call.world, call.now, last_run(call.now, service.SOFT_PERIOD)
    (_, at_run), (totals, current) = world.counts(run), world.counts(now)
    rows = []
    for one in world.chutes:
        if not one.scaled:
            continue
        active, target = current[one], world.target(one, now)
        row: Json = {
            "chute_id": one.chute_id,
            "name": one.name if one.public else "[private chute]",
            "timestamp": _iso(run),
            "instance_count": at_run[one],
            "target_count": target,
            "total_instance_count": totals[one],
            "active_instance_count": active,
            "scalable": active < target,
            "scale_allowance": max(0, target - active),
        }
        for window, seconds in (("5m", 5 * MINUTE), ("15m", 15 * MINUTE), ("1h", HOUR)):
            # The service measures nothing for a chute without an instance.
            load = one.utilization(run - seconds / 2) if at_run[one] else 0.0
            row |= {
                f"utilization_{window}": round(load, 4),
                f"rate_limit_ratio_{window}": round(_refused(load), 4),
            }
        rows.append(row)
    return rows


def bounties(call: Call) -> list[Json]:
    rows = []
    for one in call.world.chutes:
        age = call.world.bounty_age(one, call.now)
        if age is not None:
            row = {
                "chute_id": one.chute_id,
                "seconds_elapsed": int(age),
                "time_remaining": round(one.bounty_lifetime - age),
                "created_at": call.now - age,
            }
            rows.append(row)
    return rows


def rolling_updates(call: Call) -> list[Json]:
    """Return the rolling updates: of chutes with an active instance of an older version."""
    now = call.now
    old = {
        one.chute
        for one in call.world.instances(now)
        if one.active(now) and one.version != one.chute.version(now)
    }
    return [
        _fields(one, "chute_id new_version=version started_at=deployed_at", now)
        | {"old_version": one.version(now - one.deploy_period)}
        for one in call.world.chutes
        if one in old
    ]


def nodes(call: Call) -> Iterator[Json]:
    for server in call.signer.servers:
        for gpu in server.gpus:
            yield {
                **_fields(server, "server_id created_at verification_host=ip"),
                **_fields(
                    gpu, "uuid gpu_identifier verified_at device_index verification_error=error"
                ),
                **_fields(MODELS[gpu.gpu_identifier], "name memory processors clock_rate"),
            }


def servers(call: Call) -> Json:
    rows = []
    for server in call.signer.servers:
        gpus = [_fields(gpu, "uuid gpu_identifier verified_at") for gpu in server.gpus]
        row = _fields(server, "server_id name ip is_tee created_at updated_at") | {
            "version": server.version_at(call.now),
            "maintenance_pending": server.status(call.now) != "none",
            "gpus": gpus,
        }
        rows.append(row)
    return {"servers": rows}


def maintenance(call: Call) -> Json:
    """Return the maintenance window, and the miner's servers with TEE.

    Servers with an upgrade slot use a slot.
    """
    world, now, (opens, closes) = call.world, call.now, call.world.window
    servers = [
        _fields(server, "server_id name version=version_at maintenance_status=status", now)
        | {
            "needs_upgrade": server.version_at(now) != world.target_version,
            "in_maintenance": server.status(now) == "maintenance",
        }
        for server in call.signer.servers
        if server.is_tee
    ]
    return {
        "active_window": {
            "id": make_uuid("window"),
            "target_measurement_version": world.target_version,
            "upgrade_window_start": _iso(opens),
            "upgrade_window_end": _iso(closes),
            "max_concurrent_per_miner": 1,
        },
        "window_open": opens <= now <= closes,
        "current_slots": sum(one["maintenance_status"] != "none" for one in servers),
        "servers": servers,
    }


def server_maintenance(call: Call) -> Json:
    """Return the instances that a server waits for, while its maintenance is pending, and until
    when it waits.
    """
    server = {server.server_id: server for server in call.signer.servers}[call.path["server_id"]]
    waiting = []
    if server.status(call.now) == "pending":
        waiting = [
            _fields(one, "chute_id instance_id")
            for one in call.world.instances(call.now, call.signer.hotkey)
            if one.active(call.now) and one.gpus[0] in server.gpus
        ]
    return {"awaiting_replacement": waiting, "pending_deadline": _iso(server.upgrade[0] + 3 * HOUR)}


def tee_measurements(call: Call) -> list[Json]:
    """Return the images that TEE servers can boot: of each version, one for each class of hosts
    that miners have.
    """
    hosts = {
        (server.gpus[0].gpu_identifier, len(server.gpus))
        for miner in call.world.miners
        for server in miner.servers
        if server.is_tee and server.gpus
    }
    return [
        {
            "version": version,
            "name": f"{count}x{model}",
            "expected_gpus": [model],
            "gpu_count": count,
        }
        for version in call.world.accepted_versions
        for model, count in sorted(hosts)
        if (version, model, count) not in call.world.unmeasured_hosts
    ]


def supported_gpus(_: Call) -> Json:
    return {key: {"hourly_rate": model.hourly_rate} for key, model in MODELS.items()}


def fmv(_: Call) -> Json:
    return {"tao": 431.17}


def platform_gpus(call: Call) -> Json:
    held: set[Gpu] = set()
    for instance in call.world.instances(call.now):
        held.update(instance.gpus)
    counts: Json = {}
    for miner in call.world.miners:
        for gpu in miner.gpus:
            count = counts.setdefault(gpu.gpu_identifier, {"provisioned": 0, "idle": 0})
            count["provisioned" if gpu in held else "idle"] += 1
    return counts


def held_gpus(call: Call) -> Json:
    """Return the GPUs that run instances, by miner.

    Miners with GPUs but no instance have an empty list.
    """
    hotkey = call.query.get("hotkey")
    miners = (one for one in call.world.miners if one.gpus and hotkey in (None, one.hotkey))
    held: Json = {one.hotkey: {"provisioned": []} for one in miners}
    for one in call.world.instances(call.now, hotkey):
        # A miner that has lost the seat is missing.
        if one.hotkey in held:
            chute = _fields(one, "chute_id instance_id activated_at", call.now)
            rows = [
                {"gpu": gpu.gpu_identifier, "server_id": gpu.server_id, "chute": chute}
                for gpu in one.gpus
            ]
            held[one.hotkey]["provisioned"] += rows
    return held


miner_gpus = held_gpus


def instances(call: Call) -> Iterator[Json]:
    for one in call.world.instances(call.now, call.signer.hotkey):
        yield {
            **_fields(
                one, "instance_id chute_id version hourly_rate active bounty=has_bounty", call.now
            ),
            **_fields(one, "created_at activated_at last_verified_at=verified_at", call.now),
            "config_id": make_uuid("config", one.instance_id),
            "verified": one.verified_at <= call.now,
            "chutes_version": _library(one.chute),
            "compute_multiplier": one.multiplier(call.now),
            **_billing(one, call.now),
        }


def _billing(instance: Instance, now: float) -> Json:
    """Return who pays for a private instance, and until when.

    Requests extend it, at most once a minute.
    """
    if instance.chute.public:
        return {}
    until = None
    if instance.activated_at <= now:
        until = last_run(min(now, instance.ended_at), MINUTE) + 15 * MINUTE
    return {"stop_billing_at": _iso(until), "billed_to": make_uuid("user", instance.chute_id)}


def inventory(call: Call) -> list[Json]:
    rows = []
    for one in call.world.instances(call.now, call.signer.hotkey):
        for gpu in one.gpus:
            row = _fields(one, "chute_id active last_verified_at=verified_at", call.now)
            rows.append(row | {"gpu_id": gpu.uuid, "chute_name": one.chute.name})
    return rows


def active_instances(call: Call) -> list[Json]:
    names = "instance_id chute_id activated_at miner_hotkey=hotkey compute_multiplier=multiplier"
    return [
        _fields(one, names, call.now)
        for one in call.world.instances(call.now)
        if one.active(call.now)
    ]


def audit(call: Call) -> list[Json]:
    """Return the validator's newest 25 reports.

    Each is made a minute after its hour, whose number is in the path.
    """
    newest = round(last_run(call.now - MINUTE, HOUR) / HOUR)
    return [
        {
            "path": f"audit/validator/{encode_ss58(bytes(32))}/{hour}.json",
            "created_at": _iso(hour * HOUR + MINUTE),
            "start_time": _iso(hour * HOUR - HOUR),
            "end_time": _iso(hour * HOUR),
        }
        for hour in range(newest, newest - 25, -1)
    ]


def audit_report(call: Call) -> Json:
    """Return all instances that existed in the hour of a report, and their multipliers in it."""
    end = HOUR * int(call.query["path"].rpartition("/")[2].removesuffix(".json"))
    found = [one for one in call.world.all_instances(end) if one.ended_at > end - HOUR]
    multipliers: list[Json] = []
    for one in found:
        multipliers += _multipliers(one, end)
    return {
        "instance_audit": [_audited(one, end) for one in found],
        "compute_history": multipliers,
    }


def _audited(instance: Instance, end: float) -> Json:
    """Return what a report of the hour to a time has about an instance."""
    names = "instance_id chute_id created_at activated_at deleted_at=ended_at miner_hotkey=hotkey"
    has_ended = instance.ended_at <= end
    return {
        **_fields(instance, f"{names} compute_multiplier=multiplier", end),
        "deletion_reason": instance.end.value if has_ended else None,
        "valid_termination": has_ended and instance.end in service.VALID_ENDS,
        **_billing(instance, end),
    }


def _multipliers(instance: Instance, end: float) -> Iterator[Json]:
    """Yield the multipliers that an instance had in the hour to a time."""
    for start, until, multiplier in instance.history(end):
        if until > end - HOUR:
            yield {
                "instance_id": instance.instance_id,
                "compute_multiplier": multiplier,
                "started_at": _iso(start),
                "ended_at": _iso(until, end),
            }


def jobs(call: Call) -> Iterator[Json]:
    for job in call.world.jobs(call.now):
        yield {
            **_fields(job, "job_id status created_at finished_at miner_history=tried_by", call.now),
            **_fields(job.chute, "chute_id compute_multiplier=base_multiplier"),
            "method": "run",
            "miner_hotkey": job.miner and job.miner.hotkey,
        }


def release_job(call: Call) -> None:
    job_id = call.path["job_id"]
    jobs_of_world = call.world.jobs(call.now)
    stuck = {job.job_id for job in jobs_of_world if job.stuck and job.miner is call.signer}
    if job_id not in stuck:
        raise HTTPException(404, f"{job_id=} not found or is not associated with your miner")
    call.world.released_jobs.add(job_id)


def thrash_cooldowns(call: Call) -> list[Json]:
    """Return the chutes of which the miner lost an active instance within the cooldown."""
    lost: dict[str, Instance] = {}
    for one in call.world.all_instances(call.now, call.signer.hotkey):
        was_lost = one.activated_at < one.ended_at <= call.now and one.end not in service.VALID_ENDS
        if was_lost and call.now < one.ended_at + call.world.cooldown:
            lost[one.chute_id] = max(one, lost.get(one.chute_id, one), key=_ended_at)
    return [
        {
            "chute_id": chute_id,
            "chute_name": one.chute.name,
            "deleted_at": _without_offset(one.ended_at),
            "cooldown_expires_at": _without_offset(one.ended_at + call.world.cooldown),
        }
        for chute_id, one in lost.items()
    ]


def _ended_at(instance: Instance) -> float:
    return instance.ended_at


def _without_offset(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).replace(tzinfo=None).isoformat()


def stats(call: Call) -> Json:
    """Return the stats of all miners or one, in total or by chute.

    Miners without compute units have no record.
    """
    return {
        "past_hour": {"instance_stats": _stats_of_window(call, HOUR)},
        "past_day": {"instance_stats": _stats_of_window(call, DAY)},
        "all": {"instance_stats": _stats_of_window(call, 7 * DAY)},
    }


def _stats_of_window(call: Call, seconds: float) -> list[Json]:
    hotkey, per_chute = call.query.get("miner_hotkey"), call.query.get("per_chute") == "true"
    at = last_run(call.now, service.CACHE_PERIOD)
    rows: list[Json] = []
    for (miner, chute_id), entry in call.world.work(at, seconds, per_chute=per_chute).items():
        if entry["compute_units"] <= 0 or hotkey not in (None, miner):
            continue
        of_chute = {"chute_id": chute_id} if per_chute else {}
        rows.append({"miner_hotkey": miner, **of_chute, **entry})
    return rows


def scores(call: Call) -> Json:
    """Return the scores of all miners, or of one, which are null if it has none."""
    names = ("total_instances", "bounty_score", "instance_seconds", "instance_compute_units")
    shares = call.world.shares(call.now)
    work = call.world.work(last_run(call.now, service.CACHE_PERIOD), DAY)
    raw = {hotkey: dict(zip(names, work[hotkey, ""].values(), strict=True)) for hotkey in shares}
    if hotkey := call.query.get("hotkey"):
        return {
            "raw_values": {hotkey: raw.get(hotkey)},
            "final_scores": {hotkey: shares.get(hotkey)},
        }
    return {"raw_values": raw, "final_scores": shares}


def unique_chute_history(call: Call) -> list[Json]:
    """Return each of 169 full hours of a miner's past week, as last calculated."""
    hotkey, at = call.path["hotkey"], last_run(call.now, service.CACHE_PERIOD)
    ran = [one for one in call.world.all_instances(at, hotkey) if one.activated_at <= at]
    if not ran:
        raise HTTPException(404, f"Miner {hotkey} not found in unique history cache (yet)")
    rows = []
    for age in range(168, -1, -1):
        hour = last_run(at, HOUR) - age * HOUR
        running = [one for one in ran if one.activated_at <= hour < one.ended_at]
        running_chutes = {one.chute for one in running}
        row = {
            "time": _iso(hour),
            "count": sum(chute.gpu_count for chute in running_chutes),
            "total_count": sum(len(one.gpus) for one in running),
        }
        rows.append(row)
    return rows


def metagraph(call: Call) -> list[Json]:
    return [
        _fields(miner, "hotkey coldkey stake blacklist_reason node_id=uid synced_at=registered_at")
        | {
            "incentive": float(incentive),
            "vtrust": float(min(65535, incentive + incentive // 12)),
            "alpha_stake": miner.stake * 0.9,
            "tao_stake": miner.stake * 0.1,
        }
        for miner, (*_, incentive) in zip(
            call.world.miners, call.world.seats(call.now), strict=True
        )
    ]
