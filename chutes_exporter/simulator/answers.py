"""The answer of each endpoint as JSON values, with the fields that the exporter reads.

The others are null.

The function of an endpoint has its name, and takes a call. That of a stream returns the records.
In a function, ``now`` is the time of the call, and ``run`` that of the last run of the service's
program that computed the answer.
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
"""Requests to a chute in an hour at a load of 1."""
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
    """Add null to an answer for each field that the service always sends, and that the simulator
    does not make. Change the answer in place, and return it.

    ``kind`` is the type of the answer, None if it has no content.
    """
    for _, record, fields in objects(kind, value):
        missing = known(record).always - fields.keys()
        for name in missing:
            fields[name] = None
    return value


def _iso(time: float | None, now: float = math.inf) -> str | None:
    """Format a Unix time.

    Return None for a time after ``now``, which is not known yet, or an infinite one, which never
    comes.
    """
    if time is None or time > now or math.isinf(time):
        return None
    return datetime.fromtimestamp(time, UTC).isoformat()


def _fields(record: object, names: str, now: float = math.inf) -> Json:
    """Return fields of a record by the API's names.

    A field with another name in the world is written ``api=ours``. A method is called with ``now``.
    Fields whose name ends with ``_at`` are Unix times. One after ``now`` is null, because it is not
    known yet.
    """
    fields = {}
    for name in names.split():
        api_name, _, our_name = name.partition("=")
        value = getattr(record, our_name or api_name)
        if callable(value):
            value = value(now)
        if api_name.endswith("_at"):
            value = _iso(value, now)
        fields[api_name] = value
    return fields


def _library(chute: Chute) -> str:
    """Return the version of the library of a chute.

    Chutes without TEE have an old one, and so has one in five of the others. The phase is drawn at
    random, so it chooses these.
    """
    if not chute.tee:
        return "0.3.60"
    return "0.6.1" if chute.phase < 0.8 else "0.5.11"


def _refused(load: float) -> float:
    """Return the share of requests that are refused under a load.

    It is 0 up to the scaling threshold, and rises slowly above it. The formula is made up.
    """
    excess = max(0.0, load - service.SCALING_THRESHOLD)
    return excess / (5 * load + excess) if excess else 0.0


def chutes(call: Call) -> Iterator[Json]:
    """Yield all chutes. Settings that change nothing in the world are drawn at random."""
    run = last_run(call.now, service.CACHE_PERIOD)
    # Of the service's private chutes, only old ones are preemptible. This world has none of these.
    names = "chute_id name slug version public tee disabled max_instances preemptible=public"
    for chute in call.world.chutes:
        bounty_age = call.world.bounty_age(chute, call.now)
        factors = chute.factors(call.now, bounty_age)
        draw = make_random(chute.seed, "settings")
        yield {
            **_fields(chute, names, call.now),
            "readme": _readme(chute, call.world.size.source_bytes),
            "standard_template": draw.choice(("vllm", "diffusion", "tei", "embedding", None)),
            "node_selector": {
                "gpu_count": chute.gpu_count,
                "min_vram_gb_per_gpu": min(MODELS[model].memory // 2**30 for model in chute.models),
                "supported_gpus": chute.models,
            },
            "concurrency": draw.choice((1, 8, 32)),
            "chutes_version": _library(chute),
            "discount": draw.choice((0.0, 0.0, 0.0, 0.25)),
            "scaling_threshold": service.SCALING_THRESHOLD,
            "shutdown_after_seconds": draw.choice((300, 900, 1800)),
            # The requests of the past day follow the present load. Their number is made up.
            "invocation_count": int(12_000 * chute.utilization(run)),
            "image": "chutes/sglang:0.5.0",
            "effective_compute_multiplier": math.prod(factors.values()),
            "compute_multiplier_factors": factors,
            "bounty": None if bounty_age is None else _bounty_amount(bounty_age),
        }


def _readme(chute: Chute, size: int) -> str:
    line = f"# {chute.chute_id}\n"
    return line * (size // len(line))


def _bounty_amount(age: float) -> int:
    """Return the amount that the service shows for a bounty of an age in seconds."""
    return min(100 + 3 * int(age), 86_400)


def chute(call: Call) -> Json:
    """Return the chute with the id and version in the path."""
    for row in chutes(call):
        # The parameters of the path are fields of the chute.
        if row.items() >= call.path.items():
            return row
    raise HTTPException(404, f"chute_id={call.path['chute_id']!r} not found")


def images(call: Call) -> Iterator[Json]:
    """Yield an image in each state of its build. One of them is private."""
    start = call.world.start
    # The hours from the build's start and end to the start of the world. Infinite ones mean that
    # it has not started or ended.
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
    run = last_run(call.now, service.SOFT_PERIOD)
    existing, active = call.world.counts(run)
    for chute in call.world.chutes:
        if not existing[chute]:
            continue
        load = chute.utilization(run)
        invocations = int(_INVOCATIONS_AT_FULL_LOAD * load)
        compute_seconds = _SECONDS_PER_INVOCATION * invocations
        price_per_second = chute.base_multiplier * service.DEAREST_RATE / HOUR
        yield {
            **_fields(chute, "chute_id utilization compute_multiplier=base_multiplier", run),
            "total_invocations": invocations,
            "total_compute_time": compute_seconds,
            "rate_limit_count": int(invocations * _refused(load)),
            "instance_count": active[chute],
            "per_second_price_usd": price_per_second,
            "total_usage_usd": compute_seconds * price_per_second,
        }


def utilization(call: Call) -> list[Json]:
    """Return load and number of instances at the autoscaler's last soft run, and current counts and
    targets.
    """
    world, now, run = call.world, call.now, last_run(call.now, service.SOFT_PERIOD)
    _, active_at_run = world.counts(run)
    existing_now, active_now = world.counts(now)
    rows = []
    for chute in world.chutes:
        # The answer lacks a chute that the autoscaler has not looked at yet.
        if not chute.scaled:
            continue
        active, target = active_now[chute], world.target(chute, now)
        row: Json = {
            "chute_id": chute.chute_id,
            "name": chute.name if chute.public else "[private chute]",
            "timestamp": _iso(run),
            "instance_count": active_at_run[chute],
            "target_count": target,
            "total_instance_count": existing_now[chute],
            "active_instance_count": active,
            "scalable": active < target,
            "scale_allowance": max(0, target - active),
        }
        for window, seconds in (("5m", 5 * MINUTE), ("15m", 15 * MINUTE), ("1h", HOUR)):
            # The load in the middle of the window stands for its average. The service measures
            # nothing for a chute without an instance.
            load = chute.utilization(run - seconds / 2) if active_at_run[chute] else 0.0
            row[f"utilization_{window}"] = round(load, 4)
            row[f"rate_limit_ratio_{window}"] = round(_refused(load), 4)
        rows.append(row)
    return rows


def bounties(call: Call) -> list[Json]:
    rows = []
    for chute in call.world.chutes:
        age = call.world.bounty_age(chute, call.now)
        if age is not None:
            row = {
                "chute_id": chute.chute_id,
                "seconds_elapsed": int(age),
                "time_remaining": round(chute.bounty_lifetime - age),
                "created_at": call.now - age,
            }
            rows.append(row)
    return rows


def rolling_updates(call: Call) -> list[Json]:
    """Return the rolling updates: of chutes with an active instance of an older version."""
    now = call.now
    chutes_in_update = set()
    for instance in call.world.instances(now):
        if instance.active(now) and instance.version != instance.chute.version(now):
            chutes_in_update.add(instance.chute)
    rows = []
    for chute in call.world.chutes:
        if chute in chutes_in_update:
            row = _fields(chute, "chute_id new_version=version started_at=deployed_at", now)
            row["old_version"] = chute.version(now - chute.deploy_period)
            rows.append(row)
    return rows


def nodes(call: Call) -> Iterator[Json]:
    """Yield the GPUs of the signing miner. The API calls them nodes."""
    of_gpu = "uuid gpu_identifier verified_at device_index verification_error=error"
    for server in call.signer.servers:
        for gpu in server.gpus:
            yield {
                **_fields(server, "server_id created_at verification_host=ip"),
                **_fields(gpu, of_gpu),
                **_fields(MODELS[gpu.gpu_identifier], "name memory processors clock_rate"),
            }


def servers(call: Call) -> Json:
    rows = []
    for server in call.signer.servers:
        row = _fields(server, "server_id name ip is_tee created_at updated_at")
        row["version"] = server.version_at(call.now)
        row["maintenance_pending"] = server.status(call.now) != "none"
        row["gpus"] = [_fields(gpu, "uuid gpu_identifier verified_at") for gpu in server.gpus]
        rows.append(row)
    return {"servers": rows}


def maintenance(call: Call) -> Json:
    """Return the maintenance window, and the miner's servers with TEE.

    Each server whose maintenance is pending or not over uses one of the miner's upgrade slots.
    """
    world, now = call.world, call.now
    rows = []
    for server in call.signer.servers:
        if server.is_tee:
            row = _fields(server, "server_id name version=version_at", now)
            row["maintenance_status"] = server.status(now)
            row["needs_upgrade"] = server.version_at(now) != world.target_version
            row["in_maintenance"] = server.status(now) == "maintenance"
            rows.append(row)
    in_slot = [row for row in rows if row["maintenance_status"] != "none"]
    opens_at, closes_at = world.window
    return {
        "active_window": {
            "id": make_uuid("window"),
            "target_measurement_version": world.target_version,
            "upgrade_window_start": _iso(opens_at),
            "upgrade_window_end": _iso(closes_at),
            "max_concurrent_per_miner": 1,
        },
        "window_open": opens_at <= now <= closes_at,
        "current_slots": len(in_slot),
        "servers": rows,
    }


def server_maintenance(call: Call) -> Json:
    """Return the active instances of a server that must be replaced elsewhere while its maintenance
    is pending, and until when the service waits for that.
    """
    servers_by_id = {server.server_id: server for server in call.signer.servers}
    server = servers_by_id[call.path["server_id"]]
    waits_for = []
    if server.status(call.now) == "pending":
        # All GPUs of an instance are on one server, so the first one tells which.
        waits_for = [
            _fields(instance, "chute_id instance_id")
            for instance in call.world.instances(call.now, call.signer.hotkey)
            if instance.active(call.now) and instance.gpus[0] in server.gpus
        ]
    upgrade_begins, _ = server.upgrade
    # The service waits for at most 3 hours for replacements elsewhere.
    deadline = upgrade_begins + 3 * HOUR
    return {"awaiting_replacement": waits_for, "pending_deadline": _iso(deadline)}


def tee_measurements(call: Call) -> list[Json]:
    """Return the images that TEE servers can boot: of each version, one for each class of hosts
    that miners have.
    """
    hosts: set[tuple[str, int]] = set()
    for miner in call.world.miners:
        for server in miner.servers:
            if server.is_tee and server.gpus:
                hosts.add((server.gpus[0].gpu_identifier, len(server.gpus)))
    rows = []
    for version in call.world.accepted_versions:
        for model, gpu_count in sorted(hosts):
            if (version, model, gpu_count) not in call.world.unmeasured_hosts:
                row = {
                    "version": version,
                    "name": f"{gpu_count}x{model}",
                    "expected_gpus": [model],
                    "gpu_count": gpu_count,
                }
                rows.append(row)
    return rows


def supported_gpus(_: Call) -> Json:
    return {key: {"hourly_rate": model.hourly_rate} for key, model in MODELS.items()}


def fmv(_: Call) -> Json:
    return {"tao": 431.17}


def platform_gpus(call: Call) -> Json:
    """Return how many GPUs of each model run an instance, and how many are idle."""
    held: set[Gpu] = set()
    for instance in call.world.instances(call.now):
        held.update(instance.gpus)
    counts_by_model: Json = {}
    for miner in call.world.miners:
        for gpu in miner.gpus:
            counts = counts_by_model.setdefault(gpu.gpu_identifier, {"provisioned": 0, "idle": 0})
            counts["provisioned" if gpu in held else "idle"] += 1
    return counts_by_model


def held_gpus(call: Call) -> Json:
    """Return the GPUs that run instances, by miner: of all miners, or of the one in the query.

    Miners with GPUs but no instance have an empty list.
    """
    hotkey = call.query.get("hotkey")
    gpus_by_hotkey: Json = {}
    for miner in call.world.miners:
        if miner.gpus and hotkey in (None, miner.hotkey):
            gpus_by_hotkey[miner.hotkey] = {"provisioned": []}
    for instance in call.world.instances(call.now, hotkey):
        # A miner that has lost its seat is missing.
        if instance.hotkey in gpus_by_hotkey:
            chute = _fields(instance, "chute_id instance_id activated_at", call.now)
            rows = [
                {"gpu": gpu.gpu_identifier, "server_id": gpu.server_id, "chute": chute}
                for gpu in instance.gpus
            ]
            gpus_by_hotkey[instance.hotkey]["provisioned"] += rows
    return gpus_by_hotkey


miner_gpus = held_gpus


def instances(call: Call) -> Iterator[Json]:
    names = (
        "instance_id chute_id version hourly_rate active bounty=has_bounty created_at activated_at "
        "last_verified_at=verified_at compute_multiplier=multiplier"
    )
    for instance in call.world.instances(call.now, call.signer.hotkey):
        yield {
            **_fields(instance, names, call.now),
            "config_id": make_uuid("config", instance.instance_id),
            "verified": instance.verified_at <= call.now,
            "chutes_version": _library(instance.chute),
            **_billing(instance, call.now),
        }


def _billing(instance: Instance, now: float) -> Json:
    """Return who pays for a private instance, and until when. A public one has neither.

    Its activation sets the time, and requests extend it, at most once a minute.
    """
    if instance.chute.public:
        return {}
    stops_at = None
    if instance.activated_at <= now:
        # After 15 minutes without a request, it would end.
        last_extension = last_run(min(now, instance.ended_at), MINUTE)
        stops_at = last_extension + 15 * MINUTE
    return {"stop_billing_at": _iso(stops_at), "billed_to": make_uuid("user", instance.chute_id)}


def inventory(call: Call) -> list[Json]:
    """Return the GPUs of the signing miner that are in an instance, in any state of it."""
    rows = []
    for instance in call.world.instances(call.now, call.signer.hotkey):
        for gpu in instance.gpus:
            row = _fields(instance, "chute_id active last_verified_at=verified_at", call.now)
            row["gpu_id"] = gpu.uuid
            row["chute_name"] = instance.chute.name
            rows.append(row)
    return rows


def active_instances(call: Call) -> list[Json]:
    names = "instance_id chute_id activated_at miner_hotkey=hotkey compute_multiplier=multiplier"
    return [
        _fields(instance, names, call.now)
        for instance in call.world.instances(call.now)
        if instance.active(call.now)
    ]


def audit(call: Call) -> list[Json]:
    """Return the validator's newest 25 reports.

    Each is made a minute after its hour. The path has the number of hours since 1970 at the end of
    the hour, and an invented address of the validator.
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
    hour = int(call.query["path"].rpartition("/")[2].removesuffix(".json"))
    end = hour * HOUR
    rows: list[Json] = []
    multipliers: list[Json] = []
    for instance in call.world.all_instances(end):
        if instance.ended_at > end - HOUR:
            rows.append(_audited(instance, end))
            multipliers += _multipliers(instance, end)
    return {"instance_audit": rows, "compute_history": multipliers}


