"""The service's rules that give fields their meaning, as pure functions for collectors and commands.

``docs/earnings.md`` explains the rules to users. A function returns None if the result is unknown.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar, get_args
from uuid import UUID

from msgspec import UNSET

from chutes_exporter.api.records import END_TEXTS, OLD_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import (
        ActiveInstance,
        AuditEntry,
        AuditInstance,
        Bounty,
        Chute,
        ChuteMetrics,
        ChuteUtilization,
        ComputeRecord,
        HeldGpu,
        Instance,
        InventoryItem,
        Job,
        MetagraphNode,
        Node,
        RollingUpdate,
        Server,
    )

    T = TypeVar("T", InventoryItem, Instance)

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
WEEK: Final = 7 * 24 * HOUR
U16: Final = 65535.0
"""The chain stores incentive and consensus as whole numbers from 0 to this, which stands for 1.0."""
SECURED_AFTER: Final = HOUR
"""Seconds after its activation from which a public instance keeps its score when it is deleted."""

GPU_MODELS: Final = (
    "3090",
    "4090",
    "5090",
    "a4000",
    "a4000_ada",
    "a5000",
    "a6000",
    "a6000_ada",
    "pro_6000",
    "l4",
    "a10",
    "a40",
    "l40",
    "l40s",
    "a100_40gb",
    "a100_40gb_sxm",
    "a100",
    "a100_sxm",
    "h100",
    "h100_nvl",
    "h100_sxm",
    "h800",
    "h20",
    "h200",
    "mi300x",
    "b200",
    "b300",
)
"""GPU models by the short names that the API uses: /nodes/supported in November 2026."""

DEMAND_FIELDS: Final = (
    "total_invocations",
    "total_compute_time",
    "rate_limit_count",
    "total_usage_usd",
    "utilization",
)
"""The fields of ``/miner/metrics/`` that come from the service's own monitoring."""

InstanceState = Literal["active", "starting", "disabled"]
"""State of an instance. A starting one was never active. A disabled one was active, and its miner disabled it."""
INSTANCE_STATES: Final[tuple[InstanceState, ...]] = get_args(InstanceState)

JobState = Literal["waiting", "stuck", "finished"]
"""State of a job without an instance. A stuck job was claimed by a miner whose instance is gone."""


def total(values: Iterable[float | None]) -> float | None:
    """Return the sum, or None if a value is unknown or the sum is too large for a number."""
    try:
        result = math.fsum(math.nan if value is None else value for value in values)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def incentive_shares(nodes: Iterable[MetagraphNode]) -> dict[str, float]:
    """Return each seat's share of the incentive, 0 to 1, by hotkey.

    The result is empty if the incentive of a seat is unknown, or if no seat has any.
    """
    incentives = {node.hotkey: node.incentive for node in nodes}
    everything = total(incentives.values())
    if everything is None or everything <= 0:
        return {}
    return {hotkey: value / everything for hotkey, value in incentives.items() if value is not None}


def consensus_ratio(node: MetagraphNode) -> float | None:
    """Return a seat's consensus, 0 to 1."""
    return None if node.consensus is None else node.consensus / U16


def instance_state(instance: Instance) -> InstanceState | None:
    """Return the state of an instance."""
    if instance.active:
        return "active"
    if instance.active is None and instance.activated_at is not None:
        # `active` is null only before the first activation, so the two fields contradict each other.
        return None
    if instance.activated_at is UNSET:
        return None
    return "starting" if instance.activated_at is None else "disabled"


def is_public(instance: Instance) -> bool | None:
    """Return whether an instance is public, which means that nobody is billed for it."""
    return None if instance.billed_to is UNSET else instance.billed_to is None


def secured_at(instance: Instance) -> float | None:
    """Return the time from which a public instance keeps its score when deleted. None for private instances."""
    if not is_public(instance) or instance.activated_at is UNSET or instance.activated_at is None:
        return None
    return instance.activated_at + SECURED_AFTER


def purged_at(instance: Instance) -> float | None:
    """Return the time at which the service purges a starting instance. None for all other instances.

    It must become active within 3.5 hours of its creation and 3 hours of its verification. ``last_verified_at`` of a
    starting instance is the time of its first verification.
    """
    if instance_state(instance) != "starting" or instance.verified is None or instance.created_at is None:
        return None
    deadline = instance.created_at + 3.5 * HOUR
    if not instance.verified:
        return deadline
    verified_at = instance.last_verified_at
    return None if verified_at is None else min(deadline, verified_at + 3 * HOUR)


