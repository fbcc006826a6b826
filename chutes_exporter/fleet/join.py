"""Joins the answers about a miner into its fleet."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import UNSET

from chutes_exporter.fleet.answers import are_whole, records_of
from chutes_exporter.fleet.model import Fleet, Gpu, Instance, Server, Window
from chutes_exporter.fleet.offers import find_demand, find_markets, find_uses
from chutes_exporter.fleet.places import Holder, find_holders
from chutes_exporter.rules.gpus import later_multiplier
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
from chutes_exporter.rules.score import is_blacklisted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from msgspec import UnsetType

    from chutes_exporter.api import records as r
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import DeadlineKind, GpuState, Market, Topic, Use
    from chutes_exporter.fleet.offers import Demand
    from chutes_exporter.rules.instances import InstanceState
    from chutes_exporter.rules.maintenance import MaintenanceStatus, Measured


def join_fleet(answers: FleetAnswers) -> Fleet:
    """Return the fleet of a miner, with everything that the answers tell."""
    holders: dict[str, Holder] = {}
    if answers.inventory is not None and answers.instances is not None:
        holders = find_holders(answers.inventory.records, answers.instances.records)
    records = _records(answers)
    gpus = _gpus(answers, records, holders)
    demand = find_demand(answers)
    instances = _instances(answers, gpus, demand)
    servers = _servers(answers, gpus, instances, _contradicted_servers(records.values()))
    markets: tuple[Market, ...] | None = None
    uses: tuple[Use, ...] = ()
    if demand is not None and _launches_are_known(answers):
        markets = find_markets(answers, demand, servers, instances)
        uses = find_uses(servers, markets)
    seat = answers.seat
    return Fleet(
        hotkey=answers.hotkey,
        registered=_is_registered(answers),
        blacklisted=None if seat is None else is_blacklisted(seat),
        servers=servers,
        gpus=gpus,
        instances=instances,
        markets=markets,
        uses=uses,
        stuck_jobs=_stuck_jobs(answers),
        window=_window(answers.policy),
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
        """Return its server, an empty text if it has none, None if that is unknown."""
        if len(self.server_ids) == 1:
            return next(iter(self.server_ids))
        if self.server_ids or not lists_are_known:
            return None
        return ""


def _records(answers: FleetAnswers) -> dict[str, _Records]:
    """Return the records of each GPU by its id. Of several in one answer, the first counts."""
    found: dict[str, _Records] = defaultdict(_Records)
    for node in records_of(answers.nodes):
        records = found[node.uuid]
        records.node = records.node or node
        if node.server_id:
            records.server_ids.add(node.server_id)
    for server in records_of(answers.servers):
        for gpu in server.gpus or ():
            records = found[gpu.uuid]
            records.listed = records.listed or gpu
            records.server_ids.add(server.server_id)
    return found


def _gpus(
    answers: FleetAnswers, listed: Mapping[str, _Records], holders: Mapping[str, Holder]
) -> tuple[Gpu, ...]:
    found = {**listed}
    for gpu_id in holders:
        found.setdefault(gpu_id, _Records())
    lists_are_known = are_whole(answers.servers, answers.nodes)
    holders_are_known = are_whole(answers.inventory, answers.instances)
    return tuple(
        _gpu(
            gpu_id,
            records,
            holders.get(gpu_id),
            lists_are_known=lists_are_known,
            holders_are_known=holders_are_known,
        )
        for gpu_id, records in found.items()
    )


def _gpu(
    gpu_id: str,
    records: _Records,
    holder: Holder | None,
    *,
    lists_are_known: bool,
    holders_are_known: bool,
) -> Gpu:
    # In no instance, a GPU has empty texts.
    free = "" if holders_are_known else None
    held = holder or Holder(free, free, None, free)
    are_known = lists_are_known and holders_are_known
    return Gpu(
        gpu_id=gpu_id,
        server_id=records.server_id(lists_are_known=lists_are_known),
        model=records.model,
        index=records.node.device_index if records.node else None,
        state=_gpu_state(records, holder) if are_known else None,
        chute_id=held.chute_id,
        chute=held.chute,
        instance_id=held.instance_id,
    )


def _gpu_state(records: _Records, holder: Holder | None) -> GpuState | None:
    """Return the state of a GPU, if the inventory has all GPUs that an instance holds."""
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
    names = _chute_names(answers, gpus)
    places = _Places(answers, gpus)
    demand_by_chute = {one.chute.chute_id: one for one in demand or ()}
    found: dict[str, Instance] = {}
    for record in records_of(answers.instances):
        instance = _instance(record, places.of(record), names, demand_by_chute, answers)
        found.setdefault(record.instance_id, instance)
    return tuple(found.values())


def _chute_names(answers: FleetAnswers, gpus: Iterable[Gpu]) -> dict[str, str]:
    """Return the names of chutes by id. The inventory also has those of private ones."""
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
    """Where instances are: by the inventory, or else by the list of held GPUs."""

    def __init__(self, answers: FleetAnswers, gpus: Iterable[Gpu]) -> None:
        self._holders_are_known = are_whole(answers.inventory, answers.instances)
        self._held_are_known = are_whole(answers.miner_gpus)
        self._on_gpus: dict[str, list[Gpu]] = defaultdict(list)
        # Of these GPUs, it is not known which instance holds them.
        self._uncertain: list[Gpu] = []
        for gpu in gpus:
            if gpu.instance_id is None:
                self._uncertain.append(gpu)
            elif gpu.instance_id:
                self._on_gpus[gpu.instance_id].append(gpu)
        self._held: dict[str, list[r.HeldGpu]] = defaultdict(list)
        for item in records_of(answers.miner_gpus):
            self._held[item.instance_id].append(item)

    def of(self, record: r.Instance) -> _Place:
        """Return where an instance is."""
        if self._inventory_tells(record):
            gpus = self._on_gpus.get(record.instance_id, ())
            if not gpus:
                return _Place("", "", 0)
            place = _common_place([(gpu.server_id, gpu.model) for gpu in gpus])
            if place.gpus is not None:
                return place
        if not self._held_are_known:
            return _Place()
        held = self._held.get(record.instance_id, ())
        return _common_place([(gpu.server_id, gpu.gpu) for gpu in held])

    def _inventory_tells(self, record: r.Instance) -> bool:
        if not self._holders_are_known:
            return False
        return not any(_may_hold(record, gpu) for gpu in self._uncertain)


def _may_hold(record: r.Instance, gpu: Gpu) -> bool:
    """Return whether a GPU may be one of an instance, by its chute."""
    return gpu.chute_id == record.chute_id or None in (gpu.chute_id, record.chute_id)


def _common_place(places: Sequence[tuple[str | None, str | None]]) -> _Place:
    """Return the place that all GPUs of an instance have."""
    found = set(places)
    if len(found) != 1:
        return _Place()
    server_id, model = found.pop()
    if not server_id or not model:
        return _Place()
    return _Place(server_id, model, len(places))


def _instance(
    record: r.Instance,
    place: _Place,
    names: Mapping[str, str],
    demand: Mapping[str, Demand],
    answers: FleetAnswers,
) -> Instance:
    public = is_public(record)
    state = instance_state(record)
    has_replacement = _has_replacement(record, answers)
    chute = answers.chutes_by_id.get(record.chute_id or "")
    later = None
    if chute is not None and place.model:
        later = later_multiplier(chute, place.model, answers.rates)
    return Instance(
        instance_id=record.instance_id,
        chute_id=record.chute_id,
        chute=names.get(record.chute_id or ""),
        private=None if public is None else not public,
        state=state,
        created_at=record.created_at,
        units_per_second=record.compute_multiplier,
        later_units_per_second=later,
        deadlines=_deadlines(record),
        server_id=place.server_id,
        model=place.model,
        gpus=place.gpus,
        is_last_active=_is_last_active(record, has_replacement=has_replacement),
        has_replacement=has_replacement,
        is_in_vain=_is_in_vain(state, demand.get(record.chute_id or "")),
    )


def _deadlines(record: r.Instance) -> dict[DeadlineKind, float]:
    times: dict[DeadlineKind, float | None] = {
        "purge": purged_at(record),
        "secured": secured_at(record),
        "end_of_billing": record.stop_billing_at,
    }
    return {kind: time for kind, time in times.items() if time is not None}


def _is_last_active(record: r.Instance, *, has_replacement: bool | None) -> bool | None:
    if record.active is False:
        return False
    if record.active is None or has_replacement is None:
        return None
    return not has_replacement


def _has_replacement(record: r.Instance, answers: FleetAnswers) -> bool | None:
    """Return whether another instance of its chute is active."""
    if record.chute_id is None or not are_whole(answers.active_instances):
        return None
    if answers.active_by_chute.get(record.chute_id, set()) - {record.instance_id}:
        return True
    # One of an unknown chute may be of this one.
    may_exist = answers.active_by_chute.get(None, set()) - {record.instance_id}
    return None if may_exist else False


def _is_in_vain(state: InstanceState | None, demand: Demand | None) -> bool | None:
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
    contradicted: Collection[str],
) -> tuple[Server, ...]:
    """Return the listed servers, each once.

    ``contradicted`` are the ids of those whose GPUs the answers place differently.
    """
    gpus_of: dict[str, list[Gpu]] = defaultdict(list)
    for gpu in gpus:
        if gpu.server_id:
            gpus_of[gpu.server_id].append(gpu)
    instances_of: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        if instance.server_id:
            instances_of[instance.server_id].append(instance)
    lists_are_known = are_whole(answers.servers, answers.nodes)
    # What all chutes and measurements say is looked up once for servers that are alike.
    kinds: dict[_Hardware, _Kind] = {}
    found: dict[str, Server] = {}
    for record in records_of(answers.servers):
        key = record.server_id
        is_whole = lists_are_known and record.gpus is not None and key not in contradicted
        models = tuple(gpu.model for gpu in gpus_of[key])
        hardware = _Hardware(record.is_tee, record.version, models, is_whole)
        if hardware not in kinds:
            kinds[hardware] = _kind(hardware, answers)
        server = _server(record, kinds[hardware], gpus_of[key], instances_of[key], answers)
        found.setdefault(key, server)
    return tuple(found.values())


def _server(
    record: r.Server,
    kind: _Kind,
    gpus: Sequence[Gpu],
    instances: Sequence[Instance],
    answers: FleetAnswers,
) -> Server:
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
        may_be_refused=kind.may_be_refused,
        needs_upgrade=_needs_upgrade(record, step, answers),
        measured=kind.measured,
        runs_chutes=kind.runs_chutes,
        gpus=tuple(gpus),
        instances=tuple(instances),
        is_whole=kind.is_whole,
    )


def _contradicted_servers(listed: Iterable[_Records]) -> set[str]:
    """Return the ids of servers that share a GPU, which is on one of them only."""
    found: set[str] = set()
    for records in listed:
        if len(records.server_ids) > 1:
            found |= records.server_ids
    return found


@dataclass(frozen=True)
class _Hardware:
    """What decides about a server in the same way as about others that have it, too."""

    tee: bool | None
    version: str | UnsetType | None
    models: tuple[str | None, ...]
    is_whole: bool


@dataclass(frozen=True)
class _Kind:
    """What is the same for all servers with the same hardware and version."""

    is_whole: bool
    boots: bool | None
    may_be_refused: bool
    measured: Measured | None
    runs_chutes: bool | None


def _kind(hardware: _Hardware, answers: FleetAnswers) -> _Kind:
    is_asked = hardware.tee and hardware.version is not UNSET and hardware.version
    boots, may_be_refused = None, False
    # Nothing is known of the next boot without TEE or a version.
    if is_asked and are_whole(answers.measurements):
        listed = {measurement.version for measurement in records_of(answers.measurements)}
        boots = version_accepted(str(hardware.version), listed)
        may_be_refused = boots is None
    return _Kind(
        hardware.is_whole,
        boots,
        may_be_refused,
        _measured(hardware, answers),
        _runs_chutes(hardware, answers),
    )


@dataclass(frozen=True)
class _Maintenance:
    status: MaintenanceStatus | None
    holds_slot: bool | None


def _maintenance(
    record: r.Server, step: r.MaintenanceServer | None, answers: FleetAnswers
) -> _Maintenance:
    """Return the step of a server, and whether it holds an upgrade slot.

    A slot in either answer counts. The list of servers may not show the slots of pending servers.
    """
    status = _maintenance_status(record, step, answers)
    if record.maintenance_pending and status in ("none", None):
        return _Maintenance(None, holds_slot=True)
    if status is None:
        return _Maintenance(None, holds_slot=None)
    holds_slot = status != "none"
    if record.maintenance_pending is None and not holds_slot:
        return _Maintenance(status, holds_slot=None)
    return _Maintenance(status, holds_slot)


def _maintenance_status(
    record: r.Server, step: r.MaintenanceServer | None, answers: FleetAnswers
) -> MaintenanceStatus | None:
    if step is not None:
        return maintenance_status(step)
    return "none" if _has_no_step(record, answers) else None


def _needs_upgrade(
    record: r.Server, step: r.MaintenanceServer | None, answers: FleetAnswers
) -> bool | None:
    if step is not None:
        return step.needs_upgrade
    return False if _has_no_step(record, answers) else None


def _has_no_step(record: r.Server, answers: FleetAnswers) -> bool:
    """Return whether a server that the policy does not list is known to be in no maintenance.

    The policy has all servers with TEE, from the first window on.
    """
    if record.is_tee is False:
        return True
    if answers.policy is None or answers.policy.servers is None:
        return False
    return are_whole(answers.maintenance)


def _measured(hardware: _Hardware, answers: FleetAnswers) -> Measured | None:
    """Return whether the service lists the target of the newest window for a server's GPUs."""
    window = None if answers.policy is None else answers.policy.active_window
    target = None if window is None else window.target_measurement_version
    if target is None or not hardware.is_whole or not are_whole(answers.measurements):
        return None
    models = [model for model in hardware.models if model is not None]
    if len(models) < len(hardware.models):
        return None
    return measured(target, models, records_of(answers.measurements))