def _audited(instance: Instance, end: float) -> Json:
    """Return what the report of an hour has about an instance. ``end`` is the end of the hour."""
    names = (
        "instance_id chute_id created_at activated_at deleted_at=ended_at miner_hotkey=hotkey "
        "compute_multiplier=multiplier"
    )
    has_ended = instance.ended_at <= end
    return {
        **_fields(instance, names, end),
        "deletion_reason": instance.end.value if has_ended else None,
        "valid_termination": has_ended and instance.end in service.VALID_ENDS,
        **_billing(instance, end),
    }


def _multipliers(instance: Instance, end: float) -> Iterator[Json]:
    """Yield the multipliers that an instance had in an hour. ``end`` is the end of the hour."""
    for record in instance.history(end):
        if record.ended_at > end - HOUR:
            yield {
                "instance_id": instance.instance_id,
                "compute_multiplier": record.multiplier,
                "started_at": _iso(record.started_at),
                "ended_at": _iso(record.ended_at, end),
            }


def jobs(call: Call) -> Iterator[Json]:
    for job in call.world.jobs(call.now):
        yield {
            **_fields(job, "job_id status created_at finished_at miner_history=tried_by", call.now),
            **_fields(job.chute, "chute_id compute_multiplier=base_multiplier"),
            "method": "run",
            "miner_hotkey": None if job.miner is None else job.miner.hotkey,
        }


