"""How the answers are joined where they are ambiguous or contradict each other.

tests/unknown/ has what becomes unknown on the page when an answer, a record or a field is missing.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.fleet.model import join_fleet
from tests.collectors.support import NOON_TEXT
from tests.fleet.support import sent

if TYPE_CHECKING:
    from chutes_exporter.fleet.gpus import Gpu
    from chutes_exporter.fleet.instances import Instance
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.servers import Server

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
    "tee_measurements": [{"version": "1.6.2", "expected_gpus": ["h200"], "gpu_count": 4}],
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


def facts(fleet: Fleet) -> dict[str, Any]:
    """Return what is said of GPUs, instances and servers, by names such as ``g1.state``."""
    said: dict[str, Any] = {f"known.{topic}": known for topic, known in fleet.known.items()}
    said["stuck_jobs"] = None if fleet.stuck_jobs is None else len(fleet.stuck_jobs)
    for gpu in fleet.gpus:
        said |= _fields_of(gpu, gpu.gpu_id)
    for instance in fleet.instances:
        said |= _fields_of(instance, instance.instance_id)
    for server in fleet.servers:
        said |= _fields_of(server, server.server_id)
        said[f"{server.server_id}.state"] = server.state
        said[f"{server.server_id}.models"] = server.models
        said[f"{server.server_id}.units"] = server.earned_units_per_second
        said[f"{server.server_id}.idle_units_per_second"] = fleet.idle_units_per_second(server)
    return said


def _fields_of(thing: Gpu | Instance | Server, key: str) -> dict[str, Any]:
    return {f"{key}.{field.name}": getattr(thing, field.name) for field in fields(thing)}


def joined(changes: Row, doubted: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what is said of a fleet whose answers have other values at these paths.

    A path is as ``servers.servers.0.name``, with the number of a record in a list. One past its end
    adds a record.
    """
    bodies = deepcopy(ANSWERS)
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        record: Any = bodies
        for part in parents:
            record = record[part]
        if isinstance(record, list) and last == len(record):
            record.append(value)
        else:
            record[last] = value
    return facts(join_fleet(sent(bodies, doubted=doubted)))


OTHER = ACTIVE | {"instance_id": "i3"}
"""It differs from ACTIVE only in its id, so the inventory does not tell the two apart."""
LATER = OTHER | {"last_verified_at": NOON_TEXT}
DISABLED = ACTIVE | {"instance_id": "i4", "chute_id": "c2", "active": False}
"""A disabled instance of the chute of STARTING, with an earlier verification."""
TWO = {"instances": [ACTIVE, OTHER], "inventory": [held(1, ACTIVE), held(2, OTHER)]}
NOT_ACTIVE = {"instances": [STARTING, DISABLED], "inventory": [held(2, DISABLED)]}
ANOTHER = {"instance_id": "i9", "chute_id": "c1"}
B200 = {"gpu_count": 1, "supported_gpus": ["b200"]}
UNKNOWN_PLACE = {"i1.server_id": None, "i1.model": None, "i1.gpus": None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # The time of the verification tells instances of a chute apart.
        (
            {"instances": [ACTIVE, LATER], "inventory": [held(1, ACTIVE), held(3, LATER)]},
            {"g1.instance_id": "i1", "g3.instance_id": "i3", "g1.state": "earning"},
        ),
        (NOT_ACTIVE, {"g2.state": "disabled", "g2.instance_id": "i4"}),
        # Two instances fit, in one state or in two.
        (TWO, {"g1.state": "earning", "g1.instance_id": None}),
        (
            NOT_ACTIVE | {"instances": [STARTING | {"last_verified_at": EARLIER}, DISABLED]},
            {"g2.state": None, "g2.instance_id": None, "g4.state": "idle", "known.gpus": False},
        ),
        # The public list tells their places, and the pay is known.
        (
            TWO | {"miner_gpus": provisioned(ACTIVE, OTHER)},
            {"i1.gpus": 1, "i3.server_id": "s1", "s1.units": 10, "known.pay": True},
        ),
        # Without it, the place is unknown, unless no GPU is left that can be the instance's.
        (
            {"miner_gpus": {}, "instances": [ACTIVE, OTHER, STARTING]}
            | {"inventory": [held(1, ACTIVE)]},
            UNKNOWN_PLACE | {"known.pay": False, "i2.server_id": "", "i2.gpus": 0},
        ),
        # The GPU of an unknown chute may be one of any instance.
        (
            {
                "miner_gpus": {},
                "inventory": [held(1, ACTIVE), held(3, DISABLED) | {"chute_id": None}],
                "instances": [ACTIVE, DISABLED, DISABLED | {"instance_id": "i5"}],
            },
            UNKNOWN_PLACE | {"g3.instance_id": None, "i4.gpus": None},
        ),
        # Two items of the inventory name a GPU.
        (
            {"inventory": [held(1, ACTIVE), held(1, STARTING)]},
            {"g1.state": None, "g1.instance_id": None, "g1.chute_id": None},
        ),
        # A GPU that only the inventory has is on no server, and of an unknown model.
        (
            {"inventory.3": held(9, ACTIVE)},
            {"g9.server_id": "", "g9.model": None, "g9.state": "earning", "known.gpus": False},
        ),
        # A server and the list of nodes place a GPU differently.
        ({"nodes.3.server_id": "s2"}, {"g4.server_id": "s1", "known.gpus": True}),
        # Another active instance may be one of the same chute.
        ({"active_instances.1": {"instance_id": "i9"}}, {"i1.has_replacement": None}),
        ({"active_instances.1": ANOTHER | {"chute_id": "c2"}}, {"i1.has_replacement": False}),
        ({"active_instances": [ANOTHER, {"instance_id": "i8"}]}, {"i1.has_replacement": True}),
        # The name of an unknown chute is not that of another one.
        ({"instances.0.chute_id": None, "inventory.2.chute_id": None}, {"i1.chute": None}),
        # Chutes run on a server if they allow its GPUs, and have TEE like it.
        ({}, {"s1.runs_chutes": True}),
        ({"chutes": [chute("c1", "llama", tee=False)]}, {"s1.runs_chutes": False}),
        ({"chutes": [chute("c1", "llama", tee=None)]}, {"s1.runs_chutes": None}),
        ({"chutes": [chute("c1", "llama", node_selector=B200)]}, {"s1.runs_chutes": False}),
    ],
)
def test_where_answers_are_ambiguous_only_what_is_certain_is_said(
    changes: Row, expected: dict[str, Any]
) -> None:
    found = joined(changes)
    assert {name: found[name] for name in expected} == expected