def inventory_states(
    inventory: Iterable[InventoryItem], instances: Iterable[Instance]
) -> dict[str, InstanceState | None]:
    """Return the state of the instance that holds each GPU, by GPU id. None if it is unknown.

    The inventory gives the chute of the instance, not the instance. If instances of the chute have different states,
    the time of their last verification tells them apart.
    """
    items = list(inventory)
    items_by_chute, instances_by_chute = _by_chute(items), _by_chute(instances)
    states: dict[str, InstanceState | None] = {}
    for item in items:
        # An instance of an unknown chute may belong to any chute.
        holders = [*instances_by_chute[item.chute_id], *(instances_by_chute[None] if item.chute_id is not None else ())]
        state = _holder_state(item, items_by_chute[item.chute_id], holders)
        if states.get(item.gpu_id) != "active":
            states[item.gpu_id] = state
    return states


def _by_chute(records: Iterable[T]) -> dict[str | None, list[T]]:
    by_chute: dict[str | None, list[T]] = defaultdict(list)
    for record in records:
        by_chute[record.chute_id].append(record)
    return by_chute


def _holder_state(
    item: InventoryItem, chute_items: Sequence[InventoryItem], holders: Sequence[Instance]
) -> InstanceState | None:
    """Return the state of the instance that holds a GPU, which is one of the holders."""
    if item.active:
        return "active"
    holders = [instance for instance in holders if item.active is None or not instance.active]
    states = {instance_state(instance) for instance in holders}
    if len(states) > 1:
        # Each instance holds a GPU, so both lists have the same times unless a list is incomplete or newer.
        times = {other.last_verified_at for other in chute_items if not other.active}
        if times != {instance.last_verified_at for instance in holders}:
            return None
        states = {
            instance_state(instance) for instance in holders if instance.last_verified_at == item.last_verified_at
        }
    return states.pop() if len(states) == 1 else None


def job_state(job: Job) -> JobState | None:
    """Return the state of a job."""
    if job.finished_at is UNSET:
        return None
    if job.finished_at is not None:
        return "finished"
    if job.miner_hotkey is UNSET:
        return None
    return "waiting" if job.miner_hotkey is None else "stuck"


def units_per_gpu_second(chute: Chute, model: str, rates: Mapping[str, float]) -> float | None:
    """Return the compute units that a second of one GPU earns in an instance of a chute started now.

    The service sends the value of the cheapest GPU that the chute allows. A more expensive GPU earns more, in
    proportion to its hourly rate.

    ``rates`` are in USD per hour, by model. A chute that allows only one model needs none.
    """
    selector, multiplier = chute.node_selector, chute.effective_compute_multiplier
    if selector is None or not selector.gpu_count or selector.gpu_count < 0 or multiplier is None:
        return None
    models = set(selector.supported_gpus or ())
    per_gpu = multiplier / selector.gpu_count
    if models == {model}:
        return per_gpu
    if model not in models or not models <= rates.keys():
        return None
    return per_gpu * rates[model] / min(rates[name] for name in models)


def bounty_age(chute: Chute) -> float | None:
    """Return the age of a chute's bounty in seconds, None without one.

    The service sends 100 plus 3 per second, up to 86400. So ages above 8 hours are returned as 8 hours.
    """
    if chute.bounty is UNSET or chute.bounty is None:
        return None
    return max(0.0, (chute.bounty - 100) / 3)


def bounty_boost(bounty: Bounty) -> float | None:
    """Return the factor by which a bounty raises the multiplier of the instance that is activated first.

    It grows in a straight line from 1.1 for a new bounty to 1.5 for one of 3 hours.
    """
    age = bounty.seconds_elapsed
    if age is None:
        return None
    return 1.1 + min(max(age / (3 * HOUR), 0.0), 1.0) * (1.5 - 1.1)


def bounty_expires_at(bounty: Bounty) -> float | None:
    """Return when a bounty expires, None where the service does not know. Correct to 2 seconds."""
    created, age, left = bounty.created_at, bounty.seconds_elapsed, bounty.time_remaining
    return None if created is None or age is None or not left else created + age + left


def target_instances(chute: ChuteUtilization) -> float | None:
    """Return how many active instances the autoscaler wants of a chute.

    The service sends the target of the autoscaler's last run. The target that it enforces may differ. With an
    allowance, it is the active instances plus the allowance. Without one, it is at most the number of active instances.
    """
    active, allowance = chute.active_instance_count, chute.scale_allowance
    if active is None or allowance is None:
        return None
    if allowance > 0:
        return active + allowance
    logged = chute.target_count
    return None if logged is None or logged > active else logged