def release_job(call: Call) -> None:
    """Release a job that is stuck with the signing miner."""
    job_id = call.path["job_id"]
    stuck_ids = set()
    for job in call.world.jobs(call.now):
        if job.stuck and job.miner is call.signer:
            stuck_ids.add(job.job_id)
    if job_id not in stuck_ids:
        raise HTTPException(404, f"{job_id=} not found or is not associated with your miner")
    call.world.released_jobs.add(job_id)


def thrash_cooldowns(call: Call) -> list[Json]:
    """Return the chutes of which the miner lost an active instance within the cooldown, each with
    the time of the last loss.
    """
    lost_at: dict[Chute, float] = {}
    for instance in call.world.all_instances(call.now, call.signer.hotkey):
        ended_at = instance.ended_at
        was_active = instance.activated_at < ended_at <= call.now
        was_lost = was_active and instance.end not in service.VALID_ENDS
        if was_lost and call.now < ended_at + call.world.cooldown:
            lost_at[instance.chute] = max(ended_at, lost_at.get(instance.chute, 0.0))
    return [
        {
            "chute_id": chute.chute_id,
            "chute_name": chute.name,
            "deleted_at": _without_offset(ended_at),
            "cooldown_expires_at": _without_offset(ended_at + call.world.cooldown),
        }
        for chute, ended_at in lost_at.items()
    ]


