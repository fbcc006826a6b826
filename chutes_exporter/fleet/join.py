"""Joins the answers about a miner into its fleet."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import UNSET

from chutes_exporter.fleet.answers import are_complete, first_of_each
from chutes_exporter.fleet.failures import FAILURE_HOURS, find_failures
from chutes_exporter.fleet.model import Fleet, Gpu, Instance, Server
from chutes_exporter.fleet.offers import find_markets
from chutes_exporter.fleet.outages import find_outages
from chutes_exporter.fleet.placement import find_left_out, plan_servers
from chutes_exporter.fleet.places import Holder, find_holders, find_places
from chutes_exporter.rules.instances import deadlines_of, instance_state, is_private
from chutes_exporter.rules.maintenance import holds_slot, maintenance_status
from chutes_exporter.rules.money import later_units_per_second
from chutes_exporter.rules.score import is_blacklisted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.model import GpuState, ServerPlan, Topic

Placed = TypeVar("Placed", Gpu, Instance)


def join_fleet(answers: FleetAnswers) -> Fleet:
    """Return the fleet of a miner, with everything that the answers tell."""
    gpus = _gpus(answers)
    instances = _instances(answers, gpus)
    servers = _servers(answers, gpus, instances)
    window = answers.window
    ledger = answers.ledger
    outages, left_out = find_outages(ledger, answers.hotkey, servers)
    # A reason that is certain comes before that a server may be dead.
    left_out |= find_left_out(servers, window, answers.at)
    failures = find_failures(ledger, answers.hotkey, outages)
    markets = find_markets(answers, servers, instances)
    plans: tuple[ServerPlan, ...] = ()
    if markets is not None:
        plans = plan_servers(servers, markets, left_out, failures.failing)
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
        plans=plans,
        stuck_jobs=answers.stuck_jobs,
        window=window,
        failures=failures,
        outages=outages,
        known=_known_topics(answers, gpus, instances, servers),
    )


# GPUs


def _gpus(answers: FleetAnswers) -> tuple[Gpu, ...]:
    """Return all GPUs: those with a record, and those that are only in the inventory.

    If two servers seem to have a GPU, it is on the one that lists it.
    """
    holders = find_holders(answers)
    lists_are_known = are_complete(answers.servers, answers.nodes)
    holders_are_known = are_complete(answers.inventory, answers.instances)
    # Empty texts mean that a GPU is in no instance for certain.
    no_holder = Holder("", "", "") if holders_are_known else Holder()
    # Of several records of a GPU, the first one that says something counts.
    server_ids: dict[str, str | None] = {}
    models: dict[str, str] = {}
    are_verified: dict[str, bool] = {}
    for server_id, record in answers.listed_gpus:
        server_ids[record.uuid] = server_id
        if record.gpu_identifier:
            models.setdefault(record.uuid, record.gpu_identifier)
        if record.verified_at is not UNSET:
            are_verified.setdefault(record.uuid, record.verified_at is not None)
    indexes = {node.uuid: node.device_index for node in answers.nodes.value}
    all_are_known = lists_are_known and holders_are_known
    # A GPU is on no server only if no list of its server can be missing.
    no_server = "" if lists_are_known else None
    gpus = []
    for gpu_id in {**server_ids, **holders}:
        holder, is_verified = holders.get(gpu_id, no_holder), are_verified.get(gpu_id)
        gpu = Gpu(
            gpu_id=gpu_id,
            server_id=server_ids.get(gpu_id) or no_server,
            model=models.get(gpu_id),
            index=indexes.get(gpu_id),
            state=_gpu_state(holder, is_verified=is_verified) if all_are_known else None,
            chute_id=holder.chute_id,
            chute=holder.chute,
            instance_id=holder.instance_id,
        )
        gpus.append(gpu)
    return tuple(gpus)


def _gpu_state(holder: Holder, *, is_verified: bool | None) -> GpuState | None:
    """Return the state of a GPU, None if that is unknown.

    All holders must be known, so that a GPU without a holder is in no instance for certain.
    """
    if holder.instance_id != "":
        return "earning" if holder.state == "active" else holder.state
    if is_verified is None:
        return None
    return "idle" if is_verified else "unverified"


# Instances


def _instances(answers: FleetAnswers, gpus: Sequence[Gpu]) -> tuple[Instance, ...]:
    names = {chute_id: chute.name for chute_id, chute in answers.chutes_by_id.items()}
    # The inventory also names private chutes, which the list of chutes may lack.
    names |= {gpu.chute_id: gpu.chute for gpu in gpus if gpu.chute}
    places = find_places(answers, gpus)
    instances = []
    for record in first_of_each(answers.instances.value, "instance_id").values():
        chute, place = answers.chutes_by_id.get(record.chute_id), places[record.instance_id]
        instance = Instance(
            instance_id=record.instance_id,
            chute_id=record.chute_id,
            chute=names.get(record.chute_id) or None,
            private=is_private(record),
            state=instance_state(record),
            created_at=record.created_at,
            units_per_second=record.compute_multiplier,
            later_units_per_second=later_units_per_second(chute, place.model, answers.rates),
            deadlines=deadlines_of(record),
            server_id=place.server_id,
            model=place.model,
            gpus=place.gpus,
            has_replacement=answers.has_replacement(record),
            is_in_vain=answers.is_in_vain(record),
        )
        instances.append(instance)
    return tuple(instances)


# Servers


def _servers(
    answers: FleetAnswers, gpus: Iterable[Gpu], instances: Iterable[Instance]
) -> tuple[Server, ...]:
    gpus_by_server, instances_by_server = _by_server(gpus), _by_server(instances)
    servers = []
    for server_id, record in first_of_each(answers.servers.value, "server_id").items():
        maintenance = answers.maintenance_of(record)
        status = maintenance_status(maintenance)
        has_slot = holds_slot(record, status)
        server = Server(
            server_id=server_id,
            name=record.name or None,
            # None is a server that has never booted an image.
            version=None if record.version is UNSET else record.version or "",
            tee=record.is_tee,
            # If the policy does not know of the slot, the status is unknown.
            maintenance=None if has_slot and status == "none" else status,
            holds_slot=has_slot,
            boots=answers.boots(record),
            needs_upgrade=maintenance.needs_upgrade,
            gpus=tuple(gpus_by_server[server_id]),
            instances=tuple(instances_by_server[server_id]),
            is_complete=are_complete(answers.servers, answers.nodes) and record.gpus is not None,
        )
        measured, runs_chutes = answers.measured(server), answers.runs_chutes(server)
        servers.append(replace(server, measured=measured, runs_chutes=runs_chutes))
    return tuple(servers)


def _by_server(placed: Iterable[Placed]) -> dict[str, list[Placed]]:
    """Return GPUs or instances by the id of their server, without those that have none or of which
    it is unknown.
    """
    by_server: dict[str, list[Placed]] = defaultdict(list)
    for one in placed:
        if one.server_id:
            by_server[one.server_id].append(one)
    return by_server


# The miner


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
