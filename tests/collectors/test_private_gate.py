from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.private_gate import COLLECTOR
from chutes_exporter.feeds.table import INSTANCES, INVENTORY
from tests.collectors.support import ELEVEN_TEXT, HOUR, NOON, NOON_TEXT, UNREADABLE, Collected, collected

COUNT = "chutes_miner_private_gate_instances{hotkey=me}"
GPUS = "chutes_miner_private_gate_gpus{hotkey=me}"
OLDEST = "chutes_miner_private_gate_oldest_activation_timestamp_seconds{hotkey=me}"


def instance(number: int, **fields: Any) -> dict[str, Any]:
    """Return an active public instance on chute c, unless its fields say something else."""
    return {
        "instance_id": f"i{number}",
        "chute_id": "c",
        "active": True,
        "activated_at": NOON_TEXT,
        "billed_to": None,
    } | fields


def held(gpu_id: str, **fields: Any) -> dict[str, Any]:
    """Return a GPU that an active instance of chute c holds, unless its fields say something else."""
    return {"gpu_id": gpu_id, "chute_id": "c", "active": True} | fields


def run(instances: list[dict[str, Any]], inventory: list[dict[str, Any]], **options: Any) -> Collected:
    return collected(COLLECTOR, {INSTANCES: instances, INVENTORY: inventory}, **options)


def test_active_public_instances_and_their_gpus_count() -> None:
    instances = [
        instance(1),
        instance(2, activated_at=ELEVEN_TEXT),
        instance(3, chute_id="private", billed_to="user"),
        instance(4, chute_id="starting", active=False, activated_at=None),
    ]
    inventory = [
        held("g1"),
        held("g2"),
        held("g3"),
        held("g4", chute_id="private"),
        held("g5", chute_id="starting", active=False),
    ]
    assert run(instances, inventory).samples == {COUNT: 2, GPUS: 3, OLDEST: NOON - HOUR}


def test_a_disabled_instance_was_activated_and_is_not_active() -> None:
    disabled = instance(2, active=False, activated_at=ELEVEN_TEXT)
    made = run([instance(1), disabled], [held("g1"), held("g2", active=False)])
    assert made.samples == {COUNT: 1, GPUS: 1, OLDEST: NOON - HOUR}


def test_a_miner_without_instances_has_zeros_and_no_activation() -> None:
    assert run([], []).samples == {COUNT: 0, GPUS: 0}


def test_a_duplicate_counts_once() -> None:
    made = run([instance(1), instance(1)], [held("g1"), held("g1")])
    assert made.samples == {COUNT: 1, GPUS: 1, OLDEST: NOON}
    assert made.duplicates == 2


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in instance(2).items() if name != field}


@pytest.mark.parametrize(
    ("other", "known"),
    [
        (without("billed_to"), set()),
        (without("activated_at"), {COUNT, GPUS}),
        (instance(2, activated_at=None), {COUNT, GPUS}),
        (instance(2, active=None), {OLDEST}),
        (instance(2, active=None, activated_at=None), {COUNT, GPUS, OLDEST}),
        (instance(2, chute_id=None), {COUNT, OLDEST}),
    ],
    ids=["who pays", "when active", "active without a time", "whether active", "not active yet", "which chute"],
)
def test_an_unknown_field_of_an_instance_hides_the_metrics_that_need_it(other: dict[str, Any], known: set[str]) -> None:
    assert run([instance(1), other], [held("g1")]).samples.keys() == known


@pytest.mark.parametrize(
    ("item", "gpus"),
    [
        (held("g2", active=None), None),
        (held("g2", chute_id=None), None),
        (held("g2", chute_id=None, active=False), 1),
        (held("g2", chute_id="d", active=None), 1),
    ],
)
def test_an_unknown_field_of_a_gpu_hides_the_number_of_gpus(item: dict[str, Any], gpus: float | None) -> None:
    made = run([instance(1)], [held("g1"), item])
    assert made.samples.get(GPUS) == gpus
    assert made.samples[COUNT] == 1


def test_public_and_private_gpus_of_one_chute_are_counted_together() -> None:
    made = run([instance(1), instance(2, billed_to="user")], [held("g1"), held("g2")])
    assert made.samples == {COUNT: 1, OLDEST: NOON}


def test_incomplete_instances_say_nothing_and_an_incomplete_inventory_hides_the_gpus() -> None:
    assert run([instance(1), UNREADABLE], [held("g1")]).samples == {}
    assert run([instance(1)], [held("g1")], doubted=[INSTANCES]).samples == {}
    assert run([instance(1)], [held("g1"), UNREADABLE]).samples == {COUNT: 1, OLDEST: NOON}
    assert run([instance(1)], [held("g1")], doubted=[INVENTORY]).samples == {COUNT: 1, OLDEST: NOON}
