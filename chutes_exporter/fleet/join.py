"""Joins the answers about a miner into its fleet."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from msgspec import UNSET

from chutes_exporter.fleet.answers import are_complete, records_of
from chutes_exporter.fleet.model import Fleet, Gpu, Instance, Server, Window
from chutes_exporter.fleet.offers import find_demand, find_left_out, find_markets, plan_servers
from chutes_exporter.fleet.places import Holder, Places, find_holders
from chutes_exporter.rules.instances import (
    instance_state,
    is_public,
    purged_at,
    secured_at,
)
from chutes_exporter.rules.jobs import is_stuck
from chutes_exporter.rules.launch import activation_is_refused
from chutes_exporter.rules.maintenance import (
    maintenance_status,
    measured,
    version_accepted,
    window_is_open,
)
from chutes_exporter.rules.money import later_multiplier
from chutes_exporter.rules.score import is_blacklisted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from msgspec import UnsetType

    from chutes_exporter.api import records as r
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import DeadlineKind, GpuState, Market, ServerPlan, Topic
    from chutes_exporter.fleet.offers import Demand
    from chutes_exporter.fleet.places import Place
    from chutes_exporter.rules.instances import InstanceState
    from chutes_exporter.rules.maintenance import MaintenanceStatus, Measured

Placed = TypeVar("Placed", Gpu, Instance)


def join_fleet(answers: FleetAnswers) -> Fleet:
    """Return the fleet of a miner, with everything that the answers tell."""
    # Without these answers, no holder is known, and _gpus leaves the state of each GPU unknown.
    holders: dict[str, Holder] = {}
    if answers.inventory is not None and answers.instances is not None:
        holders = find_holders(answers.inventory.records, answers.instances.records)
    listed_gpus = _listed_gpus(answers, holders)
    gpus = _gpus(answers, listed_gpus, holders)
    demand = find_demand(answers) if answers.demand is None else answers.demand
    instances = _instances(answers, gpus, demand)
    # A GPU can only be on one server.
    contradicted_ids: set[str] = set()
    for listed in listed_gpus.values():
        if len(listed.server_ids) > 1:
            contradicted_ids |= listed.server_ids
    servers = _servers(answers, gpus, instances, contradicted_ids)
    window = _window(answers.policy)
    left_out = find_left_out(servers, window, answers.at)
    # Without all answers, a launch could be offered that the service refuses. Without those about
    # chutes, there is no demand.
    launches_are_known = are_complete(
        answers.servers,
        answers.nodes,
        answers.inventory,
        answers.instances,
        answers.maintenance,
        answers.metagraph,
        answers.supported_gpus,
    )
    markets: tuple[Market, ...] | None = None
    plans: tuple[ServerPlan, ...] = ()
    if demand is not None and launches_are_known:
        markets = find_markets(answers, demand, servers, instances)
        plans = plan_servers(servers, markets, left_out)
    seat = answers.seat
    registered = False if are_complete(answers.metagraph) else None
    return Fleet(
        hotkey=answers.hotkey,
        registered=registered if seat is None else True,
        blacklisted=None if seat is None else is_blacklisted(seat),
        servers=servers,
        gpus=gpus,
        instances=instances,
        markets=markets,
        left_out=left_out,
        plans=plans,
        stuck_jobs=_stuck_jobs(answers),
        window=window,
        known=_known_topics(answers, gpus, instances, servers),
    )


# GPUs


@dataclass
class _ListedGpu:
    """What the answers say about a GPU. Two servers in ``server_ids`` contradict each other."""

    model: str | None = None
    index: int | None = None
    verified_at: float | UnsetType | None = UNSET
    server_ids: set[str] = field(default_factory=set)

    def add(self, record: r.Node | r.ServerGpu, server_id: str | None) -> None:
        """Add a record of it. What an earlier one says counts."""
        self.model = self.model or record.gpu_identifier or None
        if self.verified_at is UNSET:
            self.verified_at = record.verified_at
        if server_id:
            self.server_ids.add(server_id)


def _listed_gpus(answers: FleetAnswers, holders: Iterable[str]) -> dict[str, _ListedGpu]:
    """Return all GPUs by id: those with a record, and those that are only in the inventory."""
    gpus: dict[str, _ListedGpu] = defaultdict(_ListedGpu)
    for node in records_of(answers.nodes):
        gpu = gpus[node.uuid]
        gpu.add(node, node.server_id)
        if gpu.index is None:
            gpu.index = node.device_index
    for server in records_of(answers.servers):
        for record in server.gpus or ():
            gpus[record.uuid].add(record, server.server_id)
    for gpu_id in holders:
        gpus.setdefault(gpu_id, _ListedGpu())
    return gpus


def _gpus(
    answers: FleetAnswers, listed_gpus: Mapping[str, _ListedGpu], holders: Mapping[str, Holder]
) -> tuple[Gpu, ...]:
    """Return the GPUs. ``holders`` says what holds one, by its id."""
    lists_are_known = are_complete(answers.servers, answers.nodes)
    holders_are_known = are_complete(answers.inventory, answers.instances)
    # Empty texts mean that a GPU is in no instance for certain.
    nothing = "" if holders_are_known else None
    no_holder = Holder(chute_id=nothing, chute=nothing, state=None, instance_id=nothing)
    gpus = []
    for gpu_id, listed in listed_gpus.items():
        holder = holders.get(gpu_id)
        state = None
        if lists_are_known and holders_are_known:
            state = _gpu_state(listed, holder)
        # It is on no server only if no list of its server can be missing.
        server_id = "" if lists_are_known and not listed.server_ids else None
        if len(listed.server_ids) == 1:
            (server_id,) = listed.server_ids
        holder = holder or no_holder
        gpu = Gpu(
            gpu_id=gpu_id,
            server_id=server_id,
            model=listed.model,
            index=listed.index,
            state=state,
            chute_id=holder.chute_id,
            chute=holder.chute,
            instance_id=holder.instance_id,
        )
        gpus.append(gpu)
    return tuple(gpus)


def _gpu_state(listed: _ListedGpu, holder: Holder | None) -> GpuState | None:
    """Return the state of a GPU, None if that is unknown: several states are possible, or no
    record says whether it is verified.

    All holders must be known, so that a GPU without a holder is in no instance for certain.
    """
    if holder is not None:
        return "earning" if holder.state == "active" else holder.state
    if listed.verified_at is UNSET:
        return None
    return "unverified" if listed.verified_at is None else "idle"


# Instances


def _instances(
    answers: FleetAnswers, gpus: Sequence[Gpu], demand: Sequence[Demand] | None
) -> tuple[Instance, ...]:
    """Return the listed instances, each once. Of several records of one, the first counts."""
    chute_names = _chute_names(answers, gpus)
    places = Places(answers, gpus)
    demand_by_chute = {item.chute.chute_id: item for item in demand or ()}
    instances: dict[str, Instance] = {}
    for record in records_of(answers.instances):
        place = places.of(record)
        instance = _instance(record, place, chute_names, demand_by_chute, answers)
        instances.setdefault(record.instance_id, instance)
    return tuple(instances.values())


def _chute_names(answers: FleetAnswers, gpus: Iterable[Gpu]) -> dict[str, str]:
    """Return the names of chutes by id.

    Those on GPUs come from the inventory, which also names private chutes. The list of chutes may
    lack these.
    """
    names: dict[str, str] = {}
    for gpu in gpus:
        if gpu.chute_id and gpu.chute:
            names[gpu.chute_id] = gpu.chute
    for chute in answers.chutes_by_id.values():
        if chute.name:
            names.setdefault(chute.chute_id, chute.name)
    return names


def _instance(
    record: r.Instance,
    place: Place,
    chute_names: Mapping[str, str],
    demand_by_chute: Mapping[str, Demand],
    answers: FleetAnswers,
) -> Instance:
    """Return an instance. The mappings are by the id of a chute."""
    public = is_public(record)
    state = instance_state(record)
    has_replacement = _has_replacement(record, answers)
    chute = answers.chutes_by_id.get(record.chute_id or "")
    later_units_per_second = None
    if chute is not None and place.model:
        later_units_per_second = later_multiplier(chute, place.model, answers.rates)
    return Instance(
        instance_id=record.instance_id,
        chute_id=record.chute_id,
        chute=chute_names.get(record.chute_id or ""),
        private=None if public is None else not public,
        state=state,
        created_at=record.created_at,
        units_per_second=record.compute_multiplier,
        later_units_per_second=later_units_per_second,
        deadlines=_deadlines(record),
        server_id=place.server_id,
        model=place.model,
        gpus=place.gpus,
        is_last_active=_is_last_active(record, has_replacement=has_replacement),
        has_replacement=has_replacement,
        is_in_vain=_is_in_vain(state, demand_by_chute.get(record.chute_id or "")),
    )


def _deadlines(record: r.Instance) -> dict[DeadlineKind, float]:
    """Return the Unix times of the deadlines that an instance has, by kind."""
    times: dict[DeadlineKind, float | None] = {
        "purge": purged_at(record),
        "secured": secured_at(record),
        "end_of_billing": record.stop_billing_at,
    }
    return {kind: time for kind, time in times.items() if time is not None}


def _is_last_active(record: r.Instance, *, has_replacement: bool | None) -> bool | None:
    """Return whether an instance is the only active one of its chute, None if it is unknown."""
    if record.active is False:
        return False
    if record.active is None or has_replacement is None:
        return None
    return not has_replacement


def _has_replacement(record: r.Instance, answers: FleetAnswers) -> bool | None:
    """Return whether another instance of the same chute is active, None if it is unknown."""
    if record.chute_id is None or not are_complete(answers.active_instances):
        return None
    if answers.active_by_chute.get(record.chute_id, set()) - {record.instance_id}:
        return True
    # Each of these may be one of the same chute.
    of_unknown_chute = answers.active_by_chute.get(None, set()) - {record.instance_id}
    return None if of_unknown_chute else False


def _is_in_vain(state: InstanceState | None, demand: Demand | None) -> bool | None:
    """Return whether an instance starts, but the service would refuse its activation now.

    ``demand`` is that of its chute. None is unknown.
    """
    if state in ("active", "disabled"):
        return False
    if state is None or demand is None:
        return None
    return activation_is_refused(demand.chute, demand.instances)


# Servers


def _servers(
    answers: FleetAnswers,
    gpus: Iterable[Gpu],
    instances: Iterable[Instance],
    contradicted_ids: Collection[str],
) -> tuple[Server, ...]:
    """Return the listed servers, each once. Of several records of one, the first counts.

    ``contradicted_ids`` are the ids of those whose GPUs the answers place differently.
    """
    gpus_by_server = _by_server(gpus)
    instances_by_server = _by_server(instances)
    lists_are_known = are_complete(answers.servers, answers.nodes)
    runnable = _Runnable(answers)
    versions = {measurement.version for measurement in records_of(answers.measurements)}
    servers: dict[str, Server] = {}
    for record in records_of(answers.servers):
        gpus_of_server = gpus_by_server[record.server_id]
        models = [gpu.model for gpu in gpus_of_server]
        is_complete = record.gpus is not None and record.server_id not in contradicted_ids
        is_complete = is_complete and lists_are_known
        # UNSET is unknown, and None a server that has never booted an image. Nothing follows from
        # either about the next boot, nor is anything known of a boot without TEE.
        version = None if record.version is UNSET else record.version or ""
        boots = None
        if record.is_tee and version and are_complete(answers.measurements):
            boots = version_accepted(version, versions)
        maintenance = _maintenance(record, answers)
        server = Server(
            server_id=record.server_id,
            name=record.name or None,
            version=version,
            tee=record.is_tee,
            maintenance=maintenance.status,
            holds_slot=maintenance.holds_slot,
            boots=boots,
            needs_upgrade=maintenance.needs_upgrade,
            measured=_measured(models, answers) if is_complete else None,
            runs_chutes=runnable.on(models, tee=record.is_tee, is_complete=is_complete),
            gpus=tuple(gpus_of_server),
            instances=tuple(instances_by_server[record.server_id]),
            is_complete=is_complete,
        )
        servers.setdefault(record.server_id, server)
    return tuple(servers.values())


def _by_server(placed: Iterable[Placed]) -> dict[str, list[Placed]]:
    """Return GPUs or instances by the id of their server, without those that have none or of which
    it is unknown.
    """
    by_server: dict[str, list[Placed]] = defaultdict(list)
    for one in placed:
        if one.server_id:
            by_server[one.server_id].append(one)
    return by_server


@dataclass(frozen=True)
class _Maintenance:
    """The maintenance of a server. None is unknown.

    Attributes:
        status: Its step.
        holds_slot: Whether it holds an upgrade slot.
        needs_upgrade: Whether it is older than the target of the newest window.
    """

    status: MaintenanceStatus | None
    holds_slot: bool | None
    needs_upgrade: bool | None


def _maintenance(record: r.Server, answers: FleetAnswers) -> _Maintenance:
    """Return the maintenance of a server, from its record and from its step in the policy.

    It holds a slot if one of these two answers says so, because the list of servers may not show
    the slots of pending servers.
    """
    status: MaintenanceStatus | None = None
    holds_slot = needs_upgrade = None
    step = answers.steps.get(record.server_id)
    if step is not None:
        status, needs_upgrade = maintenance_status(step), step.needs_upgrade
    elif _is_not_in_policy(record, answers):
        # It is in no maintenance, and only servers with TEE are upgraded.
        status, needs_upgrade = "none", False
    if status in ("pending", "maintenance"):
        holds_slot = True
    elif record.maintenance_pending:
        # The policy does not know of the slot, so the step is unknown.
        status, holds_slot = None, True
    elif status is not None and record.maintenance_pending is not None:
        holds_slot = False
    return _Maintenance(status, holds_slot, needs_upgrade)


def _is_not_in_policy(record: r.Server, answers: FleetAnswers) -> bool:
    """Return whether the policy is known to have no entry for a server that was not found in it.

    It has all servers with TEE, and none of the others. Before the first window, it is empty,
    because there is no maintenance.
    """
    if record.is_tee is False:
        return True
    if answers.policy is None or answers.policy.servers is None:
        return False
    return are_complete(answers.maintenance)


def _measured(models: Sequence[str | None], answers: FleetAnswers) -> Measured | None:
    """Return what the service's list of TEE measurements says about a server with all these GPUs:
    does it boot with the version to which the newest maintenance window upgrades?

    None is unknown, or there is no such version.
    """
    # In spite of its name, this window need not be open: it is the newest one.
    window = None if answers.policy is None else answers.policy.active_window
    version = None if window is None else window.target_measurement_version
    known_models = [model for model in models if model is not None]
    # A model or a record that is missing could change the result.
    is_known = len(known_models) == len(models) and are_complete(answers.measurements)
    if version is None or not is_known:
        return None
    return measured(version, known_models, records_of(answers.measurements))


class _Runnable:
    """The hardware on which chutes run."""

    def __init__(self, answers: FleetAnswers) -> None:
        self._is_known = are_complete(answers.chutes)
        self._tee_and_models: set[tuple[bool, str]] = set()
        for chute in answers.chutes_by_id.values():
            selector = chute.node_selector
            if chute.tee is None or selector is None or selector.supported_gpus is None:
                self._is_known = False
            else:
                self._tee_and_models |= {(chute.tee, model) for model in selector.supported_gpus}

    def on(
        self, models: Iterable[str | None], *, tee: bool | None, is_complete: bool
    ) -> bool | None:
        """Return whether a chute exists that runs on a server, None if that is unknown.

        One chute proves that it exists. That none exists is known only with all chutes and all GPUs
        of the server, and if each chute says where it runs.
        """
        pairs = {(tee, model) for model in models}
        if tee is None or (tee, None) in pairs:
            return None
        if not pairs.isdisjoint(self._tee_and_models):
            return True
        return False if self._is_known and is_complete else None


# The miner


def _stuck_jobs(answers: FleetAnswers) -> int | None:
    """Return the number of the miner's stuck jobs, None while it is unknown of a job."""
    if not are_complete(answers.jobs):
        return None
    count = 0
    for job in records_of(answers.jobs):
        # A job that does not name its miner may be one of this miner. Then it is unknown whether it
        # is stuck, unless it is finished.
        if job.miner_hotkey in (answers.hotkey, UNSET):
            stuck = is_stuck(job)
            if stuck is None:
                return None
            count += stuck
    return count


