from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.fleet import COLLECTOR
from chutes_exporter.feeds.table import INSTANCES, INVENTORY, NODES, SERVERS
from tests.collectors.support import NOON_TEXT, Samples, collected, of

ACTIVE = {
    "instance_id": "i1",
    "chute_id": "active chute",
    "active": True,
    "activated_at": NOON_TEXT,
}
STARTING = {
    "instance_id": "i2",
    "chute_id": "starting chute",
    "active": False,
    "activated_at": None,
}
DISABLED = {
    "instance_id": "i3",
    "chute_id": "disabled chute",
    "active": False,
    "activated_at": NOON_TEXT,
}


def gpu(uuid: str, **fields: Any) -> dict[str, Any]:
    """Return a verified GPU, unless its fields say something else."""
    return {"uuid": uuid, "gpu_identifier": "h100", "verified_at": NOON_TEXT} | fields


def held(gpu_id: str, instance: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a GPU that an instance holds."""
    return {
        "gpu_id": gpu_id,
        "chute_id": instance["chute_id"],
        "active": instance["active"],
    } | fields


def fleet(**lists: list[dict[str, Any]]) -> dict[Any, Any]:
    """Return the answers of a miner that has these records and nothing else."""
    return {
        NODES: lists.get("nodes", []),
        SERVERS: {"servers": [{"server_id": "s", "gpus": lists.get("server_gpus", [])}]},
        INVENTORY: lists.get("inventory", []),
        INSTANCES: lists.get("instances", []),
    }


def counts(made: Samples, model: str = "h100") -> dict[str, float]:
    """Return how many GPUs of a model are in each state."""
    start = f"chutes_fleet_gpus{{hotkey=me,gpu={model},state="
    return {
        key.removeprefix(start).rstrip("}"): value
        for key, value in made.items()
        if key.startswith(start)
    }


def test_a_verified_gpu_is_idle_even_with_an_error_or_if_only_a_server_lists_it() -> None:
    made = collected(
        COLLECTOR,
        fleet(
            nodes=[gpu("g1", verification_error="timeout")],
            server_gpus=[gpu("g1"), gpu("g2", gpu_identifier="a100")],
        ),
    )
    assert counts(made) == {"earning": 0, "starting": 0, "disabled": 0, "idle": 1, "unverified": 0}
    assert counts(made, "a100")["idle"] == 1


def test_where_both_lists_know_a_gpu_the_nodes_decide_and_the_servers_fill_the_gaps() -> None:
    other = gpu("g1", gpu_identifier="a100", verified_at=None)
    made = collected(COLLECTOR, fleet(nodes=[gpu("g1")], server_gpus=[other]))
    assert (counts(made)["idle"], counts(made, "a100")) == (1, {})
    made = collected(COLLECTOR, fleet(nodes=[{"uuid": "g1"}], server_gpus=[other]))
    assert counts(made, "a100")["unverified"] == 1


HELD = {
    "chutes_gpu_allocation_info{hotkey=me,gpu_id=g1,chute_id=active chute}": 1,
    "chutes_gpu_in_use{hotkey=me,gpu_id=g1}": 1,
    "chutes_gpu_active{hotkey=me,gpu_id=g1}": 1,
}


def test_a_gpu_that_only_the_inventory_lists_is_in_use_and_in_no_count() -> None:
    assert collected(COLLECTOR, fleet(inventory=[held("g1", ACTIVE)], instances=[ACTIVE])) == HELD


@pytest.mark.parametrize(
    ("both", "active", "earning"),
    [
        ([held("g1", ACTIVE), held("g1", STARTING)], 1, 1),
        ([held("g1", DISABLED), held("g1", STARTING, active=None)], None, 0),
    ],
)
def test_of_two_instances_on_a_gpu_an_active_one_decides_and_otherwise_an_unknown_one(
    both: list[dict[str, Any]], active: float | None, earning: float
) -> None:
    for inventory in (both, both[::-1]):
        instances = [ACTIVE, STARTING, DISABLED]
        made = collected(
            COLLECTOR, fleet(nodes=[gpu("g1")], inventory=inventory, instances=instances)
        )
        assert made.get("chutes_gpu_active{hotkey=me,gpu_id=g1}") == active
        assert counts(made)["earning"] == earning
        assert len(of(made, "chutes_gpu_allocation_info")) == 2


def test_where_the_inventory_does_not_say_active_the_instance_decides() -> None:
    answers = fleet(
        nodes=[gpu("g1")], inventory=[held("g1", DISABLED, active=None)], instances=[DISABLED]
    )
    made = collected(COLLECTOR, answers)
    assert of(made, "chutes_gpu_in_use", "chutes_gpu_active") == {
        "chutes_gpu_in_use{hotkey=me,gpu_id=g1}": 1
    }
    assert counts(made)["disabled"] == 1


@pytest.mark.parametrize(
    "unknown",
    [
        {"nodes": [{"uuid": "g2", "gpu_identifier": "h100"}]},
        {"nodes": [gpu("g2")], "inventory": [held("g2", STARTING)], "instances": []},
    ],
)
def test_a_gpu_in_an_unknown_state_hides_the_counts_of_its_model_alone(
    unknown: dict[str, list[dict[str, Any]]],
) -> None:
    nodes = [gpu("g1"), gpu("g3", gpu_identifier="a100"), *unknown["nodes"]]
    made = collected(COLLECTOR, fleet(**unknown | {"nodes": nodes}))
    assert counts(made) == {}
    assert counts(made, "a100")["idle"] == 1


def test_a_gpu_of_an_unknown_model_hides_the_counts_of_all_models() -> None:
    made = collected(COLLECTOR, fleet(nodes=[gpu("g1"), gpu("g2", gpu_identifier=None)]))
    assert of(made, "chutes_fleet_gpus") == {}
    assert made["chutes_gpu_in_use{hotkey=me,gpu_id=g2}"] == 0