def starting_instances(chute: ChuteUtilization) -> float | None:
    """Return how many instances of a chute are not active: they start, or their miners disabled them."""
    total, active = chute.total_instance_count, chute.active_instance_count
    return None if total is None or active is None else total - active


def recent_ratio(chute: ChuteUtilization, ratio: float | None) -> float | None:
    """Return a ratio of the autoscaler's last run, or None if it is unknown.

    The service sends 0 for a chute that its monitoring does not know, for example a chute without an instance.
    """
    return None if ratio == 0 and not chute.instance_count else ratio


def load_is_unknown(chutes: Sequence[ChuteUtilization]) -> bool:
    """Return whether the autoscaler's monitoring failed. In that case, no chute of the platform has any load."""
    fields = [load for chute in chutes for load in (chute.utilization_5m, chute.utilization_15m, chute.utilization_1h)]
    loads = [load for load in fields if load is not None]
    return bool(loads) and not any(loads)


def is_outdated(instance: Instance, updates: Mapping[str, RollingUpdate]) -> bool | None:
    """Return whether a rolling update will replace an instance, because it does not run the new version.

    ``updates`` has all rolling updates, by chute.
    """
    if instance.chute_id is None:
        return None
    update = updates.get(instance.chute_id)
    if update is None:
        return False
    if instance.version is None or update.new_version is None:
        return None
    return instance.version != update.new_version


def demand_is_unknown(chutes: Sequence[ChuteMetrics]) -> bool:
    """Return whether the service's own monitoring is down: no chute of the platform has requests or use."""
    return bool(chutes) and not any(chute.total_invocations or chute.utilization for chute in chutes)


def unknown_metrics(chutes: Sequence[ChuteMetrics]) -> list[str]:
    """Return the fields whose values are not measurements in this answer.

    The service measures each field of the demand separately. If that fails, it sends 0 for every chute. Only
    ``rate_limit_count`` may really be 0 for all chutes.
    """
    if demand_is_unknown(chutes):
        return list(DEMAND_FIELDS)
    return [
        field
        for field in DEMAND_FIELDS
        if field != "rate_limit_count" and not any(getattr(chute, field) for chute in chutes)
    ]


LaunchRefusal = Literal[
    # The miner may launch nothing.
    "not_registered",
    "blacklisted",
    "disabled",  # The chute is disabled.
    "no_bounty",  # The chute is private and has neither an active instance nor a bounty.
    "no_room",  # The chute has as many active instances as the service wants.
    "enough_starting",  # The public TEE chute has enough active and starting instances.
    "old_tee_server",  # A TEE server of the miner is too old, so it can launch no newer TEE chute.
    "tee_mismatch",  # The chute needs TEE and the server has none, or the other way round.
    "in_maintenance",  # The server holds an upgrade slot.
    "too_many_gpus",  # An instance needs more GPUs of the model than are free on the server.
    "unknown",  # An answer lacks what decides.
]
"""Why a miner cannot launch a chute on a server."""
LAUNCH_REFUSALS: Final[tuple[LaunchRefusal, ...]] = get_args(LaunchRefusal)
_PRIVATE_FACTORS: Final = frozenset({"private", "private_tee", "integrated_subnet"})
_OLDEST_TEE_SERVER: Final = (0, 2, 1)
_NEWER_CHUTE: Final = (0, 6, 0)


@dataclass(frozen=True, slots=True)
class LaunchMiner:
    """A miner that wants to launch an instance. An unknown value is None.

    ``registered`` means that it has a seat, and ``runs_tee`` that it has an active instance of a TEE chute.
    ``old_tee_server`` is whether one of its servers is too old (:func:`is_old_tee_server`).
    """

    registered: bool | None
    blacklisted: bool | None
    old_tee_server: bool | None
    runs_tee: bool | None


@dataclass(frozen=True, slots=True)
class LaunchServer:
    """A server that may hold the instance. An unknown value is None.

    ``in_maintenance`` means that it holds an upgrade slot. ``free_gpus`` are the GPUs of the wanted model that are
    verified and in no instance.
    """

    tee: bool | None
    in_maintenance: bool | None
    free_gpus: int


@dataclass(frozen=True, slots=True)
class ChuteInstances:
    """The instances of a chute on all miners. An unknown value is None.

    Those that start were never active. ``target`` is the number of active instances that the service wants, 0 if it has
    no target for a private chute.
    """

    active: float | None
    starting: float | None
    target: float | None


