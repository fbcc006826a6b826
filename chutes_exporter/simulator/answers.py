"""The endpoints' answers as JSON values, with the fields that the exporter reads."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import astuple
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.api.keys import address_of
from chutes_exporter.simulator.chutes import DEAREST_RATE, MODELS, SCALING_THRESHOLD, bounty_amount
from chutes_exporter.simulator.instances import VALID_ENDS
from chutes_exporter.simulator.times import (
    CACHE_PERIOD,
    DAY,
    HOUR,
    MINUTE,
    SOFT_PERIOD,
    WEEK,
    last,
    make_random,
    make_uuid,
)
from chutes_exporter.simulator.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chutes_exporter.simulator.chutes import Chute
    from chutes_exporter.simulator.instances import Gpu, Instance
    from chutes_exporter.simulator.world import Job, Miner, Server, Work

Row = dict[str, Any]

WINDOWS: Final = (("past_hour", HOUR), ("past_day", DAY), ("all", WEEK))
_IMAGES: Final = (
    # The status, and hours from the build's start and end to the start of the world.
    ("built and pushed", 30.0, 29.8),
    ("building", 0.1, None),
    ("pending build", None, None),
    ("error: step RUN pip install exited with 1", 50.0, None),
)
_VALIDATOR: Final = address_of(bytes(32))
WINDOW_ID: Final = make_uuid("window")
_MEASURED_MODELS: Final = ("pro_6000", "h200", "b200")


def iso(time: float | None) -> str | None:
    """Format a Unix time."""
    return None if time is None else datetime.fromtimestamp(time, UTC).isoformat()


def _library(chute: Chute) -> str:
    """Return the version of the library that a chute was made with."""
    if not chute.tee:
        return "0.3.60"
    return "0.6.1" if chute.phase < 0.8 else "0.5.11"


def _shown_name(chute: Chute) -> str | None:
    return chute.name if chute.public else "[private chute]"


def chute_row(world: World, chute: Chute, now: float) -> Row:
    """Return a chute."""
    age = world.bounty_age(chute, now)
    factors = chute.factors(now, age)
    draw = make_random(chute.seed, "settings")
    return {
        "chute_id": chute.chute_id,
        "name": chute.name,
        "readme": f"# {chute.chute_id}\n" * (world.size.source_bytes // (len(chute.chute_id) + 3)),
        "public": chute.public,
        "standard_template": draw.choice(("vllm", "diffusion", "tei", "embedding", None)),
        "node_selector": {
            "gpu_count": chute.gpu_count,
            "min_vram_gb_per_gpu": min(MODELS[model].memory // 2**30 for model in chute.models),
            "compute_multiplier": chute.base_multiplier,
            "supported_gpus": list(chute.models),
        },
        "slug": chute.slug,
        "version": chute.version(now),
        "concurrency": draw.choice((1, 8, 32)),
        "boost": chute.boost(now),
        "chutes_version": _library(chute),
        "discount": draw.choice((0.0, 0.0, 0.0, 0.25)),
        "max_instances": chute.max_instances,
        "scaling_threshold": SCALING_THRESHOLD,
        "shutdown_after_seconds": draw.choice((300, 900, 1800)),
        "tee": chute.tee,
        "disabled": chute.disabled,
        "invocation_count": int(12_000 * chute.utilization(last(now, CACHE_PERIOD))),
        "preemptible": chute.public,
        "image": "chutes/sglang:0.5.0",
        "effective_compute_multiplier": math.prod(factors.values()),
        "compute_multiplier_factors": factors,
        "bounty": None if age is None else bounty_amount(age),
    }


def image_rows(start: float) -> Iterator[Row]:
    """Yield the images: built, being built, pending, and failed."""
    for number, (status, started, ended) in enumerate(_IMAGES):
        yield {
            "image_id": make_uuid("image", number),
            "name": "sglang",
            "tag": f"0.5.{number}",
            "public": number != 1,
            "status": status,
            "created_at": iso(start - (10 + number) * DAY),
            "chutes_version": "0.6.1",
            "patch_version": "initial",
            "build_started_at": None if started is None else iso(start - started * HOUR),
            "build_completed_at": None if ended is None else iso(start - ended * HOUR),
            "username": "chutes",
        }


def _gpu_row(gpu: Gpu) -> Row:
    return {
        "uuid": gpu.uuid,
        "gpu_identifier": gpu.model,
        "device_index": gpu.device_index,
        "verified_at": iso(gpu.verified_at),
        "verification_error": gpu.error,
    }


def node_row(server: Server, gpu: Gpu) -> Row:
    """Return a GPU."""
    model = MODELS[gpu.model]
    return _gpu_row(gpu) | {
        "name": model.name,
        "memory": model.memory,
        "processors": model.processors,
        "clock_rate": model.clock_rate,
        "server_id": gpu.server_id,
        "created_at": iso(gpu.created_at),
        "verification_host": server.ip,
    }


def server_row(server: Server, now: float) -> Row:
    """Return a server with its GPUs."""
    return {
        "server_id": server.server_id,
        "name": server.name,
        "ip": server.ip,
        "is_tee": server.is_tee,
        "version": server.version_at(now),
        "maintenance_pending": server.maintenance_pending(now),
        "created_at": iso(server.created_at),
        "updated_at": iso(server.updated_at),
        "gpus": [_gpu_row(gpu) for gpu in server.gpus],
    }


def instance_rows(world: World, miner: Miner, now: float) -> Iterator[Row]:
    """Yield a miner's instances."""
    for instance in world.instances(now, miner.hotkey):
        yield {
            "instance_id": instance.instance_id,
            "chute_id": instance.chute.chute_id,
            "version": instance.version,
            "active": instance.active(now),
            "verified": instance.last_verified_at(now) is not None,
            "created_at": iso(instance.created_at),
            "activated_at": iso(instance.activated_at) if instance.activated(now) else None,
            "last_verified_at": iso(instance.last_verified_at(now)),
            "stop_billing_at": iso(instance.stop_billing_at(now)),
            "billed_to": None if instance.chute.public else make_uuid("user", instance.chute.chute_id),
            "chutes_version": _library(instance.chute),
            "bounty": instance.has_bounty(now),
            "hourly_rate": instance.hourly_rate,
            "compute_multiplier": instance.multiplier(now),
        }


