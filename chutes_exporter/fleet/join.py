"""Joins the answers about a miner into its fleet."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import UNSET

from chutes_exporter.api import records as r
from chutes_exporter.fleet.answers import are_complete
from chutes_exporter.fleet.failures import FAILURE_HOURS, find_failures
from chutes_exporter.fleet.model import Fleet, Gpu, Instance, Server, StuckJob, Window
from chutes_exporter.fleet.offers import find_demand, find_left_out, find_markets, plan_servers
from chutes_exporter.fleet.outages import find_outages
from chutes_exporter.fleet.places import Holder, Place, find_holders, find_places
from chutes_exporter.rules.instances import instance_state, is_private, purged_at, secured_at
from chutes_exporter.rules.jobs import is_stuck
from chutes_exporter.rules.maintenance import (
    maintenance_status,
    measured,
    version_accepted,
    window_is_open,
)
from chutes_exporter.rules.money import later_multiplier
from chutes_exporter.rules.score import is_blacklisted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import DeadlineKind, GpuState, Topic
    from chutes_exporter.rules.launch import Demand
    from chutes_exporter.rules.maintenance import MaintenanceStatus, Measured

Placed = TypeVar("Placed", Gpu, Instance)


def join_fleet(answers: FleetAnswers) -> Fleet:
    """Return the fleet of a miner, with everything that the answers tell."""
    holders = find_holders(answers)
    gpus = _gpus(answers, holders)
    demand = find_demand(answers) if answers.demand is None else answers.demand
    instances = _instances(answers, gpus, demand or ())
    servers = _servers(answers, gpus, instances)
    window = _window(answers.policy)
    ledger = answers.ledger
    outages, left_out = find_outages(ledger, answers.hotkey, servers)
    # A reason that is certain comes before that a server may be dead.
    left_out |= find_left_out(servers, window, answers.at)
    failures = find_failures(ledger, answers.hotkey, servers)
    markets = find_markets(answers, demand, servers, instances)
    seat = answers.seat
    registered = False if answers.metagraph.complete else None
    return Fleet(
        hotkey=answers.hotkey,
        registered=registered if seat is None else True,
        blacklisted=None if seat is None else is_blacklisted(seat),
        servers=servers,
        gpus=gpus,
        instances=instances,
        markets=markets,
        left_out=left_out,
        plans=plan_servers(servers, markets, left_out, failures.failing),
        stuck_jobs=_stuck_jobs(answers),
        window=window,
        failures=failures,
        outages=outages,
        known=_known_topics(answers, gpus, instances, servers),
    )


# GPUs


def _gpus(answers: FleetAnswers, holders: Mapping[str, Holder]) -> tuple[Gpu, ...]:
    """Return all GPUs: those with a record, and those that are only in the inventory.

    If two servers seem to have a GPU, it is on the one that lists it. ``holders`` says what holds a
    GPU, by its id.
    """
    lists_are_known = are_complete(answers.servers, answers.nodes)
    holders_are_known = are_complete(answers.inventory, answers.instances)
    # Empty texts mean that a GPU is in no instance for certain.
    no_holder = Holder("", "", "") if holders_are_known else Holder()
    records: dict[str, list[r.Node | r.ServerGpu]] = defaultdict(list)
    server_ids: dict[str, str | None] = {}
    for server_id, record in _listed_gpus(answers):
        records[record.uuid].append(record)
        server_ids[record.uuid] = server_id
    indexes = {node.uuid: node.device_index for node in answers.nodes.value}
    all_are_known = lists_are_known and holders_are_known
    # A GPU is on no server only if no list of its server can be missing.
    no_server = "" if lists_are_known else None
    gpus = []
    for gpu_id in {**records, **holders}:
        holder = holders.get(gpu_id, no_holder)
        gpu = Gpu(
            gpu_id=gpu_id,
            server_id=server_ids.get(gpu_id) or no_server,
            model=_model(records[gpu_id]),
            index=indexes.get(gpu_id),
            state=_gpu_state(records[gpu_id], holder) if all_are_known else None,
            chute_id=holder.chute_id,
            chute=holder.chute,
            instance_id=holder.instance_id,
        )
        gpus.append(gpu)
    return tuple(gpus)


def _listed_gpus(
    answers: FleetAnswers,
) -> Iterator[tuple[str | None, r.Node | r.ServerGpu]]:
    """Yield each record of a GPU with the id of its server, those in the list of servers last."""
    for node in answers.nodes.value:
        yield node.server_id, node
    for server in answers.servers.value:
        for record in server.gpus or ():
            yield server.server_id, record


def _model(records: Iterable[r.Node | r.ServerGpu]) -> str | None:
    return next((record.gpu_identifier for record in records if record.gpu_identifier), None)


def _gpu_state(records: Iterable[r.Node | r.ServerGpu], holder: Holder) -> GpuState | None:
    """Return the state of a GPU, None if that is unknown: several states are possible, or no
    record says whether it is verified.

    All holders must be known, so that a GPU without a holder is in no instance for certain.
    """
    if holder.instance_id != "":
        return "earning" if holder.state == "active" else holder.state
    for record in records:
        if record.verified_at is not UNSET:
            return "unverified" if record.verified_at is None else "idle"
    return None


# Instances


def _instances(
    answers: FleetAnswers, gpus: Sequence[Gpu], demand: Iterable[Demand]
) -> tuple[Instance, ...]:
    """Return the listed instances, each once. Of several records of one, the first counts."""
    # The inventory also names private chutes, which the list of chutes may lack.
    names = {chute_id: chute.name for chute_id, chute in answers.chutes_by_id.items()}
    names |= {gpu.chute_id: gpu.chute for gpu in gpus if gpu.chute_id and gpu.chute}
    places = find_places(answers, gpus)
    demand_by_chute = {one.chute.chute_id: one for one in demand}
    instances: dict[str, Instance] = {}
    for record in answers.instances.value:
        chute_id = record.chute_id or ""
        instance = _instance(
            record,
            answers,
            places[record.instance_id],
            chute_name=names.get(chute_id) or None,
            demand=demand_by_chute.get(chute_id),
        )
        instances.setdefault(record.instance_id, instance)
    return tuple(instances.values())


def _instance(
    record: r.Instance,
    answers: FleetAnswers,
    place: Place,
    *,
    chute_name: str | None,
    demand: Demand | None,
) -> Instance:
    state = instance_state(record)
    chute = answers.chutes_by_id.get(record.chute_id or "")
    later_units_per_second = None
    if chute is not None and place.model:
        later_units_per_second = later_multiplier(chute, place.model, answers.rates)
    is_in_vain: bool | None = False
    if state in ("starting", None):
        # The service may refuse its activation.
        is_in_vain = demand.activation_is_refused if state and demand else None
    deadlines: dict[DeadlineKind, float | None] = {
        "purge": purged_at(record),
        "secured": secured_at(record),
        "end_of_billing": record.stop_billing_at,
    }
    return Instance(
        instance_id=record.instance_id,
        chute_id=record.chute_id,
        chute=chute_name,
        private=is_private(record),
        state=state,
        created_at=record.created_at,
        units_per_second=record.compute_multiplier,
        later_units_per_second=later_units_per_second,
        deadlines={kind: time for kind, time in deadlines.items() if time is not None},
        server_id=place.server_id,
        model=place.model,
        gpus=place.gpus,
        has_replacement=_has_replacement(record, answers),
        is_in_vain=is_in_vain,
    )


def _has_replacement(record: r.Instance, answers: FleetAnswers) -> bool | None:
    """Return whether another instance of the same chute is active, None if it is unknown."""
    if record.chute_id is None or not answers.active_instances.complete:
        return None
    if answers.active_by_chute.get(record.chute_id, set()) - {record.instance_id}:
        return True
    # Each of these may be one of the same chute.
    of_unknown_chute = answers.active_by_chute.get(None, set()) - {record.instance_id}
    return None if of_unknown_chute else False


# Servers


def _servers(
    answers: FleetAnswers, gpus: Iterable[Gpu], instances: Iterable[Instance]
) -> tuple[Server, ...]:
    """Return the listed servers, each once. Of several records of one, the first counts."""
    gpus_by_server = _by_server(gpus)
    instances_by_server = _by_server(instances)
    lists_are_known = are_complete(answers.servers, answers.nodes)
    hardware = _hardware_of_chutes(answers)
    servers: dict[str, Server] = {}
    for record in answers.servers.value:
        server = _server(
            record,
            answers,
            tuple(gpus_by_server[record.server_id]),
            tuple(instances_by_server[record.server_id]),
            hardware,
            is_complete=lists_are_known and record.gpus is not None,
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


def _server(
    record: r.Server,
    answers: FleetAnswers,
    gpus: tuple[Gpu, ...],
    instances: tuple[Instance, ...],
    hardware: Collection[tuple[bool, str]] | None,
    *,
    is_complete: bool,
) -> Server:
    """Return a server. ``hardware`` is where chutes run, None while that is unknown."""
    models = [gpu.model or "" for gpu in gpus]
    are_all_models = is_complete and "" not in models
    step = _step(record, answers)
    status = maintenance_status(step)
    holds_slot = _holds_slot(record, status)
    return Server(
        server_id=record.server_id,
        name=record.name or None,
        # None is a server that has never booted an image.
        version=None if record.version is UNSET else record.version or "",
        tee=record.is_tee,
        # If the policy does not know of the slot, the step is unknown.
        maintenance=None if holds_slot and status == "none" else status,
        holds_slot=holds_slot,
        boots=_boots(record, answers),
        needs_upgrade=step.needs_upgrade,
        measured=_measured(models, answers) if are_all_models else None,
        runs_chutes=_runs_chutes(record, models, hardware) if are_all_models else None,
        gpus=gpus,
        instances=instances,
        is_complete=is_complete,
    )


def _boots(record: r.Server, answers: FleetAnswers) -> bool | None:
    """Return whether the service accepts the version of a server at the next boot. None is unknown,
    also of a server that has never booted an image, or without TEE.
    """
    if not record.is_tee or not record.version or not answers.measurements.complete:
        return None
    return version_accepted(record.version, {one.version for one in answers.measurements.value})


def _runs_chutes(
    record: r.Server, models: Iterable[str], hardware: Collection[tuple[bool, str]] | None
) -> bool | None:
    """Return whether a chute runs on one of the models of a server, with TEE or without like it."""
    tee = record.is_tee
    if tee is None or hardware is None:
        return None
    return any((tee, model) in hardware for model in models)


def _hardware_of_chutes(answers: FleetAnswers) -> set[tuple[bool, str]] | None:
    """Return on which models chutes run, with TEE or without, None while that is unknown of one."""
    hardware: set[tuple[bool, str]] = set()
    for chute in answers.chutes.value:
        selector = chute.node_selector
        if chute.tee is None or selector is None or selector.supported_gpus is None:
            return None
        hardware |= {(chute.tee, model) for model in selector.supported_gpus}
    return hardware if answers.chutes.complete else None


def _step(record: r.Server, answers: FleetAnswers) -> r.MaintenanceServer:
    """Return what the maintenance policy says about a server, which may be unknown.

    It has all servers with TEE, and none of the others, which are never upgraded. Before the first
    window, it is empty, because there is no maintenance.
    """
    step = r.MaintenanceServer(record.server_id)
    has_all = answers.maintenance.complete and answers.maintenance.value.servers is not None
    if has_all or record.is_tee is False:
        step = r.MaintenanceServer(record.server_id, needs_upgrade=False, maintenance_status="none")
    return answers.steps.get(record.server_id, step)


def _holds_slot(record: r.Server, status: MaintenanceStatus | None) -> bool | None:
    """Return whether a server holds an upgrade slot: its record or its step in the policy says so.

    The list of servers may not show the slots of pending servers.
    """
    if record.maintenance_pending or status in ("pending", "maintenance"):
        return True
    return None if None in (record.maintenance_pending, status) else False


def _measured(models: Sequence[str], answers: FleetAnswers) -> Measured | None:
    """Return what the service's list of TEE measurements says about a server with all these GPUs:
    does it boot with the version to which the newest maintenance window upgrades?

    None is unknown, or there is no such version.
    """
    # In spite of its name, this window need not be open: it is the newest one.
    window = None if answers.policy is None else answers.policy.active_window
    version = None if window is None else window.target_measurement_version
    if version is None or not answers.measurements.complete:
        return None
    return measured(version, models, answers.measurements.value)


# The miner


def _stuck_jobs(answers: FleetAnswers) -> tuple[StuckJob, ...] | None:
    """Return the miner's stuck jobs, None while it is unknown of a job."""
    if not answers.jobs.complete:
        return None
    stuck = []
    for job in answers.jobs.value:
        # A job that does not name its miner may be one of this miner. Then it is unknown whether it
        # is stuck, unless it is finished.
        if job.miner_hotkey not in (answers.hotkey, UNSET) or is_stuck(job) is False:
            continue
        if is_stuck(job) is None:
            return None
        chute = answers.chutes_by_id.get(job.chute_id or "")
        name = job.chute_id if chute is None else chute.name
        stuck.append(StuckJob(job.job_id, name, job.created_at))
    return tuple(stuck)


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
    gpus: Iterable[Gpu],
    instances: Iterable[Instance],
    servers: Sequence[Server],
) -> dict[Topic, bool]:
    """Return for each topic whether everything about it is known, so that no sum is too low."""
    lists = (answers.servers, answers.nodes, answers.inventory, answers.instances)
    facts_of_gpus = [
        *((gpu.model, gpu.state, gpu.server_id) for gpu in gpus),
        # The models are unknown of a server that may have more GPUs.
        *((server.models,) for server in servers),
    ]
    known: dict[Topic, bool] = {
        "servers": _are_known(((one.name, one.holds_slot) for one in servers), answers.servers),
        "gpus": _are_known(facts_of_gpus, *lists),
        "instances": _are_known(
            ((one.state, one.private, one.chute) for one in instances), answers.instances
        ),
        "reports": not answers.ledger.missing_hours(FAILURE_HOURS),
    }
    pay = ((server.name, server.earned_units_per_second) for server in servers)
    # The pay of each server is looked up last, because that takes the longest.
    known["pay"] = known["gpus"] and known["instances"] and _are_known(pay)
    return known


def _are_known(facts: Iterable[tuple[object, ...]], *sources: Answer[Any]) -> bool:
    return are_complete(*sources) and all(None not in fact for fact in facts)
