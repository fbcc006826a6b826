"""Joins the answers about a miner into its fleet."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from msgspec import UNSET

from chutes_exporter.fleet.answers import are_whole, records_of
from chutes_exporter.fleet.model import Fleet, Gpu, Instance, Server, Window
from chutes_exporter.fleet.offers import find_demand, find_left_out, find_markets, plan_servers
from chutes_exporter.fleet.places import Holder, find_holders
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
    from chutes_exporter.rules.instances import InstanceState
    from chutes_exporter.rules.maintenance import MaintenanceStatus, Measured

Placed = TypeVar("Placed", Gpu, Instance)


def join_fleet(answers: FleetAnswers) -> Fleet:
    """Return the fleet of a miner, with everything that the answers tell."""
    # Without these answers, no holder is known, and _gpus leaves the state of each GPU unknown.
    holders: dict[str, Holder] = {}
    if answers.inventory is not None and answers.instances is not None:
        holders = find_holders(answers.inventory.records, answers.instances.records)
    records_by_gpu = _records_by_gpu(answers)
    gpus = _gpus(answers, records_by_gpu, holders)
    demand = find_demand(answers) if answers.demand is None else answers.demand
    instances = _instances(answers, gpus, demand)
    contradicted_ids = _contradicted_servers(records_by_gpu.values())
    servers = _servers(answers, gpus, instances, contradicted_ids)
    window = _window(answers.policy)
    left_out = find_left_out(servers, window, answers.at)
    # Without all answers, a launch could be offered that the service refuses.
    markets: tuple[Market, ...] | None = None
    plans: tuple[ServerPlan, ...] = ()
    if demand is not None and _launches_are_known(answers):
        markets = find_markets(answers, demand, servers, instances)
        plans = plan_servers(servers, markets, left_out)
    seat = answers.seat
    return Fleet(
        hotkey=answers.hotkey,
        registered=_is_registered(answers),
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
class _Records:
    """What the answers say about a GPU: its record among the GPUs, and in its server's list.

    Two servers in ``server_ids`` contradict each other.
    """

    node: r.Node | None = None
    listed: r.ServerGpu | None = None
    server_ids: set[str] = field(default_factory=set)

    @property
    def model(self) -> str | None:
        """Its model, None if that is unknown."""
        for record in (self.node, self.listed):
            if record is not None and record.gpu_identifier:
                return record.gpu_identifier
        return None

    def server_id(self, *, lists_are_known: bool) -> str | None:
        """Return its server, an empty text if it has none, None if that is unknown.

        ``lists_are_known`` is whether the answers have all GPUs and servers.
        """
        if len(self.server_ids) == 1:
            return next(iter(self.server_ids))
        servers_differ = len(self.server_ids) > 1
        if servers_differ or not lists_are_known:
            return None
        return ""


def _records_by_gpu(answers: FleetAnswers) -> dict[str, _Records]:
    """Return the records of each GPU by its id. Of several in one answer, the first counts."""
    records_by_gpu: dict[str, _Records] = defaultdict(_Records)
    for node in records_of(answers.nodes):
        records = records_by_gpu[node.uuid]
        records.node = records.node or node
        if node.server_id:
            records.server_ids.add(node.server_id)
    for server in records_of(answers.servers):
        for gpu in server.gpus or ():
            records = records_by_gpu[gpu.uuid]
            records.listed = records.listed or gpu
            records.server_ids.add(server.server_id)
    return records_by_gpu


def _gpus(
    answers: FleetAnswers,
    records_by_gpu: Mapping[str, _Records],
    holders: Mapping[str, Holder],
) -> tuple[Gpu, ...]:
    """Return all GPUs: those with a record, and those that are only in the inventory.

    ``holders`` says what holds a GPU, by the GPU's id.
    """
    all_records = {**records_by_gpu}
    for gpu_id in holders:
        all_records.setdefault(gpu_id, _Records())
    lists_are_known = are_whole(answers.servers, answers.nodes)
    holders_are_known = are_whole(answers.inventory, answers.instances)
    gpus = [
        _gpu(
            gpu_id,
            records,
            holders.get(gpu_id),
            lists_are_known=lists_are_known,
            holders_are_known=holders_are_known,
        )
        for gpu_id, records in all_records.items()
    ]
    return tuple(gpus)


def _gpu(
    gpu_id: str,
    records: _Records,
    holder: Holder | None,
    *,
    lists_are_known: bool,
    holders_are_known: bool,
) -> Gpu:
    """Return a GPU from its records and its holder, which is None if no instance is known to hold
    it.

    ``lists_are_known`` is whether the answers have all GPUs and servers, and ``holders_are_known``
    whether they have all GPUs that are in an instance.
    """
    state = None
    if lists_are_known and holders_are_known:
        state = _gpu_state(records, holder)
    if holder is None:
        # Empty texts mean that it is in no instance for certain.
        nothing = "" if holders_are_known else None
        holder = Holder(chute_id=nothing, chute=nothing, state=None, instance_id=nothing)
    return Gpu(
        gpu_id=gpu_id,
        server_id=records.server_id(lists_are_known=lists_are_known),
        model=records.model,
        index=records.node.device_index if records.node else None,
        state=state,
        chute_id=holder.chute_id,
        chute=holder.chute,
        instance_id=holder.instance_id,
    )


def _gpu_state(records: _Records, holder: Holder | None) -> GpuState | None:
    """Return the state of a GPU, None if that is unknown: several states are possible, or no
    record says whether it is verified.

    All holders must be known, so that a GPU without a holder is in no instance for certain.
    """
    if holder is not None:
        return "earning" if holder.state == "active" else holder.state
    for record in (records.node, records.listed):
        if record is not None and record.verified_at is not UNSET:
            return "unverified" if record.verified_at is None else "idle"
    return None


# Instances


def _instances(
    answers: FleetAnswers, gpus: Sequence[Gpu], demand: Sequence[Demand] | None
) -> tuple[Instance, ...]:
    """Return the listed instances, each once. Of several records of one, the first counts."""
    chute_names = _chute_names(answers, gpus)
    places = _Places(answers, gpus)
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


# Not frozen, because it takes less time to make a thousand.
@dataclass(slots=True)
class _Place:
    """Where an instance is. All of it is None if that is unknown."""

    server_id: str | None = None
    model: str | None = None
    gpus: int | None = None


class _Places:
    """Where instances are: by the inventory, or else by the list of held GPUs.

    The inventory may leave several instances possible for a GPU. The list names the instance.
    """

    def __init__(self, answers: FleetAnswers, gpus: Iterable[Gpu]) -> None:
        # The inventory does not name the instance of a GPU. Only the list of instances tells it.
        self._inventory_is_whole = are_whole(answers.inventory, answers.instances)
        self._list_is_whole = are_whole(answers.miner_gpus)
        self._gpus_by_instance: dict[str, list[Gpu]] = defaultdict(list)
        # GPUs of which it is unknown which instance holds them, if any.
        self._uncertain_gpus: list[Gpu] = []
        for gpu in gpus:
            if gpu.instance_id is None:
                self._uncertain_gpus.append(gpu)
            elif gpu.instance_id:
                self._gpus_by_instance[gpu.instance_id].append(gpu)
        self._list_by_instance: dict[str, list[r.HeldGpu]] = defaultdict(list)
        for held_gpu in records_of(answers.miner_gpus):
            self._list_by_instance[held_gpu.instance_id].append(held_gpu)

    def of(self, record: r.Instance) -> _Place:
        """Return where an instance is."""
        if self._inventory_has_all_gpus_of(record):
            gpus = self._gpus_by_instance.get(record.instance_id, ())
            if not gpus:
                # No GPU of it is left in the inventory, so they were deleted.
                return _Place("", "", 0)
            place = _common_place([(gpu.server_id, gpu.model) for gpu in gpus])
            place_is_known = place.gpus is not None
            if place_is_known:
                return place
        # Where the inventory does not tell, the list of held GPUs may.
        if not self._list_is_whole:
            return _Place()
        held_gpus = self._list_by_instance.get(record.instance_id, ())
        return _common_place([(held_gpu.server_id, held_gpu.gpu) for held_gpu in held_gpus])

    def _inventory_has_all_gpus_of(self, record: r.Instance) -> bool:
        """Return whether an instance holds no other GPUs than the inventory says."""
        if not self._inventory_is_whole:
            return False
        return not any(_may_hold(record, gpu) for gpu in self._uncertain_gpus)


def _may_hold(record: r.Instance, gpu: Gpu) -> bool:
    """Return whether an instance may hold a GPU: they have the same chute, or one is unknown."""
    return gpu.chute_id == record.chute_id or None in (gpu.chute_id, record.chute_id)


def _common_place(server_and_model_of_gpus: Sequence[tuple[str | None, str | None]]) -> _Place:
    """Return the place of an instance with GPUs on these servers and of these models.

    It is unknown unless all GPUs are on one known server and of one known model.
    """
    distinct = set(server_and_model_of_gpus)
    if len(distinct) != 1:
        return _Place()
    server_id, model = distinct.pop()
    if not server_id or not model:
        return _Place()
    return _Place(server_id, model, len(server_and_model_of_gpus))


def _instance(
    record: r.Instance,
    place: _Place,
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
    if record.chute_id is None or not are_whole(answers.active_instances):
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
    lists_are_known = are_whole(answers.servers, answers.nodes)
    # To ask all chutes and measurements takes time, so servers that are alike share a kind.
    kinds: dict[_Hardware, _Kind] = {}
    servers: dict[str, Server] = {}
    for record in records_of(answers.servers):
        gpus_of_server = gpus_by_server[record.server_id]
        hardware = _Hardware(
            tee=record.is_tee,
            version=record.version,
            models=tuple(gpu.model for gpu in gpus_of_server),
            is_whole=(
                lists_are_known
                and record.gpus is not None
                and record.server_id not in contradicted_ids
            ),
        )
        if hardware not in kinds:
            kinds[hardware] = _kind(hardware, answers)
        instances_of_server = instances_by_server[record.server_id]
        server = _server(record, kinds[hardware], gpus_of_server, instances_of_server, answers)
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


def _server(
    record: r.Server,
    kind: _Kind,
    gpus: Sequence[Gpu],
    instances: Sequence[Instance],
    answers: FleetAnswers,
) -> Server:
    """Return a server with its GPUs and instances, and with what the maintenance policy says of it.

    Its version is the empty text if it is known to have none, and None if that is unknown.
    """
    step = answers.steps.get(record.server_id)
    maintenance = _maintenance(record, step, answers)
    return Server(
        server_id=record.server_id,
        name=record.name or None,
        version=None if record.version is UNSET else record.version or "",
        tee=record.is_tee,
        maintenance=maintenance.status,
        holds_slot=maintenance.holds_slot,
        boots=kind.boots,
        needs_upgrade=_needs_upgrade(record, step, answers),
        measured=kind.measured,
        runs_chutes=kind.runs_chutes,
        gpus=tuple(gpus),
        instances=tuple(instances),
        is_whole=kind.is_whole,
    )


def _contradicted_servers(records_of_gpus: Iterable[_Records]) -> set[str]:
    """Return the ids of servers that share a GPU, which can only be on one of them."""
    server_ids: set[str] = set()
    for records in records_of_gpus:
        if len(records.server_ids) > 1:
            server_ids |= records.server_ids
    return server_ids


@dataclass(frozen=True)
class _Hardware:
    """What a server must share with another one to be of the same kind.

    Attributes:
        models: The model of each of its GPUs.
        is_whole: Whether these are certainly all its GPUs, and on no other server.
    """

    tee: bool | None
    version: str | UnsetType | None
    models: tuple[str | None, ...]
    is_whole: bool


@dataclass(frozen=True)
class _Kind:
    """What is the same for all servers with the same hardware and version.

    Attributes:
        boots: Whether the service accepts the version at the next boot. None is unknown.
    """

    is_whole: bool
    boots: bool | None
    measured: Measured | None
    runs_chutes: bool | None


def _kind(hardware: _Hardware, answers: FleetAnswers) -> _Kind:
    """Return what the measurements and all chutes say about servers with the same hardware."""
    # UNSET is unknown, and None a server that has never booted an image. Nothing follows from
    # either about the next boot, nor is anything known of a boot without TEE.
    version = None if hardware.version is UNSET else hardware.version
    boots = None
    if hardware.tee and version and are_whole(answers.measurements):
        listed = {measurement.version for measurement in records_of(answers.measurements)}
        boots = version_accepted(version, listed)
    return _Kind(
        is_whole=hardware.is_whole,
        boots=boots,
        measured=_measured(hardware, answers),
        runs_chutes=_runs_chutes(hardware, answers),
    )


@dataclass(frozen=True)
class _Maintenance:
    """The maintenance step of a server, and whether it holds an upgrade slot. None is unknown."""

    status: MaintenanceStatus | None
    holds_slot: bool | None


def _maintenance(
    record: r.Server, step: r.MaintenanceServer | None, answers: FleetAnswers
) -> _Maintenance:
    """Return the maintenance of a server, from its record and from its step in the policy.

    It holds a slot if one of these two answers says so, because the list of servers may not show
    the slots of pending servers.
    """
    status = _maintenance_status(record, step, answers)
    if status in ("pending", "maintenance"):
        return _Maintenance(status, holds_slot=True)
    if record.maintenance_pending:
        # The policy does not know of the slot, so the step is unknown.
        return _Maintenance(None, holds_slot=True)
    if status is None or record.maintenance_pending is None:
        return _Maintenance(status, holds_slot=None)
    return _Maintenance(status, holds_slot=False)


def _maintenance_status(
    record: r.Server, step: r.MaintenanceServer | None, answers: FleetAnswers
) -> MaintenanceStatus | None:
    """Return the maintenance status of a server, None if that is unknown.

    ``step`` is its entry in the maintenance policy, None if there is none. A server that is known
    to have none is in no maintenance.
    """
    if step is not None:
        return maintenance_status(step)
    return "none" if _is_not_in_policy(record, answers) else None


def _needs_upgrade(
    record: r.Server, step: r.MaintenanceServer | None, answers: FleetAnswers
) -> bool | None:
    """Return whether a server is older than the target of the newest window.

    ``step`` is its entry in the maintenance policy, None if there is none. The policy has all
    servers with TEE, and only these are upgraded. So a server that is known not to be in it needs
    no upgrade.
    """
    if step is not None:
        return step.needs_upgrade
    return False if _is_not_in_policy(record, answers) else None


def _is_not_in_policy(record: r.Server, answers: FleetAnswers) -> bool:
    """Return whether the policy is known to have no entry for a server that was not found in it.

    It has all servers with TEE, and none of the others. Before the first window, it is empty,
    because there is no maintenance.
    """
    if record.is_tee is False:
        return True
    if answers.policy is None or answers.policy.servers is None:
        return False
    return are_whole(answers.maintenance)


def _measured(hardware: _Hardware, answers: FleetAnswers) -> Measured | None:
    """Return what the service's list of TEE measurements says about a server with these GPUs: does
    it boot with the version to which the newest maintenance window upgrades?

    None is unknown, or there is no such version.
    """
    # In spite of its name, this window need not be open: it is the newest one.
    window = None if answers.policy is None else answers.policy.active_window
    version = None if window is None else window.target_measurement_version
    # A GPU or a record that is missing could change the result.
    if version is None or not hardware.is_whole or not are_whole(answers.measurements):
        return None
    models = [model for model in hardware.models if model is not None]
    if len(models) < len(hardware.models):
        return None
    return measured(version, models, records_of(answers.measurements))


def _runs_chutes(hardware: _Hardware, answers: FleetAnswers) -> bool | None:
    """Return whether a chute exists that runs on a server, None if that is unknown.

    One chute proves that it exists. That none exists is known only with all chutes and all GPUs of
    the server, and if each chute says where it runs.
    """
    models = set(hardware.models)
    if hardware.tee is None or None in models:
        return None
    all_is_known = hardware.is_whole and are_whole(answers.chutes)
    for chute in answers.chutes_by_id.values():
        selector = chute.node_selector
        if chute.tee is None or selector is None or selector.supported_gpus is None:
            all_is_known = False
        elif chute.tee == hardware.tee and not models.isdisjoint(selector.supported_gpus):
            return True
    return False if all_is_known else None


# The miner


def _is_registered(answers: FleetAnswers) -> bool | None:
    if answers.seat is not None:
        return True
    return False if are_whole(answers.metagraph) else None


def _stuck_jobs(answers: FleetAnswers) -> int | None:
    """Return the number of the miner's stuck jobs, None while it is unknown of a job."""
    if not are_whole(answers.jobs):
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