def inventory(world: World, miner: Miner, now: float) -> list[Row]:
    """Return the GPUs of a miner's instances in any state."""
    return [
        {
            "gpu_id": gpu.uuid,
            "last_verified_at": iso(instance.last_verified_at(now)),
            "active": instance.active(now),
            "chute_id": instance.chute.chute_id,
            "chute_name": instance.chute.name,
        }
        for instance in world.instances(now, miner.hotkey)
        for gpu in instance.gpus
    ]


def active_instances(world: World, now: float) -> list[Row]:
    """Return the active instances of all miners."""
    return [
        {
            "instance_id": instance.instance_id,
            "miner_hotkey": instance.hotkey,
            "chute_id": instance.chute.chute_id,
            "activated_at": iso(instance.activated_at),
            "compute_multiplier": instance.multiplier(now),
        }
        for instance in world.instances(now)
        if instance.active(now)
    ]


def audit_list(now: float) -> list[Row]:
    """Return the validator's report of each hour that began within 25 hours. The block is the number of the hour."""
    ends = (last(now - MINUTE, HOUR) - hour * HOUR for hour in range(25))
    return [
        {
            "path": f"audit/validator/{_VALIDATOR}/{round(end / HOUR)}.json",
            "created_at": iso(end + MINUTE),
            "start_time": iso(end - HOUR),
            "end_time": iso(end),
        }
        for end in ends
    ]


def audit_report(world: World, path: str) -> Row:
    """Return the report of an hour: each instance that exists or ended in it, and their multipliers."""
    end = HOUR * int(path.rpartition("/")[2].removesuffix(".json"))
    found = [one for one in world.all_instances(end) if one.ended_at > end - HOUR]
    return {
        "instance_audit": [_audit_row(one, end) for one in found],
        "compute_history": [
            {
                "instance_id": one.instance_id,
                "compute_multiplier": multiplier,
                "started_at": iso(start),
                "ended_at": iso(until),
            }
            for one in found
            for start, until, multiplier in one.history(end)
            if until is None or until > end - HOUR
        ],
    }


def _audit_row(instance: Instance, now: float) -> Row:
    ended = instance.ended_at <= now
    return {
        "instance_id": instance.instance_id,
        "chute_id": instance.chute.chute_id,
        "created_at": iso(instance.created_at),
        "activated_at": iso(instance.activated_at) if instance.activated(now) else None,
        "deleted_at": iso(instance.ended_at) if ended else None,
        "deletion_reason": instance.end.value if ended else None,
        "valid_termination": ended and instance.end in VALID_ENDS,
        "miner_hotkey": instance.hotkey,
        "stop_billing_at": iso(instance.stop_billing_at(now)),
        "billed_to": None if instance.chute.public else make_uuid("user", instance.chute.chute_id),
        "compute_multiplier": instance.multiplier(now),
    }