def chute_instances(
    chute: Chute, utilization: ChuteUtilization | None, active: AbstractSet[str], held: Iterable[HeldGpu] | None
) -> ChuteInstances:
    """Return the instances of a chute and its target.

    ``utilization`` is None if the autoscaler has no record of the chute. ``active`` are the ids of its active
    instances. ``held`` are the GPUs that its instances hold, None if they are unknown.
    """
    starting: float | None = None
    others: int | None = None
    if held is not None:
        activated = {gpu.instance_id: gpu.activated_at for gpu in held if gpu.instance_id not in active}
        others = len(activated)
        starting = None if UNSET in activated.values() else sum(1 for time in activated.values() if time is None)
    if utilization is not None:
        not_active = starting_instances(utilization)
        # The list of GPUs may be older.
        if not_active is not None and (starting is None or starting > not_active):
            starting = not_active if starting is not None or not_active <= 0 else None
        target = target_instances(utilization)
        if target is None and None not in (utilization.scale_allowance, utilization.target_count):
            # A launch is measured against at most the active instances.
            target = utilization.active_instance_count
        return ChuteInstances(utilization.active_instance_count, starting, target)
    # Without a target, the service takes the present number of instances of a public chute, disabled ones included.
    present = None if others is None else len(active) + others
    return ChuteInstances(len(active), starting, 0 if follows_private_rules(chute) else present)


def follows_private_rules(chute: Chute) -> bool | None:
    """Return whether launches of a chute follow the rules of private chutes.

    Chutes of the user ``chutes`` and old private ones follow the rules of public chutes. Their factors tell.
    """
    factors = chute.compute_multiplier_factors
    return None if factors is None else not _PRIVATE_FACTORS.isdisjoint(factors)


def is_old_tee_server(server: Server) -> bool | None:
    """Return whether a TEE server is so old that the service refuses all launches of newer TEE chutes to its miner."""
    if server.is_tee is None:
        return None
    if not server.is_tee:
        return False
    if server.version is UNSET:
        return None
    return server.version is None or _version(server.version) < _OLDEST_TEE_SERVER


