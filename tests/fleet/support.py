"""Fleets of recorded worlds, and fleets that a test builds."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chutes_exporter.api.records import Chute, HourlyAudit
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.feeds.fleet import FLEET_FEEDS, fleet_answers
from chutes_exporter.fleet.ends import Ledger
from chutes_exporter.fleet.failures import FAILURE_HOURS
from chutes_exporter.fleet.gpus import Gpu
from chutes_exporter.fleet.instances import Instance
from chutes_exporter.fleet.model import Fleet
from chutes_exporter.fleet.offers import Offer, find_demand
from chutes_exporter.fleet.servers import Server
from chutes_exporter.rules.launch import Demand
from tests.collectors.support import ME, answer, decoded
from tests.recorded import DIRECTORIES, Miner
from tests.support import NOON

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.fleet.answers import FleetAnswers
    from chutes_exporter.fleet.gpus import GpuState

QUIET = Ledger([HourlyAudit([], [], end=NOON - age * HOUR) for age in range(FAILURE_HOURS)])
"""Reports of hours in which nothing ended."""
WORLDS = [Miner(directory) for directory in DIRECTORIES]
"""The test miner of each recorded world."""


def world_answers(miner: Miner) -> FleetAnswers:
    """Return the recorded answers that a fleet is joined from."""
    bodies = miner.bodies()
    recorded_at = json.loads((miner.directory / "meta.json").read_bytes())["recorded_at"]
    known = {}
    for feed in FLEET_FEEDS:
        if feed.name in bodies:
            answer = asyncio.run(decoded(feed, bodies[feed.name]))
            known[feed.name] = replace(answer, received_at=recorded_at)
    return answers_about(miner.hotkey, known)


def answers_about(hotkey: str, known: Mapping[str, Answer[Any]]) -> FleetAnswers:
    """Return the answers about a miner, with the demand that they make. Nothing ended lately."""
    answers = fleet_answers(known, hotkey, ledger=QUIET)
    return replace(answers, demand=find_demand(answers))


def sent(bodies: Mapping[str, Any], *, doubted: Collection[str] = ()) -> FleetAnswers:
    """Return the answers that the API sends to the miner ``ME`` at noon.

    Args:
        bodies: Their JSON by the names of the answers.
        doubted: The names of the answers that are doubted.
    """
    known = {}
    for feed in FLEET_FEEDS:
        if feed.name in bodies:
            sent = answer(feed, bodies[feed.name], doubted=feed.name in doubted)
            known[feed.name] = replace(sent, received_at=NOON)
    return answers_about(ME, known)


def make_gpus(
    state: GpuState | None, count: int, *, server: str = "s1", model: str = "pro_6000", **more: Any
) -> tuple[Gpu, ...]:
    """Return GPUs in a state. They name no chute and no instance unless ``more`` does."""
    fields: dict[str, Any] = {"chute_id": "", "instance_id": ""} | more
    return tuple(
        Gpu(f"{server}-{state}-{number}", server, model, number, state, **fields)
        for number in range(count)
    )


def make_instance(instance_id: str = "i1", **fields: Any) -> Instance:
    """Return an active public instance on two GPUs of the server s1, created two hours ago."""
    given: dict[str, Any] = {
        "instance_id": instance_id,
        "chute_id": "c1",
        "chute": "llama",
        "private": False,
        "state": "active",
        "created_at": NOON - 7200,
        "units_per_second": 2.0,
        "later_units_per_second": 2.0,
        "deadlines": {},
        "server_id": "s1",
        "model": "pro_6000",
        "gpus": 2,
        "has_replacement": True,
        "is_in_vain": False,
    }
    return Instance(**given | fields)


def make_server(server_id: str = "s1", *gpus: Gpu, **fields: Any) -> Server:
    """Return a server with TEE outside of any maintenance."""
    given: dict[str, Any] = {
        "server_id": server_id,
        "name": f"tee {server_id}",
        "version": "1.6.2",
        "tee": True,
        "maintenance": "none",
        "holds_slot": False,
        "boots": True,
        "needs_upgrade": False,
        "measured": "measured",
        "runs_chutes": True,
        "gpus": gpus,
        "instances": (),
        "is_complete": True,
    }
    return Server(**given | fields)


def make_fleet(*servers: Server, **fields: Any) -> Fleet:
    """Return the fleet of a miner that is registered, with the GPUs and instances of servers."""
    given: dict[str, Any] = {
        "hotkey": "me",
        "registered": True,
        "blacklisted": False,
        "servers": servers,
        "gpus": tuple(gpu for server in servers for gpu in server.gpus),
        "instances": tuple(one for server in servers for one in server.instances),
        "markets": (),
        "stuck_jobs": (),
        "known": {"servers": True, "gpus": True, "instances": True, "pay": True},
    }
    return Fleet(**given | fields)


def make_offer(pay: float) -> Offer:
    """Return an offer of one instance on one GPU, which earns ``pay`` units a second, at first and
    later.
    """
    demand = Demand(Chute("c2", "flux", tee=True, public=False), active=1, starting=0, target=2)
    return Offer(
        model="pro_6000",
        demand=demand,
        size=1,
        room_after_starting=1,
        first_day_units=pay * DAY,
        later_units_per_second=pay,
        hanging=0,
    )