def job_row(job: Job) -> Row:
    """Return a job."""
    return {
        "job_id": job.job_id,
        "chute_id": job.chute.chute_id,
        "method": "run",
        "miner_hotkey": None if job.miner is None else job.miner.hotkey,
        "created_at": iso(job.created_at),
        "finished_at": iso(job.finished_at),
        "job_args": {"prompt": "the user's own data"},
        "status": job.status,
        "miner_history": list(job.tried_by),
        "compute_multiplier": job.chute.base_multiplier,
    }


def _refused(load: float) -> float:
    """Return the share of requests that are refused under a load."""
    refused = max(0.0, load - SCALING_THRESHOLD)
    return refused / (5 * load + refused) if load else 0.0


def metrics_rows(world: World, now: float) -> Iterator[Row]:
    """Yield the demand for each chute that has an instance in any state, as last calculated."""
    at = last(now, SOFT_PERIOD)
    active = world.active_counts(at)
    existing = {instance.chute.chute_id for instance in world.instances(at)}
    for chute in world.chutes:
        if chute.chute_id in existing:
            load = chute.utilization(at)
            invocations = int(2000 * load)
            price = chute.base_multiplier * DEAREST_RATE / HOUR
            yield {
                "chute_id": chute.chute_id,
                "compute_multiplier": chute.base_multiplier,
                "total_invocations": invocations,
                "total_compute_time": invocations * 1.5,
                "rate_limit_count": int(invocations * _refused(load)),
                "instance_count": active[chute.chute_id],
                "utilization": load,
                "per_second_price_usd": price,
                "total_usage_usd": invocations * 1.5 * price,
            }


def stats_window(work: dict[tuple[str, str], Work]) -> Row:
    """Return a window of the stats. Miners without compute units have no record."""
    records = [
        {
            "miner_hotkey": hotkey,
            **({"chute_id": chute_id} if chute_id else {}),
            "total_instances": entry.instances,
            "bounty_count": entry.bounties,
            "compute_seconds": entry.seconds,
            "compute_units": entry.units,
        }
        for (hotkey, chute_id), entry in work.items()
        if entry.units > 0
    ]
    return {"instance_stats": records, "bounties": [], "compute_units": records}


def scores(world: World, now: float) -> Row:
    """Return the scores, as last calculated."""
    names = ("total_instances", "bounty_score", "instance_seconds", "instance_compute_units")
    raw = {miner: dict(zip(names, astuple(entry), strict=True)) for miner, entry in world.scored(now).items()}
    return {"raw_values": raw, "final_scores": world.shares(now)}