def _launches_are_known(answers: FleetAnswers) -> bool:
    """Return whether the answers are whole that say what the miner can launch and what that pays.

    Those about chutes are not among them: without these, there is no demand either.
    """
    return are_whole(
        answers.servers,
        answers.nodes,
        answers.inventory,
        answers.instances,
        answers.maintenance,
        answers.metagraph,
        answers.supported_gpus,
    )


def _known_topics(
    answers: FleetAnswers,
    gpus: Sequence[Gpu],
    instances: Sequence[Instance],
    servers: Sequence[Server],
) -> dict[Topic, bool]:
    """Return for each topic whether everything about it is known, so that no sum is too low."""
    gpus_are_known = _gpus_are_known(answers, gpus, servers)
    instances_are_known = _instances_are_known(answers, instances)
    # The pay of each server is looked up last, because that takes the longest.
    pay_is_known = (
        gpus_are_known and instances_are_known and all(_pay_is_known(server) for server in servers)
    )
    return {
        "servers": _servers_are_known(answers, servers),
        "gpus": gpus_are_known,
        "instances": instances_are_known,
        "pay": pay_is_known,
    }


def _servers_are_known(answers: FleetAnswers, servers: Iterable[Server]) -> bool:
    """Return whether no server is missing, and the name and the slot of each are known."""
    return are_whole(answers.servers) and all(
        server.name and server.holds_slot is not None for server in servers
    )


def _gpus_are_known(answers: FleetAnswers, gpus: Iterable[Gpu], servers: Iterable[Server]) -> bool:
    """Return whether no GPU is missing, and the model, the state and the server of each are
    known.
    """
    return (
        are_whole(answers.servers, answers.nodes, answers.inventory, answers.instances)
        and all(server.is_whole for server in servers)
        and all(gpu.model and gpu.state and gpu.server_id is not None for gpu in gpus)
    )


def _instances_are_known(answers: FleetAnswers, instances: Iterable[Instance]) -> bool:
    """Return whether no instance is missing, and of each it is known in which state it is, whether
    it is private, and what its chute is called.
    """
    return are_whole(answers.instances) and all(
        instance.state and instance.private is not None and instance.chute for instance in instances
    )


def _pay_is_known(server: Server) -> bool:
    return all(
        server.name and server.units_per_second(model) is not None for model in server.models or ()
    )