def _window(policy: r.MaintenancePolicy | None) -> Window | None:
    """Return the newest maintenance window, None if the policy is unknown."""
    if policy is None:
        return None
    # In spite of its name, this window need not be open: it is the newest one.
    window = policy.active_window
    if window is None:
        return Window(is_open=False, exists=False)
    return Window(
        is_open=window_is_open(policy),
        starts_at=window.upgrade_window_start,
        ends_at=window.upgrade_window_end,
        target=window.target_measurement_version,
        slots=window.max_concurrent_per_miner,
        used_slots=policy.current_slots,
    )


def _known_topics(
    answers: FleetAnswers,
    gpus: Sequence[Gpu],
    instances: Sequence[Instance],
    servers: Sequence[Server],
) -> dict[Topic, bool]:
    """Return for each topic whether everything about it is known, so that no sum is too low."""
    servers_are_known = are_complete(answers.servers) and all(
        server.name and server.holds_slot is not None for server in servers
    )
    gpus_are_known = (
        are_complete(answers.servers, answers.nodes, answers.inventory, answers.instances)
        and all(server.is_complete for server in servers)
        and all(gpu.model and gpu.state and gpu.server_id is not None for gpu in gpus)
    )
    instances_are_known = are_complete(answers.instances) and all(
        instance.state and instance.private is not None and instance.chute for instance in instances
    )
    # The pay of each server is looked up last, because that takes the longest.
    pay_is_known = (
        gpus_are_known
        and instances_are_known
        and all(server.name and server.earned_units_per_second is not None for server in servers)
    )
    return {
        "servers": servers_are_known,
        "gpus": gpus_are_known,
        "instances": instances_are_known,
        "pay": pay_is_known,
    }