def _without_offset(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).replace(tzinfo=None).isoformat()


def stats(call: Call) -> Json:
    """Return the stats of all miners or one, in total or by chute.

    Miners without compute units have no record. ``all`` is 7 days, despite its name.
    """
    return {
        "past_hour": {"instance_stats": _stats_of_window(call, HOUR)},
        "past_day": {"instance_stats": _stats_of_window(call, DAY)},
        "all": {"instance_stats": _stats_of_window(call, 7 * DAY)},
    }


def _stats_of_window(call: Call, seconds: float) -> list[Json]:
    """Return the records of a window of so many seconds that ended at the last calculation.

    Those without compute units are left out.
    """
    wanted_hotkey = call.query.get("miner_hotkey")
    per_chute = call.query.get("per_chute") == "true"
    run = last_run(call.now, service.CACHE_PERIOD)
    rows: list[Json] = []
    for (hotkey, chute_id), work in call.world.work(run, seconds, per_chute=per_chute).items():
        if work["compute_units"] <= 0 or wanted_hotkey not in (None, hotkey):
            continue
        row: Json = {"miner_hotkey": hotkey}
        if per_chute:
            row["chute_id"] = chute_id
        rows.append(row | work)
    return rows


def scores(call: Call) -> Json:
    """Return the scores of all miners, or of the miner in the query.

    The values of that miner are null if it has no score.
    """
    shares = call.world.shares(call.now)
    work_of_day = call.world.work(last_run(call.now, service.CACHE_PERIOD), DAY)
    raw_values: dict[str, Json] = {}
    for hotkey in shares:
        # The work is not by chute, so the id of the chute is empty.
        work = work_of_day[hotkey, ""]
        raw_values[hotkey] = {
            "total_instances": work["total_instances"],
            "bounty_score": work["bounty_count"],
            "instance_seconds": work["compute_seconds"],
            "instance_compute_units": work["compute_units"],
        }
    wanted_hotkey = call.query.get("hotkey")
    if wanted_hotkey:
        return {
            "raw_values": {wanted_hotkey: raw_values.get(wanted_hotkey)},
            "final_scores": {wanted_hotkey: shares.get(wanted_hotkey)},
        }
    return {"raw_values": raw_values, "final_scores": shares}