def _runs_chutes(hardware: _Hardware, answers: FleetAnswers) -> bool | None:
    """Return whether a chute exists that runs on a server, whose GPUs may not all be known."""
    models = set(hardware.models)
    if hardware.tee is None or None in models:
        return None
    is_known = hardware.is_whole and are_whole(answers.chutes)
    for chute in answers.chutes_by_id.values():
        selector = chute.node_selector
        if chute.tee is None or selector is None or selector.supported_gpus is None:
            is_known = False
        elif chute.tee == hardware.tee and not models.isdisjoint(selector.supported_gpus):
            return True
    return False if is_known else None


# The miner


def _is_registered(answers: FleetAnswers) -> bool | None:
    if answers.seat is not None:
        return True
    return False if are_whole(answers.metagraph) else None


def _stuck_jobs(answers: FleetAnswers) -> int | None:
    if not are_whole(answers.jobs):
        return None
    stuck: Counter[bool | None] = Counter(
        is_stuck(job)
        for job in records_of(answers.jobs)
        if job.miner_hotkey == answers.hotkey or job.miner_hotkey is UNSET
    )
    return None if stuck[None] else stuck[True]


def _window(policy: r.MaintenancePolicy | None) -> Window | None:
    if policy is None:
        return None
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
    """Return whether the answers are whole that say which launches of the miner are refused."""
    return (
        are_whole(answers.servers, answers.nodes)
        and are_whole(answers.inventory, answers.instances, answers.maintenance)
        and are_whole(answers.metagraph, answers.supported_gpus)
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
    return {
        "servers": _servers_are_known(answers, servers),
        "gpus": gpus_are_known,
        "instances": instances_are_known,
        "pay": gpus_are_known and instances_are_known and all(map(_pay_is_known, servers)),
    }


def _servers_are_known(answers: FleetAnswers, servers: Iterable[Server]) -> bool:
    return are_whole(answers.servers) and all(
        server.name and server.holds_slot is not None for server in servers
    )


def _gpus_are_known(answers: FleetAnswers, gpus: Iterable[Gpu], servers: Iterable[Server]) -> bool:
    return (
        are_whole(answers.servers, answers.nodes, answers.inventory, answers.instances)
        and all(server.is_whole for server in servers)
        and all(gpu.model and gpu.state and gpu.server_id is not None for gpu in gpus)
    )


def _instances_are_known(answers: FleetAnswers, instances: Iterable[Instance]) -> bool:
    return are_whole(answers.instances) and all(
        one.state and one.private is not None and one.chute for one in instances
    )


def _pay_is_known(server: Server) -> bool:
    return all(
        server.name and server.units_per_second(model) is not None for model in server.models or ()
    )