def metagraph(world: World, now: float) -> list[Row]:
    """Return the seats, as last read from the chain."""
    incentives = world.incentives(now)
    rows = []
    for miner in world.miners:
        incentive = incentives.get(miner.hotkey, 0)
        rows.append(
            {
                "hotkey": miner.hotkey,
                "coldkey": miner.coldkey,
                "node_id": miner.uid,
                "incentive": float(incentive),
                "vtrust": float(min(65535, incentive + incentive // 12)),
                "stake": miner.stake,
                "alpha_stake": miner.stake * 0.9,
                "tao_stake": miner.stake * 0.1,
                "blacklist_reason": miner.blacklist_reason,
                "ip": str(miner.axon),
                "port": 8091 if miner.axon else 0,
                "synced_at": iso(miner.registered_at),
            }
        )
    return rows


def utilization(world: World, now: float) -> Iterator[Row]:
    """Yield the autoscaler's newest record of each chute, with the current counts."""
    run = last(now, SOFT_PERIOD)
    total = Counter(one.chute.chute_id for one in world.instances(now))
    earlier, current = world.active_counts(run), world.active_counts(now)
    for chute in world.chutes:
        if not chute.scaled:
            continue
        key = chute.chute_id
        before, active = earlier[key], current[key]
        target = world.lives.target(chute, now)
        # The service measures nothing for a chute without an instance.
        loads = {
            window: chute.utilization(run - seconds / 2) if before else 0.0
            for window, seconds in (("5m", 5 * MINUTE), ("15m", 15 * MINUTE), ("1h", HOUR))
        }
        yield {
            "chute_id": key,
            "name": _shown_name(chute),
            "timestamp": iso(run),
            **{f"utilization_{window}": round(load, 4) for window, load in loads.items()},
            **{f"rate_limit_ratio_{window}": round(_refused(load), 4) for window, load in loads.items()},
            "instance_count": before,
            "target_count": target,
            "total_instance_count": total[key],
            "active_instance_count": active,
            "scalable": active < target,
            "scale_allowance": max(0, target - active),
        }


def bounties(world: World, now: float) -> list[Row]:
    """Return the open bounties, oldest first."""
    ages = {chute: age for chute in world.chutes if (age := world.bounty_age(chute, now)) is not None}
    return [
        {
            "chute_id": chute.chute_id,
            "seconds_elapsed": int(age),
            "time_remaining": round(chute.bounty_lifetime - age),
            "created_at": now - age,
        }
        for chute, age in sorted(ages.items(), key=lambda offer: -offer[1])
    ]


def rolling_updates(world: World, now: float) -> list[Row]:
    """Return the rolling updates: of chutes with an active instance of an older version."""
    old = {one.chute for one in world.instances(now) if one.active(now) and one.version != one.chute.version(now)}
    return [
        {
            "chute_id": chute.chute_id,
            "old_version": chute.version(now - chute.deploy_period),
            "new_version": chute.version(now),
            "started_at": iso(chute.deployed_at(now)),
        }
        for chute in world.chutes
        if chute in old
    ]


def maintenance(world: World, miner: Miner, now: float) -> Row:
    """Return the maintenance window, and a miner's TEE servers measured against its target."""
    servers = [
        {
            "server_id": server.server_id,
            "name": server.name,
            "version": version,
            "needs_upgrade": version != world.target,
            "in_maintenance": server.maintenance_status(now) == "maintenance",
            "maintenance_status": server.maintenance_status(now),
        }
        for server in miner.servers
        if server.is_tee
        for version in [server.version_at(now)]
    ]
    opens, closes = world.window
    return {
        "active_window": {
            "id": WINDOW_ID,
            "target_measurement_version": world.target,
            "upgrade_window_start": iso(opens),
            "upgrade_window_end": iso(closes),
            "max_concurrent_per_miner": 1,
        },
        "window_open": opens <= now <= closes,
        "current_slots": sum(one["maintenance_status"] != "none" for one in servers),
        "servers": servers,
    }


def server_maintenance(world: World, miner: Miner, server: Server, now: float) -> Row:
    """Return what a server in an upgrade slot waits for: its instances, while its maintenance is pending."""
    gpus = set(server.gpus)
    waiting = [one for one in world.instances(now, miner.hotkey) if one.active(now) and not gpus.isdisjoint(one.gpus)]
    is_pending = server.upgrade is not None and server.maintenance_status(now) == "pending"
    return {
        "server_id": server.server_id,
        "maintenance_status": server.maintenance_status(now),
        "awaiting_replacement": [
            {"chute_id": one.chute.chute_id, "instance_id": one.instance_id} for one in waiting if is_pending
        ],
        "pending_deadline": iso(server.upgrade[0] + 3 * HOUR) if is_pending and server.upgrade else None,
    }


def tee_measurements() -> list[Row]:
    """Return the images that TEE servers can boot, for each version and model."""
    return [{"version": one, "name": f"8x{model}"} for one in World.accepted_versions for model in _MEASURED_MODELS]


def supported_gpus() -> Row:
    """Return the service's table of GPU models."""
    return {key: {"hourly_rate": model.hourly_rate} for key, model in MODELS.items()}


def nodes(world: World, now: float) -> Row:
    """Return the GPUs of the platform that are in an instance or not, by model."""
    counts: Row = {}
    held = {gpu.uuid for one in world.instances(now) for gpu in one.gpus}
    for gpu in (gpu for miner in world.miners for gpu in miner.gpus):
        count = counts.setdefault(gpu.model, {"provisioned": 0, "idle": 0})
        count["provisioned" if gpu.uuid in held else "idle"] += 1
    return counts


def detailed_nodes(world: World, now: float, hotkey: str | None) -> Row:
    """Return all GPUs of every miner that has any, or of one, with their instances in any state."""
    rows: Row = {
        miner.hotkey: {"provisioned": [], "idle": Counter(gpu.model for gpu in miner.gpus)}
        for miner in world.miners
        if miner.gpus and hotkey in (None, miner.hotkey)
    }
    for instance in world.instances(now, hotkey):
        row = rows.get(instance.hotkey)
        if row is None:
            # Its miner has lost the seat.
            continue
        chute = {
            "name": _shown_name(instance.chute),
            "chute_id": instance.chute.chute_id,
            "created_at": iso(instance.created_at),
            "activated_at": iso(instance.activated_at) if instance.activated(now) else None,
            "instance_id": instance.instance_id,
        }
        for gpu in instance.gpus:
            row["provisioned"].append({"gpu": gpu.model, "server_id": gpu.server_id, "chute": chute})
            row["idle"][gpu.model] -= 1
    return {key: {**row, "idle": +row["idle"]} for key, row in rows.items()}