def unique_chute_history(call: Call) -> list[Json]:
    """Return the GPUs that a miner used at each of 169 full hours of its past week, as last
    calculated.
    """
    hotkey, run = call.path["hotkey"], last_run(call.now, service.CACHE_PERIOD)
    activated = [one for one in call.world.all_instances(run, hotkey) if one.activated_at <= run]
    if not activated:
        raise HTTPException(404, f"Miner {hotkey} not found in unique history cache (yet)")
    rows = []
    for age in range(168, -1, -1):
        hour = last_run(run, HOUR) - age * HOUR
        running = [one for one in activated if one.activated_at <= hour < one.ended_at]
        running_chutes = {instance.chute for instance in running}
        row = {
            "time": _iso(hour),
            # A chute counts once, and an instance each time.
            "count": sum(chute.gpu_count for chute in running_chutes),
            "total_count": sum(len(instance.gpus) for instance in running),
        }
        rows.append(row)
    return rows


def metagraph(call: Call) -> list[Json]:
    names = "hotkey coldkey stake blacklist_reason node_id=uid synced_at=registered_at"
    rows = []
    for miner, seat in zip(call.world.miners, call.world.seats(call.now), strict=True):
        row = _fields(miner, names)
        row["incentive"] = float(seat.incentive)
        # The chain's consensus, which is a little higher than the incentive of a miner here.
        row["vtrust"] = float(min(65535, seat.incentive + seat.incentive // 12))
        # The two parts of the stake are made up.
        row["alpha_stake"] = miner.stake * 0.9
        row["tao_stake"] = miner.stake * 0.1
        rows.append(row)
    return rows
