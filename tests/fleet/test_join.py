"""What is unknown of a fleet, and what is not, when an answer or a field is missing."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields
from fnmatch import fnmatch
from typing import Any

import pytest

from chutes_exporter.fleet.join import join_fleet
from chutes_exporter.fleet.model import (
    GPU_STATES,
    NO_PAY,
    Fleet,
    Gpu,
    IdlePay,
    Instance,
    Server,
    Window,
)
from chutes_exporter.fleet.upgrades import find_waiting
from tests.collectors.support import NOON_TEXT
from tests.fleet.support import sent
from tests.support import NOON

Row = dict[str, Any]
Bodies = dict[str, Any]

EARLIER = "2026-11-24T11:00:00+00:00"


def gpu(number: int, **more: Any) -> Row:
    """Return the record of a verified h200, as a server and the list of nodes have it."""
    return {"uuid": f"g{number}", "gpu_identifier": "h200", "verified_at": NOON_TEXT} | more


def chute(chute_id: str, name: str, **more: Any) -> Row:
    """Return a public chute with TEE for one h200 or b200."""
    return {
        "chute_id": chute_id,
        "name": name,
        "public": True,
        "tee": True,
        "disabled": False,
        "node_selector": {"gpu_count": 1, "supported_gpus": ["h200", "b200"]},
        "effective_compute_multiplier": 3.0,
        "compute_multiplier_factors": {"tee": 1.2},
    } | more


def held(number: int, instance: Row) -> Row:
    """Return the item of the inventory for a GPU that an instance holds."""
    names = {"c1": "llama", "c2": "flux"}
    return {
        "gpu_id": f"g{number}",
        "chute_id": instance["chute_id"],
        "chute_name": names[instance["chute_id"]],
        "active": instance["active"],
        "last_verified_at": instance["last_verified_at"],
    }


def provisioned(*instances: Row) -> Row:
    """Return the public list of held GPUs. An instance that is named twice has two GPUs there."""
    gpus = []
    for instance in instances:
        held_by = {key: instance[key] for key in ("chute_id", "instance_id", "activated_at")}
        gpus.append({"gpu": "h200", "server_id": "s1", "chute": held_by})
    return {"me": {"provisioned": gpus}}


ACTIVE = {
    "instance_id": "i1",
    "chute_id": "c1",
    "active": True,
    "verified": True,
    "created_at": EARLIER,
    "activated_at": EARLIER,
    "last_verified_at": EARLIER,
    "billed_to": None,
    "compute_multiplier": 5.0,
    "version": "v1",
}
STARTING = {
    "instance_id": "i2",
    "chute_id": "c2",
    "active": False,
    "verified": False,
    "created_at": NOON_TEXT,
    "activated_at": None,
    "last_verified_at": None,
    "billed_to": None,
    "compute_multiplier": 3.0,
    "version": "v1",
}
RECORD = {"timestamp": NOON_TEXT, "active_instance_count": 1, "scale_allowance": 1}
ANSWERS: Bodies = {
    "servers": {
        "servers": [
            {
                "server_id": "s1",
                "name": "box",
                "is_tee": True,
                "version": "1.6.2",
                "maintenance_pending": False,
                "gpus": [gpu(number) for number in range(1, 5)],
            }
        ]
    },
    "nodes": [gpu(number, server_id="s1", device_index=number) for number in range(1, 5)],
    "inventory": [held(1, ACTIVE), held(2, ACTIVE), held(3, STARTING)],
    "instances": [ACTIVE, STARTING],
    "miner_gpus": provisioned(ACTIVE, ACTIVE, STARTING),
    "maintenance": {
        "active_window": {
            "target_measurement_version": "1.6.2",
            "upgrade_window_start": EARLIER,
            "upgrade_window_end": NOON_TEXT,
            "max_concurrent_per_miner": 1,
        },
        "window_open": False,
        "current_slots": 0,
        "servers": [{"server_id": "s1", "maintenance_status": "none", "needs_upgrade": False}],
    },
    "measurements": [{"version": "1.6.2", "expected_gpus": ["h200"], "gpu_count": 4}],
    "jobs": [{"job_id": "j1", "miner_hotkey": "me", "finished_at": None}],
    "metagraph": [{"hotkey": "me", "blacklist_reason": None}],
    "chutes": [chute("c1", "llama"), chute("c2", "flux")],
    "active_instances": [{"instance_id": "i1", "miner_hotkey": "me", "chute_id": "c1"}],
    "utilization": [
        {"chute_id": "c1", "total_instance_count": 1, "target_count": 2} | RECORD,
        {"chute_id": "c2", "total_instance_count": 2, "target_count": 2} | RECORD,
    ],
    "bounties": [],
    "held_gpus": provisioned(ACTIVE, ACTIVE, STARTING),
    "supported_gpus": {"h200": {"hourly_rate": 2.0}, "b200": {"hourly_rate": 4.0}},
}
"""A server with an active instance on two GPUs, a starting one on one GPU, and an idle GPU."""


def uses(fleet: Fleet) -> str:
    """Return what to launch on which server."""
    texts = []
    for use in fleet.plans:
        names = " ".join(str(launch.offer.chute) for launch in use.launches)
        texts.append(f"{use.server_id}: {names}")
    return ", ".join(texts)


def _upgrade_facts(fleet: Fleet) -> dict[str, Any]:
    """Return what is said of the newest window, and of the servers that wait for their upgrade.

    Where one of these is missing or unknown, its facts are None.
    """
    upgrade_facts = {}
    for field in fields(Window):
        upgrade_facts[f"window.{field.name}"] = getattr(fleet.window, field.name, None)
    waiting = find_waiting(fleet)
    for name in ("servers", "unmeasured", "ordered"):
        upgrade_facts[f"waiting.{name}"] = getattr(waiting, name, None)
    return upgrade_facts


def facts(fleet: Fleet) -> dict[str, Any]:
    """Return everything that is said of a fleet, by names such as ``g1.state``.

    What is not known is None. So are the facts that say that all of something is known, such as
    ``known.gpus``, where they are not true. So each None is something that is not known.
    """
    said: dict[str, Any] = {}
    for topic, is_known in fleet.known.items():
        said[f"known.{topic}"] = is_known or None
    for name in ("registered", "blacklisted", "stuck_jobs"):
        said[name] = getattr(fleet, name)
    said |= _upgrade_facts(fleet)
    if fleet.markets is not None:
        said["uses"] = uses(fleet)
        are_best = not any(use.may_be_more for use in fleet.plans)
        said["uses.are_best"] = are_best or None
    for gpu in fleet.gpus:
        said |= _fields_of(gpu, gpu.gpu_id)
    for instance in fleet.instances:
        said |= _instance_facts(instance)
    for server in fleet.servers:
        said |= _server_facts(server)
        said[f"{server.server_id}.idle_pay"] = fleet.idle_pay(server)
    said["idle_pay"] = fleet.idle_pay_of_all
    return said


def _fields_of(thing: Gpu | Instance | Server, key: str) -> dict[str, Any]:
    """Return the fields of a thing by names that begin with its key."""
    return {f"{key}.{field.name}": getattr(thing, field.name) for field in fields(thing)}


def _instance_facts(instance: Instance) -> dict[str, Any]:
    """Return what is said of an instance, with a fact for each of its deadlines."""
    key = instance.instance_id
    said = _fields_of(instance, key)
    del said[f"{key}.deadlines"]
    for deadline, at in instance.deadlines.items():
        said[f"{key}.{deadline}"] = at
    return said


def _server_facts(server: Server) -> dict[str, Any]:
    """Return what is said of a server, and of its GPUs by model and state.

    What its GPUs and instances are themselves is in other facts.
    """
    key = server.server_id
    said = _fields_of(server, key)
    del said[f"{key}.gpus"], said[f"{key}.instances"]
    said[f"{key}.is_whole"] = server.is_whole or None
    said[f"{key}.state"] = server.state
    said[f"{key}.models"] = server.models
    said[f"{key}.waits"] = server.waits_for_upgrade
    said[f"{key}.last_instances"] = server.last_instances
    said[f"{key}.idle_gpus"] = server.idle_gpus
    said[f"{key}.idle_models"] = server.idle_models
    said[f"{key}.units"] = server.earned_units_per_second
    for model in server.models or ():
        said[f"{key}.{model}.units"] = server.units_per_second(model)
        for state in GPU_STATES:
            said[f"{key}.{model}.{state}"] = server.count(model, state)
    return said


KNOWN = facts(join_fleet(sent(ANSWERS)))
"""What is said of the fleet if all is known."""


def lost(said: dict[str, Any]) -> set[str]:
    """Return the names of what is not known any more, compared with :data:`KNOWN`.

    Everything else must be as there.
    """
    gone = {name for name in KNOWN if KNOWN[name] is not None and said.get(name) is None}
    for name, value in said.items():
        if name not in gone:
            assert value == KNOWN[name], name
    return gone


def named(patterns: str) -> set[str]:
    """Return the names of what is known that patterns such as ``g?.state`` stand for.

    A pattern that fits no name fails.
    """
    known = set()
    for pattern in patterns.split():
        names = {name for name in KNOWN if fnmatch(name, pattern)}
        assert names, pattern
        known |= {name for name in names if KNOWN[name] is not None}
    return known


def test_a_fleet_of_which_everything_is_known() -> None:
    for name, value in {
        "registered": True,
        "blacklisted": False,
        "stuck_jobs": 1,
        # The only chute with room, for 3 units a second.
        "uses": "s1: llama",
        "s1.name": "box",
        "s1.state": "idle",
        "s1.maintenance": "none",
        "s1.holds_slot": False,
        "s1.boots": True,
        "s1.needs_upgrade": False,
        "s1.runs_chutes": True,
        "s1.models": ["h200"],
        "s1.h200.earning": 2,
        "s1.h200.starting": 1,
        "s1.h200.idle": 1,
        "s1.h200.disabled": 0,
        "s1.h200.units": 5.0,
        "s1.idle_pay": IdlePay(3, 3),
        "idle_pay": IdlePay(3, 3),
        "g2.instance_id": "i1",
        "g2.chute": "llama",
        "g3.state": "starting",
        "g4.state": "idle",
        "g4.instance_id": "",
        "g4.index": 4,
        "i1.chute": "llama",
        "i1.private": False,
        "i1.state": "active",
        "i1.units_per_second": 5.0,
        "i1.later_units_per_second": 3.0,
        # Secured an hour after its activation at 11:00.
        "i1.secured": NOON,
        "i1.server_id": "s1",
        "i1.model": "h200",
        "i1.gpus": 2,
        "i1.is_last_active": True,
        "i1.is_in_vain": False,
        "i2.state": "starting",
        # Not verified 3.5 hours after its creation at 12:00.
        "i2.purge": NOON + 3.5 * 3600,
        "i2.is_last_active": False,
        "i2.is_in_vain": False,
        "i2.gpus": 1,
        **{f"known.{topic}": True for topic in ("servers", "gpus", "instances", "pay")},
    }.items():
        assert KNOWN[name] == value, name


STATES = (
    "g?.state s1.h200.* s1.units s1.state known.gpus known.pay s1.last_instances s1.idle_gpus "
    "s1.idle_models"
)
"""What needs the states of all GPUs."""
LAUNCHES = "uses* s1.idle_pay idle_pay"
"""What needs to know which launches the service accepts."""


@pytest.mark.parametrize(
    ("name", "unknown", "unknown_while_doubted"),
    [
        (
            "servers",
            f"{STATES} {LAUNCHES} s1.* known.servers waiting*",
            f"{STATES} {LAUNCHES} s1.models s1.is_whole s1.measured known.servers waiting*",
        ),
        (
            "nodes",
            f"{STATES} {LAUNCHES} s1.models s1.is_whole s1.measured g?.index",
            f"{STATES} {LAUNCHES} s1.models s1.is_whole s1.measured",
        ),
        (
            "inventory",
            f"{STATES} {LAUNCHES} g?.chute* g?.instance_id",
            f"{STATES} {LAUNCHES} g4.chute* g4.instance_id",
        ),
        (
            "instances",
            f"{STATES} {LAUNCHES} g?.chute* g?.instance_id i?.* known.instances",
            f"{STATES} {LAUNCHES} g4.chute* g4.instance_id known.instances",
        ),
        # A fallback, which is not needed while the inventory is whole.
        ("miner_gpus", "", ""),
        (
            "maintenance",
            (
                f"{LAUNCHES} s1.maint* s1.holds_slot s1.needs_upgrade s1.waits s1.measured "
                "s1.state known.servers window* waiting*"
            ),
            LAUNCHES,
        ),
        ("measurements", "s1.boots s1.measured", "s1.boots s1.measured"),
        ("jobs", "stuck_jobs", "stuck_jobs"),
        ("metagraph", f"{LAUNCHES} registered blacklisted", LAUNCHES),
        (
            "chutes",
            f"{LAUNCHES} i2.is_in_vain i?.later_units_per_second s1.runs_chutes",
            f"{LAUNCHES} i2.is_in_vain",
        ),
        (
            "active_instances",
            f"{LAUNCHES} i2.is_in_vain i1.is_last_active i?.has_replacement s1.last_instances",
            f"{LAUNCHES} i2.is_in_vain i1.is_last_active i?.has_replacement s1.last_instances",
        ),
        ("utilization", f"{LAUNCHES} i2.is_in_vain", f"{LAUNCHES} i2.is_in_vain"),
        ("bounties", f"{LAUNCHES} i2.is_in_vain", f"{LAUNCHES} i2.is_in_vain"),
        ("held_gpus", f"{LAUNCHES} i2.is_in_vain", f"{LAUNCHES} i2.is_in_vain"),
        ("supported_gpus", LAUNCHES, LAUNCHES),
    ],
)
def test_an_answer_that_is_missing_or_not_whole_removes_what_depends_on_it_and_nothing_else(
    name: str, unknown: str, unknown_while_doubted: str
) -> None:
    without = {key: body for key, body in ANSWERS.items() if key != name}
    assert lost(facts(join_fleet(sent(without)))) == named(unknown)
    doubted = facts(join_fleet(sent(ANSWERS, doubted=[name])))
    assert lost(doubted) == named(unknown_while_doubted)


def test_without_any_answer_nothing_is_known() -> None:
    assert lost(facts(join_fleet(sent({})))) == named("*")


MISSING = object()
"""A field that a record does not have."""


def with_field(path: str, value: Any = MISSING) -> dict[str, Any]:
    """Return what is said of a fleet whose answers have another value, or none, at a path."""
    bodies = deepcopy(ANSWERS)
    # Digits are the number of a record in a list.
    *parents, field = [int(part) if part.isdigit() else part for part in path.split(".")]
    record: Any = bodies
    for part in parents:
        record = record[part]
    if value is MISSING:
        del record[field]
    else:
        record[field] = value
    return facts(join_fleet(sent(bodies)))


@pytest.mark.parametrize(
    ("path", "unknown"),
    [
        # A name would be a label that changes.
        ("servers.servers.0.name", "s1.name known.servers known.pay waiting*"),
        ("servers.servers.0.version", "s1.version s1.boots"),
        (
            "servers.servers.0.gpus",
            (
                "s1.h200.* s1.units s1.state s1.models s1.is_whole s1.measured s1.last_instances "
                "s1.idle_gpus s1.idle_models known.gpus known.pay s1.idle_pay idle_pay"
            ),
        ),
        # The other list of GPUs has it too.
        ("servers.servers.0.gpus.0.gpu_identifier", ""),
        ("servers.servers.0.gpus.3.verified_at", ""),
        ("nodes.0.gpu_identifier", ""),
        ("nodes.3.verified_at", ""),
        ("nodes.0.server_id", ""),
        ("nodes.0.device_index", "g1.index"),
        # The GPU of an unknown chute has the only instance that fits.
        ("inventory.2.chute_id", "g3.chute_id"),
        ("inventory.0.chute_name", "g1.chute"),
        ("inventory.0.active", ""),
        ("inventory.0.last_verified_at", ""),
        (
            "instances.0.chute_id",
            (
                "i1.chute i1.chute_id i1.is_last_active i1.has_replacement i1.later* "
                "s1.last_instances known.instances known.pay"
            ),
        ),
        (
            "instances.0.active",
            (
                "i1.state i1.is_last_active i1.is_in_vain s1.h200.units s1.units known.instances "
                "known.pay"
            ),
        ),
        (
            "instances.1.activated_at",
            (
                "i2.state i2.is_in_vain i2.purge g3.state s1.state s1.h200.* s1.units "
                "s1.last_instances s1.idle_gpus s1.idle_models s1.idle_pay idle_pay known.[gip]*"
            ),
        ),
        ("instances.0.compute_multiplier", "i1.units_per_second s1.h200.units s1.units known.pay"),
        ("instances.1.compute_multiplier", "i2.units_per_second"),
        ("instances.1.billed_to", "i2.private known.instances known.pay"),
        ("maintenance.servers.0.needs_upgrade", "s1.needs_upgrade s1.waits waiting*"),
        ("maintenance.active_window.target_measurement_version", "window.target s1.measured"),
        ("maintenance.active_window.max_concurrent_per_miner", "window.slots"),
        ("maintenance.current_slots", "window.used_slots"),
        ("measurements.0.expected_gpus", "s1.measured"),
        ("measurements.0.gpu_count", "s1.measured"),
        ("jobs.0.finished_at", "stuck_jobs"),
        ("jobs.0.miner_hotkey", "stuck_jobs"),
        ("instances.0.activated_at", "i1.secured"),
        ("instances.1.verified", "i2.purge"),
        # Another chute can be launched, so the idle GPU could earn that at least.
        ("chutes.1.compute_multiplier_factors", "i2.is_in_vain i2.later* uses.are_best"),
        ("chutes.1.tee", "i2.is_in_vain uses.are_best"),
        ("active_instances.0.chute_id", "i2.has_replacement s1.last_instances"),
    ],
)
def test_a_field_that_is_missing_removes_what_depends_on_it_and_nothing_else(
    path: str, unknown: str
) -> None:
    assert lost(with_field(path)) == named(unknown)


@pytest.mark.parametrize(
    ("changes", "fact", "value"),
    [
        # "status" is that of the server in the maintenance policy, "none" if it is not given.
        # "pending" is what the list of servers says, False if it is not given. That list may not
        # show the slot of a pending server, and the policy that of a server which has just got it.
        ({"status": "pending"}, "maintenance", "pending"),
        ({"status": "pending"}, "holds_slot", True),
        ({"status": "pending"}, "state", "maintenance_pending"),
        ({"status": "maintenance", "pending": True}, "state", "in_maintenance"),
        ({"status": "maintenance", "pending": None}, "holds_slot", True),
        ({"pending": True}, "maintenance", None),
        ({"pending": True}, "holds_slot", True),
        ({"pending": True}, "state", None),
        ({"pending": None}, "maintenance", "none"),
        ({"pending": None}, "holds_slot", None),
        ({"pending": None}, "state", None),
        # A status that the exporter does not know.
        ({"status": "draining"}, "maintenance", None),
        ({"status": "draining"}, "holds_slot", None),
        ({"status": "draining", "pending": True}, "holds_slot", True),
    ],
)
def test_a_server_holds_a_slot_if_one_answer_says_so_and_none_only_if_both_do(
    changes: Row, fact: str, value: object
) -> None:
    bodies = deepcopy(ANSWERS)
    bodies["servers"]["servers"][0]["maintenance_pending"] = changes.get("pending", False)
    bodies["maintenance"]["servers"][0]["maintenance_status"] = changes.get("status", "none")
    assert facts(join_fleet(sent(bodies)))[f"s1.{fact}"] == value


@pytest.mark.parametrize(
    ("servers_of_policy", "tee", "maintenance", "needs_upgrade"),
    [
        # The policy has all servers with TEE, so one that it does not list is in no maintenance.
        ([], True, "none", False),
        # It does not say which servers it has.
        (None, True, None, None),
        # A server without TEE is never in maintenance.
        (None, False, "none", False),
        (None, None, None, None),
    ],
)
def test_a_server_that_is_not_in_the_policy_is_in_no_maintenance_if_that_is_certain(
    servers_of_policy: list[Row] | None,
    tee: bool | None,  # noqa: FBT001 - a parameter
    maintenance: str | None,
    needs_upgrade: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    bodies = deepcopy(ANSWERS)
    bodies["maintenance"]["servers"] = servers_of_policy
    bodies["servers"]["servers"][0]["is_tee"] = tee
    found = facts(join_fleet(sent(bodies)))
    assert (found["s1.maintenance"], found["s1.needs_upgrade"]) == (maintenance, needs_upgrade)


def test_a_server_without_tee_holds_no_slot_even_if_the_policy_has_no_servers() -> None:
    bodies = deepcopy(ANSWERS)
    bodies["maintenance"]["servers"] = None
    bodies["servers"]["servers"][0]["is_tee"] = False
    assert facts(join_fleet(sent(bodies)))["s1.holds_slot"] is False


def test_a_server_that_holds_a_slot_could_earn_nothing_and_one_whose_slot_is_unknown_may() -> None:
    for pending, pay in ((True, NO_PAY), (None, None)):
        found = with_field("servers.servers.0.maintenance_pending", pending)
        assert found["s1.idle_pay"] == pay


@pytest.mark.parametrize(
    ("version", "tee", "boots"),
    [
        # The highest version that is listed.
        ("1.6.2", True, True),
        # It is not listed.
        ("1.5.0", True, False),
        # No answer says whether the operators set a lower least version than the highest one.
        ("1.6.1", True, None),
        # Release candidates are never listed, and boot only for some miners.
        ("1.7.0-rc1", True, None),
        # A server that never booted an image, and one without TEE, have no version to judge.
        (None, True, None),
        ("1.5.0", False, None),
    ],
)
def test_a_version_boots_is_refused_or_is_uncertain(
    version: str | None,
    tee: bool,  # noqa: FBT001 - a parameter
    boots: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    servers = deepcopy(ANSWERS["servers"])
    servers["servers"][0] |= {"version": version, "is_tee": tee}
    listed = [{"version": "1.6.1"}, {"version": "1.6.2"}]
    found = facts(join_fleet(sent(ANSWERS | {"servers": servers, "measurements": listed})))
    assert found["s1.boots"] is boots


# Places


def with_instances(*instances: Row, **bodies: Any) -> dict[str, Any]:
    """Return what is said of a fleet with these instances, and with other answers in ``bodies``.

    The remaining answers are those of ``ANSWERS``. With ``miner_gpus={}``, the public list is
    empty, so it cannot tell what the inventory leaves open.
    """
    return facts(join_fleet(sent(ANSWERS | {"instances": [*instances]} | bodies)))


OTHER = ACTIVE | {"instance_id": "i3"}
"""It differs from ACTIVE only in its id, so the inventory does not tell the two apart."""


def test_the_time_of_the_verification_tells_instances_of_a_chute_apart() -> None:
    other = OTHER | {"last_verified_at": NOON_TEXT}
    inventory = [held(1, ACTIVE), held(2, ACTIVE), held(3, other)]
    found = with_instances(ACTIVE, other, inventory=inventory)
    assert (found["g1.instance_id"], found["g3.instance_id"]) == ("i1", "i3")
    assert (found["i1.gpus"], found["i3.gpus"]) == (2, 1)
    # Each of the two earns 5 units a second.
    assert found["s1.h200.units"] == 10


DISABLED = ACTIVE | {"instance_id": "i4", "chute_id": "c2", "active": False}
"""A disabled instance of the chute of STARTING, with an earlier verification."""


def test_of_two_instances_that_are_not_active_the_time_tells_the_state_of_their_gpus() -> None:
    inventory = [held(1, STARTING), held(2, DISABLED)]
    found = with_instances(STARTING, DISABLED, inventory=inventory)
    assert (found["g1.state"], found["g2.state"]) == ("starting", "disabled")
    assert (found["g1.instance_id"], found["g2.instance_id"]) == ("i2", "i4")


def test_a_disabled_instance_earns_until_it_is_deleted() -> None:
    found = with_instances(DISABLED, inventory=[held(2, DISABLED)])
    assert found["s1.h200.units"] == DISABLED["compute_multiplier"]


def test_of_two_disabled_instances_with_the_same_verification_either_may_hold_a_gpu() -> None:
    other = DISABLED | {"instance_id": "i5"}
    found = with_instances(STARTING, DISABLED, other, inventory=[held(2, DISABLED)])
    assert (found["g2.state"], found["g2.instance_id"]) == ("disabled", None)


def test_a_starting_and_a_disabled_instance_with_the_same_verification_leave_the_state_open() -> (
    None
):
    starting = STARTING | {"last_verified_at": EARLIER}
    found = with_instances(starting, DISABLED, inventory=[held(2, DISABLED)])
    assert (found["g2.state"], found["g2.instance_id"]) == (None, None)


def test_if_several_instances_may_hold_a_gpu_the_public_list_tells_their_places() -> None:
    inventory = [held(1, ACTIVE), held(2, ACTIVE), held(3, OTHER)]
    held_gpus = provisioned(ACTIVE, ACTIVE, OTHER)
    found = with_instances(ACTIVE, OTHER, inventory=inventory, miner_gpus=held_gpus)
    assert {found[f"g{number}.instance_id"] for number in (1, 2, 3)} == {None}
    # They are all active, so the states and the pay are known.
    assert {found[f"g{number}.state"] for number in (1, 2, 3)} == {"earning"}
    assert (found["i1.gpus"], found["i3.gpus"], found["i3.server_id"]) == (2, 1, "s1")
    # Each of the two earns 5 units a second.
    assert found["s1.h200.units"] == 10
    assert found["known.pay"]


@pytest.mark.parametrize(
    ("public_list", "doubted"),
    [
        # GPUs may be missing from the list.
        (ANSWERS["miner_gpus"], ["miner_gpus"]),
        # The list does not have the ambiguous instances.
        (provisioned(STARTING), []),
    ],
)
def test_without_the_public_list_the_place_of_an_ambiguous_instance_is_unknown(
    public_list: Row, doubted: list[str]
) -> None:
    bodies = ANSWERS | {
        "inventory": [held(1, ACTIVE), held(2, ACTIVE)],
        "instances": [ACTIVE, OTHER, STARTING],
        "miner_gpus": public_list,
    }
    found = facts(join_fleet(sent(bodies, doubted=doubted)))
    for instance in ("i1", "i3"):
        place = [found[f"{instance}.{name}"] for name in ("server_id", "model", "gpus")]
        assert place == [None, None, None]
    assert found["s1.h200.units"] is found["known.pay"] is None
    # The instance of the other chute is not ambiguous: the inventory has no GPU of that chute.
    assert (found["i2.server_id"], found["i2.model"], found["i2.gpus"]) == ("", "", 0)


def test_an_instance_has_all_its_gpus_or_an_unknown_number() -> None:
    # The inventory has two GPUs of the instance, but one item cannot be read without its id.
    inventory = deepcopy(ANSWERS["inventory"])
    del inventory[0]["gpu_id"]
    found = with_instances(ACTIVE, STARTING, inventory=inventory, miner_gpus={})
    assert found["i1.gpus"] is None
    # The public list has both.
    found = with_instances(ACTIVE, STARTING, inventory=inventory)
    assert found["i1.gpus"] == 2


def test_a_gpu_of_an_unknown_chute_may_be_one_of_any_instance() -> None:
    of_unknown_chute = held(3, STARTING) | {"chute_id": None, "last_verified_at": EARLIER}
    inventory = [held(1, ACTIVE), held(2, ACTIVE), of_unknown_chute]
    # Of all instances that are not active, only this one has the time of the GPU.
    verified = STARTING | {"instance_id": "i3", "last_verified_at": EARLIER}
    found = with_instances(ACTIVE, STARTING, verified, inventory=inventory, miner_gpus={})
    assert (found["g3.instance_id"], found["g3.state"]) == ("i3", "starting")
    # With a second one, it may be a GPU of any instance, so no instance has a known number.
    second = verified | {"instance_id": "i4"}
    found = with_instances(ACTIVE, STARTING, verified, second, inventory=inventory, miner_gpus={})
    assert found["g3.instance_id"] is None
    assert {found[f"i{number}.gpus"] for number in (1, 2, 3, 4)} == {None}


@pytest.mark.parametrize(
    ("items", "instance_id", "gpus"),
    [
        # Where the inventory is uncertain, the public list says that the instance has two GPUs.
        ([held(1, ACTIVE), held(1, STARTING)], None, 2),
        ([held(1, ACTIVE), held(1, STARTING), held(1, ACTIVE)], None, 2),
        # Otherwise, the inventory counts, which has one GPU of it.
        ([held(1, ACTIVE), held(1, ACTIVE)], "i1", 1),
    ],
)
def test_a_gpu_that_the_inventory_has_twice_is_in_no_certain_instance_unless_both_agree(
    items: list[Row], instance_id: str | None, gpus: int
) -> None:
    inventory = [*items, held(3, STARTING)]
    found = with_instances(ACTIVE, STARTING, inventory=inventory)
    # One of the instances is active, so the GPU earns in any case.
    assert found["g1.state"] == "earning"
    assert found["g1.instance_id"] == instance_id
    assert found["i1.gpus"] == gpus


def test_two_instances_on_a_gpu_that_are_not_active_leave_its_state_unknown() -> None:
    disabled = ACTIVE | {"active": False}
    inventory = [held(1, disabled), held(1, STARTING)]
    found = with_instances(disabled, STARTING, inventory=inventory)
    assert found["g1.state"] is found["known.gpus"] is None
    # The other GPUs keep their states.
    assert found["g4.state"] == "idle"


def test_a_gpu_that_only_the_inventory_has_is_of_an_unknown_model() -> None:
    inventory = [*ANSWERS["inventory"], held(9, ACTIVE)]
    found = with_instances(ACTIVE, STARTING, inventory=inventory, miner_gpus={})
    # The lists of servers and nodes are known and lack it, so it is on no server.
    assert (found["g9.server_id"], found["g9.model"], found["g9.state"]) == ("", None, "earning")
    assert found["i1.gpus"] is found["known.gpus"] is None


def test_a_gpu_that_only_the_inventory_has_may_be_on_any_server_while_these_are_unknown() -> None:
    without_servers = {key: body for key, body in ANSWERS.items() if key != "servers"}
    inventory = [*ANSWERS["inventory"], held(9, ACTIVE)]
    found = facts(join_fleet(sent(without_servers | {"inventory": inventory})))
    assert found["g9.server_id"] is None


def test_a_gpu_in_no_list_that_says_verified_has_no_state() -> None:
    bodies = deepcopy(ANSWERS)
    del bodies["nodes"][3]["verified_at"]
    del bodies["servers"]["servers"][0]["gpus"][3]["verified_at"]
    found = facts(join_fleet(sent(bodies)))
    assert found["g4.state"] is found["s1.state"] is found["s1.h200.idle"] is None
    # The other GPUs keep their states.
    assert found["g1.state"] == "earning"


def test_a_gpu_on_two_servers_is_counted_on_neither() -> None:
    bodies = deepcopy(ANSWERS)
    box, *_ = bodies["servers"]["servers"]
    bodies["servers"]["servers"] += [
        box | {"server_id": "s2", "name": "two", "gpus": [gpu(5)]},
        box | {"server_id": "s3", "name": "three", "gpus": [gpu(6)]},
    ]
    bodies["nodes"] += [gpu(6, server_id="s3")]
    # The server s1 lists this GPU, and the list of nodes now says that it is on s2.
    assert bodies["nodes"][3]["uuid"] == "g4"
    bodies["nodes"][3]["server_id"] = "s2"
    found = facts(join_fleet(sent(bodies)))
    assert found["g4.server_id"] is None
    assert found["s1.models"] is found["s2.models"] is found["known.gpus"] is None
    # Nothing contradicts the third server.
    assert (found["s3.models"], found["s3.h200.idle"]) == (["h200"], 1)


def test_of_two_records_of_a_gpu_a_server_or_an_instance_the_first_counts() -> None:
    bodies = deepcopy(ANSWERS)
    box, *_ = bodies["servers"]["servers"]
    other = {"name": "other", "gpus": [gpu(4, gpu_identifier="b200")]}
    bodies["servers"]["servers"].append(box | other)
    bodies["nodes"].append(gpu(4, server_id="s1", gpu_identifier="b200", verified_at=None))
    bodies["instances"].append(ACTIVE | {"compute_multiplier": 9})
    bodies["maintenance"]["servers"].append({"server_id": "s1", "maintenance_status": "pending"})
    bodies["chutes"].append(chute("c1", "other", effective_compute_multiplier=9))
    # This also asserts that no fact has another value.
    assert lost(facts(join_fleet(sent(bodies)))) == set()


def test_a_gpu_whose_only_record_is_in_a_server_is_idle_there() -> None:
    bodies = deepcopy(ANSWERS)
    assert bodies["nodes"][3]["uuid"] == "g4"
    del bodies["nodes"][3]
    found = facts(join_fleet(sent(bodies)))
    assert found["g4.state"] == "idle"
    # The list of servers does not have the number of a GPU.
    assert lost(found) == {"g4.index"}


def test_a_server_without_gpus_says_so_and_one_whose_gpus_are_unknown_does_not() -> None:
    bodies = deepcopy(ANSWERS)
    box, *_ = bodies["servers"]["servers"]
    bodies["servers"]["servers"].append(box | {"server_id": "s2", "name": "two", "gpus": []})
    found = facts(join_fleet(sent(bodies)))
    assert (found["s2.state"], found["s2.models"]) == ("without_gpus", [])
    bodies["servers"]["servers"][1]["gpus"] = None
    assert facts(join_fleet(sent(bodies)))["s2.state"] is None


# Chutes


def test_an_instance_has_the_name_of_its_chute_from_the_inventory_or_the_list_of_chutes() -> None:
    without_list = facts(join_fleet(sent(ANSWERS | {"chutes": []})))
    assert (without_list["i1.chute"], without_list["i2.chute"]) == ("llama", "flux")
    bodies = deepcopy(ANSWERS)
    for item in bodies["inventory"]:
        del item["chute_name"]
    found = facts(join_fleet(sent(bodies)))
    assert (found["i1.chute"], found["i2.chute"]) == ("llama", "flux")
    del bodies["chutes"][0]["name"]
    found = facts(join_fleet(sent(bodies)))
    assert (found["i1.chute"], found["i2.chute"]) == (None, "flux")
    # Then not everything is known of the instances.
    assert found["known.instances"] is None


@pytest.mark.parametrize(
    ("others", "is_last"),
    [
        # ``others`` is the public list of active instances. The instance i1 is of the chute c1.
        ([], True),
        ([{"instance_id": "i1", "chute_id": "c1"}], True),
        ([{"instance_id": "i9", "chute_id": "c1"}], False),
        ([{"instance_id": "i9", "chute_id": "c2"}], True),
        # It may be one of the same chute.
        ([{"instance_id": "i9"}], None),
        ([{"instance_id": "i9"}, {"instance_id": "i8", "chute_id": "c1"}], False),
    ],
)
def test_an_instance_is_the_last_active_one_if_no_other_can_be_one_of_its_chute(
    others: list[Row],
    is_last: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    found = facts(join_fleet(sent(ANSWERS | {"active_instances": others})))
    assert found["i1.is_last_active"] is is_last


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({"tee": True}, True),
        ({"tee": False}, False),
        ({"tee": None}, None),
        ({"node_selector": {"gpu_count": 1, "supported_gpus": ["b200"]}}, False),
        ({"node_selector": None}, None),
        ({"node_selector": {"gpu_count": 1}}, None),
    ],
)
def test_a_server_runs_chutes_that_allow_its_gpus_and_have_tee_like_it(
    changes: Row,
    runs: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    chutes = [chute("c1", "llama", **changes)]
    bodies = ANSWERS | {"chutes": chutes}
    assert facts(join_fleet(sent(bodies)))["s1.runs_chutes"] is runs


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({"tee": True}, True),
        ({"tee": False}, None),
        ({"tee": None}, None),
        ({"node_selector": {"gpu_count": 1, "supported_gpus": ["b200"]}}, None),
        ({"node_selector": None}, None),
        ({"node_selector": {"gpu_count": 1}}, None),
    ],
)
def test_while_chutes_or_gpus_may_be_missing_it_is_never_certain_that_a_server_runs_none(
    changes: Row,
    runs: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    bodies = ANSWERS | {"chutes": [chute("c1", "llama", **changes)]}
    with_doubt = facts(join_fleet(sent(bodies, doubted=["chutes"])))
    assert with_doubt["s1.runs_chutes"] is runs
    # The list of nodes still has the GPUs of the server, which are h200.
    servers = deepcopy(ANSWERS["servers"])
    servers["servers"][0]["gpus"] = None
    without_gpus = facts(join_fleet(sent(bodies | {"servers": servers})))
    assert without_gpus["s1.runs_chutes"] is runs


def test_a_gpu_of_an_unknown_model_may_run_any_chute() -> None:
    bodies = deepcopy(ANSWERS)
    bodies["nodes"][3]["gpu_identifier"] = None
    bodies["servers"]["servers"][0]["gpus"][3]["gpu_identifier"] = None
    found = facts(join_fleet(sent(bodies)))
    assert found["s1.runs_chutes"] is found["s1.models"] is found["known.gpus"] is None


# The miner


@pytest.mark.parametrize(
    ("seats", "registered", "blacklisted"),
    [
        ([{"hotkey": "me", "blacklist_reason": "spoofed"}], True, True),
        ([{"hotkey": "other", "blacklist_reason": "spoofed"}], False, None),
    ],
)
def test_a_miner_is_registered_and_blacklisted_by_its_own_seat(
    seats: list[Row],
    registered: bool,  # noqa: FBT001 - a parameter
    blacklisted: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    fleet = join_fleet(sent(ANSWERS | {"metagraph": seats}))
    assert (fleet.registered, fleet.blacklisted) == (registered, blacklisted)


@pytest.mark.parametrize(
    "seat",
    [
        {"hotkey": "me", "blacklist_reason": "spoofed"},
        {"hotkey": "other", "blacklist_reason": None},
    ],
    ids=["blacklisted", "not registered"],
)
def test_idle_gpus_of_a_miner_that_may_launch_nothing_certainly_earn_nothing(seat: Row) -> None:
    (use,) = join_fleet(sent(ANSWERS | {"metagraph": [seat]})).plans
    assert use.first_day_units == 0


def test_jobs_of_others_are_not_stuck_with_the_miner_whatever_they_lack() -> None:
    jobs = [*ANSWERS["jobs"], {"job_id": "j2", "miner_hotkey": "other"}]
    assert join_fleet(sent(ANSWERS | {"jobs": jobs})).stuck_jobs == 1


def test_a_window_is_open_over_or_of_an_unknown_state() -> None:
    # A service that does not send the field lists only a window that is open.
    for value, is_open in ((True, True), (False, False), (None, None), (MISSING, True)):
        assert with_field("maintenance.window_open", value)["window.is_open"] is is_open


def test_before_the_first_window_none_exists_and_none_is_open() -> None:
    found = with_field("maintenance.active_window", None)
    assert (found["window.exists"], found["window.is_open"]) == (False, False)


def test_the_gpus_of_an_instance_are_found_by_its_id() -> None:
    found = join_fleet(sent(ANSWERS)).gpus_by_instance
    assert found.keys() == {"i1", "i2"}
    assert [gpu.gpu_id for gpu in found["i1"]] == ["g1", "g2"]
    assert [gpu.gpu_id for gpu in found["i2"]] == ["g3"]