def test_where_a_list_is_doubted_no_absence_is_certain() -> None:
    doubted = ("inventory", "nodes", "chutes")
    found = joined({"miner_gpus": {}, "inventory.3": held(9, ACTIVE)}, doubted)
    unknown = {
        "s1.runs_chutes": None,
        "i1.gpus": None,
        "i2.gpus": None,
        "g4.instance_id": None,
        "g4.state": None,
        "g9.server_id": None,
    }
    assert {name: found[name] for name in unknown} == unknown


SLOT = "servers.servers.0.maintenance_pending"
STEP = "maintenance.servers.0.maintenance_status"


@pytest.mark.parametrize(
    ("changes", "maintenance", "holds_slot", "state"),
    [
        # The list of servers may not show the slot of a pending server, and the policy that of a
        # server which has just got it.
        ({STEP: "pending"}, "pending", True, "maintenance_pending"),
        ({STEP: "maintenance", SLOT: None}, "maintenance", True, "in_maintenance"),
        ({SLOT: True}, None, True, None),
        ({SLOT: None}, "none", None, None),
        # A status that the exporter does not know.
        ({STEP: "draining"}, None, None, None),
        # The policy has all servers with TEE, unless it does not say which servers it has.
        ({"maintenance.servers": []}, "none", False, "idle"),
        ({"maintenance.servers": None}, None, None, None),
        # A server without TEE is never in maintenance.
        ({"maintenance.servers": None, "servers.servers.0.is_tee": False}, "none", False, "idle"),
    ],
)
def test_a_server_holds_a_slot_if_one_answer_says_so_and_none_only_if_both_do(
    changes: Row,
    maintenance: str | None,
    holds_slot: bool | None,  # noqa: FBT001 - a parameter
    state: str | None,
) -> None:
    found = joined(changes)
    named = [found[f"s1.{name}"] for name in ("maintenance", "holds_slot", "state")]
    assert named == [maintenance, holds_slot, state]
    if holds_slot is not False:
        assert found["s1.idle_units_per_second"] == (0 if holds_slot else None)


def test_in_a_doubted_list_of_jobs_a_missing_one_may_be_stuck() -> None:
    assert (joined({})["stuck_jobs"], joined({}, ("jobs",))["stuck_jobs"]) == (1, None)
