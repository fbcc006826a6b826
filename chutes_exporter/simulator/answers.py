"""The endpoints' answers as JSON values, with every field that the service sends."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chutes_exporter.simulator.chutes import SCALING_THRESHOLD, bounty_amount
from chutes_exporter.simulator.hardware import DEAREST_RATE, MODELS
from chutes_exporter.simulator.maintenance import SLOTS, is_older
from chutes_exporter.simulator.times import (
    CACHE_PERIOD,
    DAY,
    HOUR,
    METRICS_PERIOD,
    MINUTE,
    SOFT_PERIOD,
    SYNC_PERIOD,
    WEEK,
    last,
    make_random,
    make_uuid,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from chutes_exporter.simulator.chutes import Chute
    from chutes_exporter.simulator.instances import Gpu, Instance
    from chutes_exporter.simulator.jobs import Job
    from chutes_exporter.simulator.lives import Bounty
    from chutes_exporter.simulator.world import Miner, Server, Work, World

Row = dict[str, Any]

WINDOWS = (("past_hour", HOUR), ("past_day", DAY), ("all", WEEK))
_IMAGES = (
    # The status, and hours from the build's start to the start of the world.
    ("built and pushed", 30.0),
    ("built and pushed", 80.0),
    ("building", None),
    ("pending build", None),
    ("built and pushed", 200.0),
    ("built and pushed", 5.0),
    ("error: step RUN pip install exited with 1", 50.0),
    ("error", 90.0),
)
_BUILD_PERIOD: Final = 20 * MINUTE
_AXON_PORT: Final = 8091
_VALIDATOR_KEYS = "-----BEGIN CERTIFICATE-----\nc2ltdWxhdGVk\n-----END CERTIFICATE-----\n"


def iso(time: float | None, *, offset: bool = True) -> str | None:
    """Format a Unix time like the service, with or without an offset."""
    if time is None:
        return None
    moment = datetime.fromtimestamp(time, UTC)
    return (moment if offset else moment.replace(tzinfo=None)).isoformat()


def _library(chute: Chute) -> str:
    """Return the version of the library that a chute was made with."""
    if not chute.tee:
        return "0.3.60"
    return "0.6.1" if chute.phase < 0.8 else "0.5.11"


def chute_row(world: World, chute: Chute, now: float, *, bounties: bool) -> Row:
    """Return a chute.

    Args:
        world: Its world.
        chute: The chute.
        now: Unix time.
        bounties: Whether the service knows the bounties.
    """
    age = world.bounty_age(chute, now) if bounties else None
    factors = chute.factors(now, age)
    effective = 1.0
    for factor in factors.values():
        effective *= factor
    version = chute.version(now)
    stem = make_random(chute.seed, "settings")
    return {
        "chute_id": chute.chute_id,
        "user_id": chute.user_id,
        "name": chute.name,
        "tagline": "simulated",
        "readme": f"# {chute.chute_id}\n" * (world.size.source_bytes // (len(chute.chute_id) + 3)),
        "tool_description": None,
        "image_id": make_uuid("image", 0),
        "logo_id": None,
        "public": chute.public,
        "standard_template": stem.choice(("vllm", "diffusion", "tei", "embedding", None)),
        "cords": [{"path": "/v1/completions", "method": "POST", "stream": True}],
        "jobs": [],
        "node_selector": {
            "include": list(chute.models),
            "gpu_count": chute.gpu_count,
            "compute_multiplier": chute.base_multiplier,
            "supported_gpus": list(chute.models),
        },
        "slug": chute.slug,
        "code": f"print('legacy placeholder for obj.version='{version}'')",
        "filename": "app.py",
        "ref_str": "app:chute",
        "version": version,
        "concurrency": stem.choice((1, 8, 32)),
        "boost": chute.boost(now),
        "chutes_version": _library(chute),
        "revision": None,
        "openrouter": stem.random() < 0.3,
        "discount": stem.choice((0.0, 0.0, 0.0, 0.25)),
        "created_at": iso(chute.created_at),
        "updated_at": iso(chute.deployed_at(now)),
        "max_instances": chute.max_instances,
        "scaling_threshold": SCALING_THRESHOLD,
        "shutdown_after_seconds": stem.choice((300, 900, 1800)),
        "allow_external_egress": stem.random() < 0.5,
        "encrypted_fs": False,
        "tee": chute.tee,
        "lock_modules": None,
        "immutable": False,
        "disabled": chute.disabled,
        "invocation_count": int(12_000 * chute.utilization(last(now, CACHE_PERIOD))),
        "supported_gpus": list(chute.models),
        "preemptible": chute.public,
        "image": "chutes/sglang:0.5.0",
        "effective_compute_multiplier": effective,
        "compute_multiplier_factors": factors,
        "bounty": None if age is None else bounty_amount(age),
    }


def image_rows(start: float, now: float) -> Iterator[Row]:
    """Yield the images: built, failed, pending, and one that is rebuilt all the time."""
    for number, (status, age) in enumerate(_IMAGES):
        started = None if age is None else start - age * HOUR
        if status == "building":
            started = last(now, _BUILD_PERIOD)
        built = status == "built and pushed" and started is not None
        yield {
            "image_id": make_uuid("image", number),
            "user_id": make_uuid("user", number),
            "name": "sglang",
            "tag": f"0.5.{number}",
            "readme": "A simulated image.",
            "logo_id": None,
            "public": number != 1,
            "status": status,
            "created_at": iso(start - (10 + number) * DAY),
            "chutes_version": "0.5.11",
            "patch_version": "initial",
            "build_started_at": iso(started),
            "build_completed_at": iso(started + 14 * MINUTE) if built and started is not None else None,
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


def node_row(miner: Miner, server: Server, gpu: Gpu) -> Row:
    """Return a GPU."""
    model = MODELS[gpu.model]
    return _gpu_row(gpu) | {
        "name": model.name,
        "memory": model.memory,
        "major": model.major,
        "minor": model.minor,
        "processors": model.processors,
        "sxm": model.sxm,
        "clock_rate": model.clock_rate,
        "max_threads_per_processor": model.max_threads,
        "concurrent_kernels": True,
        "ecc": model.sxm,
        "seed": gpu.seed,
        "miner_hotkey": miner.hotkey,
        "server_id": gpu.server_id,
        "created_at": iso(gpu.created_at),
        "verification_host": server.ip,
        "verification_port": 30000,
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
            "miner_uid": miner.uid,
            "miner_hotkey": miner.hotkey,
            "miner_coldkey": miner.coldkey,
            "region": "n/a",
            "active": instance.active(now),
            "verified": instance.verified(now),
            "last_queried_at": None,
            "created_at": iso(instance.created_at),
            "updated_at": None,
            "activated_at": iso(instance.activated_at) if instance.activated(now) else None,
            "last_verified_at": iso(instance.last_verified_at(now)),
            "stop_billing_at": iso(instance.stop_billing_at(now), offset=False),
            "billed_to": None if instance.chute.public else instance.chute.user_id,
            "verification_error": None,
            "consecutive_failures": 0,
            "chutes_version": _library(instance.chute),
            "config_id": make_uuid(instance.instance_id, "config"),
            "deployment_id": make_uuid(instance.instance_id, "deployment"),
            "cacert": _VALIDATOR_KEYS,
            "bounty": instance.has_bounty(now),
            "extra": {"e2e_pubkey": "simulated", "warmup_compute_multiplier": instance.warmup_multiplier},
            "hourly_rate": instance.hourly_rate,
            "compute_multiplier": instance.multiplier(now),
        }


def inventory(world: World, miner: Miner, now: float) -> list[Row]:
    """Return the GPUs of a miner's instances in any state."""
    return [
        {
            "gpu_id": gpu.uuid,
            "last_verified_at": iso(instance.last_verified_at(now)),
            "verification_error": None,
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


def compute_history_rows(world: World, now: float) -> Iterator[tuple[str, str, str, str]]:
    """Yield the multipliers of every instance in the past 8 days, including deleted instances."""
    for instance in world.all_instances(now):
        for start, end, multiplier in instance.history(now):
            if end is None or end > now - 8 * DAY:
                yield instance.instance_id, repr(multiplier), _moment(start), "" if end is None else _moment(end)


def _moment(time: float) -> str:
    """Write a Unix time as PostgreSQL does, without an offset."""
    return str(datetime.fromtimestamp(time, UTC).replace(tzinfo=None))


def job_row(job: Job) -> Row:
    """Return a job."""
    return {
        "job_id": job.job_id,
        "user_id": job.chute.user_id,
        "chute_id": job.chute_id,
        "version": job.chute.version(job.created_at),
        "chutes_version": _library(job.chute),
        "method": "run",
        "miner_uid": None if job.miner is None else job.miner.uid,
        "miner_hotkey": None if job.miner is None else job.miner.hotkey,
        "miner_coldkey": None if job.miner is None else job.miner.coldkey,
        "instance_id": None,
        "active": False,
        "verified": False,
        "last_queried_at": None,
        "created_at": iso(job.created_at, offset=False),
        "updated_at": iso(job.finished_at, offset=False),
        "started_at": iso(job.started_at, offset=False),
        "finished_at": iso(job.finished_at, offset=False),
        "job_args": {"prompt": "the user's own data", "_disk_gb": 10},
        "node_selector": None,
        "status": job.status,
        "result": job.result,
        "error_detail": job.error_detail,
        "output_files": None,
        "miner_terminated": None,
        "miner_history": list(job.tried_by),
        "compute_multiplier": job.chute.base_multiplier,
    }


def _completed(load: float) -> float:
    """Return the requests that are completed in an hour under a load."""
    return 2000 * load


def _refused(load: float) -> float:
    """Return the requests that are refused in an hour under a load."""
    return max(0.0, (load - SCALING_THRESHOLD) * 400)


def metrics_rows(world: World, now: float, *, zeros: bool) -> Iterator[Row]:
    """Yield the demand for each chute that has an instance in any state, as last calculated.

    Args:
        world: Their world.
        now: Unix time.
        zeros: Whether the demand is unknown, which the service shows as 0.
    """
    at = last(now, METRICS_PERIOD)
    counts: Counter[str] = Counter()
    for instance in world.instances(at):
        counts[instance.chute.chute_id] += instance.active(at)
    for chute in world.chutes:
        if chute.chute_id in counts:
            load = 0 if zeros else chute.utilization(at)
            invocations = int(_completed(load))
            price = chute.base_multiplier * DEAREST_RATE / HOUR
            yield {
                "chute_id": chute.chute_id,
                "end_date": iso(at),
                "start_date": iso(at),
                "compute_multiplier": chute.base_multiplier,
                "total_invocations": invocations,
                "total_compute_time": invocations * 1.5,
                "error_count": 0,
                "rate_limit_count": int(_refused(load)),
                "instance_count": counts[chute.chute_id],
                "utilization": load,
                "per_second_price_usd": price,
                "total_usage_usd": invocations * 1.5 * price,
            }


def stats_window(work: dict[tuple[str, str], Work], *, per_chute: bool) -> Row:
    """Return a window of the stats. Miners without compute units have no record."""
    records = []
    for (hotkey, chute_id), entry in work.items():
        if entry.units > 0:
            record: Row = {"miner_hotkey": hotkey}
            if per_chute:
                record["chute_id"] = chute_id
            record |= {
                "total_instances": entry.instances,
                "bounty_count": entry.bounties,
                "compute_seconds": entry.seconds,
                "compute_units": entry.units,
                "invocation_count": entry.instances,
            }
            if not per_chute:
                record["total_bounty"] = float(entry.bounties)
            records.append(record)
    bounties = [{"miner_hotkey": one["miner_hotkey"], "total_bounty": float(one["bounty_count"])} for one in records]
    return {"instance_stats": records, "bounties": [] if per_chute else bounties, "compute_units": records}


def scores(world: World, now: float, hotkey: str | None) -> Row:
    """Return the scores, as last calculated: everybody's, or one hotkey's."""
    raw: dict[str, Row | None] = {
        miner: {
            "total_instances": float(entry.instances),
            "bounty_score": float(entry.bounties),
            "instance_seconds": entry.seconds,
            "instance_compute_units": entry.units,
        }
        for miner, entry in world.scored(now).items()
    }
    shares = world.shares(now)
    if hotkey is None:
        return {"raw_values": raw, "final_scores": shares}
    return {"raw_values": {hotkey: raw.get(hotkey)}, "final_scores": {hotkey: shares.get(hotkey)}}


def history_row(time: float, count: int, total: int) -> Row:
    """Return an hour of a history, with the time in PostgreSQL's format."""
    text = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S+00")
    return {"time": text, "count": count, "total_count": total}


def metagraph(world: World, now: float) -> list[Row]:
    """Return the seats, as last read from the chain."""
    incentives = world.incentives(now)
    synced = last(now, SYNC_PERIOD)
    rows = []
    for miner in world.miners:
        incentive = incentives.get(miner.hotkey, 0)
        # The seat continuously gets emission.
        stake = miner.stake * (1 + (synced - world.start) / (1000 * DAY))
        row: Row = {
            "hotkey": miner.hotkey,
            "alpha_stake": stake * 0.9,
            "real_host": None,
            "trust": 0.0,
            "real_port": None,
            "vtrust": float(min(65535, incentive + incentive // 12)),
            "synced_at": iso(miner.registered_at, offset=False),
            "coldkey": miner.coldkey,
            "last_updated": None,
            "blacklist_reason": miner.blacklist_reason,
            "node_id": miner.uid,
            "ip": str(miner.axon),
            "incentive": float(incentive),
            "ip_type": 4,
            "stake": stake,
            "port": _AXON_PORT if miner.axon else 0,
            "netuid": 64,
            "tao_stake": stake * 0.1,
            "protocol": 4,
        }
        rows.append(row | {"checksum": hashlib.sha256(repr(row).encode()).hexdigest()})
    return rows


def utilization(world: World, now: float, logged: float, *, known: bool) -> Iterator[Row]:
    """Yield the autoscaler's newest record of each chute, with the current counts.

    Args:
        world: Where they are.
        now: Unix time.
        logged: Unix time at which the log was read: earlier than now where the autoscaler has stopped.
        known: Whether the autoscaler's monitoring worked. If not, all loads are 0.
    """
    run = last(logged, SOFT_PERIOD)
    total = Counter(one.chute.chute_id for one in world.instances(now))
    for chute in world.chutes:
        if not chute.scaled:
            continue
        key = chute.chute_id
        before, active = world.active_counts(run)[key], world.active_counts(now)[key]
        target = world.target_instances(chute, logged)
        # The service measures nothing for a chute without an instance.
        loads = {
            window: chute.utilization(run - seconds / 2) if before and known else 0.0
            for window, seconds in (("current", 0.0), ("5m", 5 * MINUTE), ("15m", 15 * MINUTE), ("1h", HOUR))
        }
        row: Row = {
            "chute_id": key,
            "name": chute.name if chute.public else "[private chute]",
            "timestamp": iso(run, offset=False),
        }
        row |= {f"utilization_{window}": round(load, 4) for window, load in loads.items()}
        requests = {
            window: (_completed(loads[window]) * hours, _refused(loads[window]) * hours)
            for window, hours in (("5m", 1 / 12), ("15m", 1 / 4), ("1h", 1.0))
        }
        for window, (completed, refused) in requests.items():
            row[f"rate_limit_ratio_{window}"] = round(refused / (completed + refused), 4) if completed else 0.0
        for window, (completed, refused) in requests.items():
            row[f"total_requests_{window}"] = completed + refused
        for window, (completed, _) in requests.items():
            row[f"completed_requests_{window}"] = completed
        for window, (_, refused) in requests.items():
            row[f"rate_limited_requests_{window}"] = refused
        yield row | {
            "instance_count": before,
            "action_taken": "no_action" if target <= before else "scale_up_candidate",
            "target_count": target,
            "effective_multiplier": math.prod(chute.factors(run, None).values()),
            "total_instance_count": total[key],
            "active_instance_count": active,
            "scalable": active < target,
            "scale_allowance": max(0, target - active),
            "avg_busy_ratio": row["utilization_1h"],
            "total_invocations": row["total_requests_1h"],
            "total_rate_limit_errors": row["rate_limited_requests_1h"],
        }


def bounties(world: World, now: float) -> list[Row]:
    """Return the open bounties, oldest first, including the bounty of a deleted chute."""
    offers = [(chute.chute_id, bounty) for chute in world.chutes if (bounty := world.bounty(chute, now)) is not None]
    if (lost := world.lost_bounty(now)) is not None:
        offers.append(lost)
    return [_bounty_row(chute_id, bounty, now) for chute_id, bounty in sorted(offers, key=lambda one: one[1].made_at)]


def _bounty_row(chute_id: str, bounty: Bounty, now: float) -> Row:
    age = int(now - bounty.made_at)
    return {
        "chute_id": chute_id,
        "bounty_amount": bounty_amount(age),
        "seconds_elapsed": age,
        "time_remaining": round(bounty.expires_at - now),
        "created_at": bounty.made_at,
    }


def rolling_updates(world: World, now: float) -> list[Row]:
    """Return the rolling updates that are under way."""
    return [
        {
            "chute_id": update.chute.chute_id,
            "old_version": update.chute.old_version(now),
            "new_version": update.chute.version(now),
            "started_at": iso(update.started_at, offset=False),
            "permitted": update.permitted,
        }
        for update in world.rolling_updates(now)
    ]


def maintenance(world: World, miner: Miner, now: float) -> Row:
    """Return the newest maintenance window, and a miner's TEE servers measured against its target."""
    window = world.window(now)
    if window is None:
        return {"active_window": None, "window_open": False, "current_slots": 0, "servers": []}
    servers = [
        {
            "server_id": server.server_id,
            "name": server.name,
            "version": version,
            "needs_upgrade": version is None or is_older(version, window.target),
            "in_maintenance": server.maintenance_pending(now),
        }
        for server in miner.servers
        if server.is_tee
        for version in [server.version_at(now)]
    ]
    return {
        "active_window": {
            "id": make_uuid("window", window.number),
            "target_measurement_version": window.target,
            "upgrade_window_start": str(datetime.fromtimestamp(window.opens_at, UTC)),
            "upgrade_window_end": str(datetime.fromtimestamp(window.closes_at, UTC)),
            "max_concurrent_per_miner": SLOTS,
        },
        "window_open": window.is_open(now),
        "current_slots": sum(bool(one["in_maintenance"]) for one in servers),
        "servers": servers,
    }


def tee_measurements(world: World, now: float) -> list[Row]:
    """Return the images that TEE servers can boot, for each version and model."""
    return [
        {
            "version": version,
            "name": f"8x{model}",
            "mrtd": _digits(version, 96),
            "boot_rtmrs": {f"RTMR{number}": _digits(f"{version}/{model}/boot/{number}", 96) for number in range(4)},
            "runtime_rtmrs": {f"RTMR{number}": _digits(f"{version}/{model}/run/{number}", 96) for number in range(4)},
            "expected_gpus": [model],
            "gpu_count": 8,
            "fingerprint": _digits(f"{version}/{model}", 64).lower(),
        }
        for version in world.accepted_versions(now)
        for model in ("pro_6000", "h200", "b200")
    ]


def _digits(text: str, count: int) -> str:
    """Return some hexadecimal digits that belong to a text."""
    return hashlib.shake_256(text.encode()).hexdigest(count // 2).upper()


def supported_gpus() -> Row:
    """Return the service's table of GPU models."""
    return {
        key: {
            "model_name_check": model.name,
            "memory": model.memory // 2**30,
            "max_threads_per_processor": model.max_threads,
            "processors": model.processors,
            "clock_rate": {"base": int(model.clock_rate / 2000), "boost": int(model.clock_rate / 1000)},
            "hourly_rate": model.hourly_rate,
            "graval": {"iterations": 1, "estimate": 60},
        }
        for key, model in MODELS.items()
    }


def nodes(world: World, now: float) -> Row:
    """Return the GPUs of the platform that are in an instance or not, by model."""
    counts: Row = {model: {"provisioned": 0, "idle": 0} for model in MODELS}
    for gpus in detailed_nodes(world, now, None).values():
        for row in gpus["provisioned"]:
            counts[row["gpu"]]["provisioned"] += 1
        for model, count in gpus["idle"].items():
            counts[model]["idle"] += count
    return {model: count for model, count in counts.items() if any(count.values())}


def detailed_nodes(world: World, now: float, hotkey: str | None) -> Row:
    """Return all GPUs of every miner that has any, or of one, with their instances in any state."""
    instances = {gpu.uuid: one for one in world.instances(now, hotkey) for gpu in one.gpus}
    return {
        miner.hotkey: {
            "provisioned": [
                {"gpu": gpu.model, "server_id": gpu.server_id, "chute": _chute_on_gpu(instances[gpu.uuid], now)}
                for gpu in miner.gpus
                if gpu.uuid in instances
            ],
            "idle": dict(Counter(gpu.model for gpu in miner.gpus if gpu.uuid not in instances)),
        }
        for miner in world.miners
        if miner.gpus and hotkey in (None, miner.hotkey)
    }


def _chute_on_gpu(instance: Instance, now: float) -> Row:
    chute = instance.chute
    return {
        "username": "chutes" if chute.public else None,
        "name": chute.name if chute.public else "[private chute]",
        "chute_id": chute.chute_id,
        "created_at": iso(instance.created_at),
        "verified": instance.verified(now),
        "activated_at": iso(instance.activated_at) if instance.activated(now) else None,
        "instance_id": instance.instance_id,
        "bounty": instance.has_bounty(now),
    }