def _version(text: str) -> tuple[int, ...]:
    """Return the three numbers that begin a version, as the service compares them: zeros if there are not three."""
    match = re.match(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", text, re.ASCII)
    return tuple(map(int, match.groups())) if match else (0, 0, 0)


def launch_refusal(
    miner: LaunchMiner,
    chute: Chute,
    instances: ChuteInstances,
    server: LaunchServer,
    *,
    bounty: bool,
) -> LaunchRefusal | None:
    """Return why a miner cannot launch an instance of a chute on a server now, or None if it can.

    This follows the service's answer to ``GET /instances/launch_config``, and the checks when the instance is claimed.

    ``bounty`` is whether the chute has one.
    """
    gpus = None if chute.node_selector is None else chute.node_selector.gpu_count
    checks: dict[LaunchRefusal, bool | None] = {
        "not_registered": None if miner.registered is None else not miner.registered,
        "blacklisted": miner.blacklisted,
        "disabled": None if chute.disabled is UNSET else bool(chute.disabled),
        **_refused_by_room(miner, chute, instances, bounty=bounty),
        "old_tee_server": _needs_newer_servers(chute) and miner.old_tee_server,
        "tee_mismatch": None if None in (chute.tee, server.tee) else chute.tee != server.tee,
        "in_maintenance": server.in_maintenance,
        "too_many_gpus": None if gpus is None else gpus > server.free_gpus,
    }
    for reason, refused in checks.items():
        if refused:
            return reason
    return "unknown" if None in checks.values() else None


def _refused_by_room(
    miner: LaunchMiner, chute: Chute, instances: ChuteInstances, *, bounty: bool
) -> dict[LaunchRefusal, bool | None]:
    active, target = instances.active, instances.target
    private = follows_private_rules(chute)
    room = launch_room(chute, instances)
    if private is None or active is None or target is None:
        return {"unknown": None}
    if private:
        return {
            "no_bounty": active == 0 and not bounty,
            "no_room": 0 < target <= active,
            # Without TEE, the service looks at the miner's past too, which no endpoint shows.
            "unknown": None if not chute.tee and not miner.runs_tee else False,
        }
    return {"no_room": active >= target, "enough_starting": None if room is None else room <= 0}


def launch_room(chute: Chute, instances: ChuteInstances) -> float | None:
    """Return how many more instances of a chute the service wants and lets start, 0 or less if none.

    Of a public chute with TEE, active and starting instances must be fewer than the target plus 1.
    """
    active, starting, target = instances.active, instances.starting, instances.target
    if active is None or target is None:
        return None
    room = target - active
    if follows_private_rules(chute) or chute.tee is False:
        return room
    return None if chute.tee is None or starting is None else min(room, room + 1 - starting)


def _needs_newer_servers(chute: Chute) -> bool | None:
    if chute.tee is None or chute.chutes_version is UNSET:
        return None
    return chute.tee and _version(chute.chutes_version or "") >= _NEWER_CHUTE


END_REASONS: Final = (*END_TEXTS, "none", "other")
"""All reasons for the end of an instance: also no text, and an unknown one."""
_REPORT_PATH: Final = re.compile(r"audit/validator/[1-9A-HJ-NP-Za-km-z]{46,50}/[0-9]{1,12}\.json")


def end_reason(text: str | None) -> str:
    """Return why an instance ended, from its ``deletion_reason``."""
    if not text:
        return "none"
    if OLD_VERSION in text:
        return "update"
    return next((reason for reason, starts in END_TEXTS.items() if text.startswith(starts)), "other")


def ended_counts(instance: AuditInstance) -> bool:
    """Return whether an ended instance keeps its score. One that was never active has none to keep."""
    activated, deleted, text = instance.activated_at, instance.deleted_at, instance.deletion_reason or ""
    if activated is None or deleted is None:
        return False
    secured = instance.billed_to is None and deleted - activated >= SECURED_AFTER
    kept = end_reason(text) in ("idle", "no_balance") or OLD_VERSION in text
    return secured or kept or bool(instance.valid_termination)


def lost_compute_units(instance: AuditInstance, records: Iterable[ComputeRecord], now: float) -> float | None:
    """Return the compute units that an ended instance had scored in the 24 hours before now, and lost by its end.

    Unless there is exactly one multiplier for each second, the units are unknown.
    """
    parts, uncovered = lost_seconds(instance, records, now)
    if abs(uncovered) > 1:
        return None
    return total(
        None if multiplier is None or multiplier < 0 else seconds * multiplier for seconds, multiplier in parts
    )


def lost_seconds(
    instance: AuditInstance, records: Iterable[ComputeRecord], now: float
) -> tuple[list[tuple[float, float | None]], float]:
    """Return the lost seconds with each multiplier, and how many seconds are in no record (negative: in two).

    Seconds count from the creation, until the end or until billing stops.
    """
    if instance.activated_at is None or ended_counts(instance):
        return [], 0.0
    start = max(instance.created_at, now - DAY)
    end = max(start, min(instance.deleted_at or now, instance.stop_billing_at or now, now))
    parts = [
        (seconds, record.compute_multiplier)
        for record in records
        if (seconds := min(end, record.ended_at or end) - max(start, record.started_at)) > 0
    ]
    return parts, end - start - math.fsum(seconds for seconds, _ in parts)


def validator_reports(entries: Iterable[AuditEntry], now: float) -> list[AuditEntry]:
    """Return the validator's report of each full hour, the newest first.

    The list also has miners' own reports, in no order. A report that ends after now, in Unix time, cannot be right.
    """
    by_hour: dict[float, AuditEntry] = {}
    for entry in sorted(entries, key=lambda entry: entry.created_at or 0.0):
        start, end = entry.start_time, entry.end_time
        hourly = start is not None and end is not None and end - start == HOUR
        if hourly and end is not None and end <= now and _REPORT_PATH.fullmatch(entry.path):
            by_hour[end] = entry
    return [by_hour[end] for end in sorted(by_hour, reverse=True)]


def clock_rate_hertz(node: Node) -> float | None:
    """Return a GPU's clock rate in hertz."""
    return None if node.clock_rate is None else node.clock_rate * 1000


def nvidia_uuid(gpu_id: str) -> str | None:
    """Return a GPU's id in the format of NVIDIA's tools (``GPU-8-4-4-4-12``), None if it is not such an id."""
    try:
        return f"GPU-{UUID(gpu_id.removeprefix('GPU-'))}"
    except ValueError:
        return None


def active_rates(instances: Iterable[ActiveInstance]) -> dict[str, float] | None:
    """Return the compute units that each miner's active instances earn per second, by hotkey.

    None if the miner or compute multiplier of an instance is unknown, or a sum is too large for a number.
    """
    by_hotkey: dict[str | None, list[float | None]] = defaultdict(list)
    for instance in instances:
        by_hotkey[instance.miner_hotkey].append(instance.compute_multiplier)
    rates = {hotkey: total(multipliers) for hotkey, multipliers in by_hotkey.items()}
    complete = {hotkey: rate for hotkey, rate in rates.items() if hotkey is not None and rate is not None}
    return complete if len(complete) == len(rates) else None
