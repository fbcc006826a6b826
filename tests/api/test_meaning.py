"""The rules of the service, case by case, as the notes on its API state them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, structs

from chutes_exporter.api import meaning
from chutes_exporter.api.meaning import ChuteInstances, LaunchMiner, LaunchServer
from chutes_exporter.api.records import (
    Chute,
    ChuteMetrics,
    ChuteUtilization,
    HeldGpu,
    Instance,
    InventoryItem,
    Job,
    MetagraphNode,
    NodeSelector,
    decode_hook,
)
from tests.support import RECORDINGS, recording

NOON = "2026-11-24T12:00:00+00:00"
NOON_SECONDS = 1_795_521_600
LATER = "2026-11-24T12:30:00+00:00"


def read(kind: type[Any], **fields: Any) -> Any:
    """Return a record as an answer with these fields makes it."""
    return msgspec.convert(fields, kind, dec_hook=decode_hook)


def instance(**fields: Any) -> Instance:
    record: Instance = read(Instance, **{"instance_id": "i", "chute_id": "c"} | fields)
    return record


def seats(*fields: dict[str, Any]) -> list[MetagraphNode]:
    return [read(MetagraphNode, hotkey=f"h{number}", **of_seat) for number, of_seat in enumerate(fields)]


def test_a_sum_is_unknown_where_a_part_is_or_no_number_is_large_enough() -> None:
    assert meaning.total([0.1] * 10) == 1
    assert meaning.total([1.0, None]) is None
    assert meaning.total([1e308, 1e308]) is None
    assert meaning.total([1e308, float("inf")]) is None


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"active": True, "activated_at": NOON}, "active"),
        ({"active": False, "activated_at": None}, "starting"),
        ({"active": False, "activated_at": None, "verified": True}, "starting"),
        ({"active": False, "activated_at": NOON}, "disabled"),
        ({"active": None, "activated_at": None}, "starting"),
        ({"activated_at": None}, "starting"),
        # Fields that the answer does not have.
        ({"active": False}, None),
        ({"activated_at": NOON}, None),
        ({"active": None, "activated_at": NOON}, None),
        ({}, None),
    ],
)
def test_the_state_of_an_instance_follows_from_its_times(fields: dict[str, Any], state: str | None) -> None:
    assert meaning.instance_state(instance(**fields)) == state


STARTING = {"active": False, "activated_at": None, "last_verified_at": None}
VERIFIED = {"active": False, "activated_at": None, "last_verified_at": LATER}
DISABLED = {"active": False, "activated_at": NOON, "last_verified_at": NOON}
ACTIVE = {"active": True, "activated_at": NOON, "last_verified_at": LATER}


def held(gpu_id: str, of: dict[str, Any], **more: Any) -> InventoryItem:
    """Return a GPU that an instance holds."""
    fields = {"active": of["active"], "last_verified_at": of["last_verified_at"], "chute_id": "c"}
    item: InventoryItem = read(InventoryItem, gpu_id=gpu_id, **fields | more)
    return item


@pytest.mark.parametrize("order", list(itertools.permutations([STARTING, DISABLED, ACTIVE])))
def test_the_verification_tells_instances_of_a_chute_apart(order: tuple[dict[str, Any], ...]) -> None:
    instances = [instance(**fields) for fields in order]
    inventory = [held("a", ACTIVE), held("s", STARTING), held("d", DISABLED)]
    assert meaning.inventory_states(inventory, instances) == {"a": "active", "s": "starting", "d": "disabled"}


def test_a_holder_that_could_be_any_of_several_is_unknown() -> None:
    instances = [instance(**STARTING), instance(**DISABLED)]
    # Neither answer is newer than the other in its times, or they differ.
    assert meaning.inventory_states([held("g", VERIFIED)], instances) == {"g": None}
    missing = read(InventoryItem, gpu_id="g", active=False, chute_id="c")
    assert meaning.inventory_states([missing], instances) == {"g": None}
    both = [held("g", STARTING), held("h", STARTING)]
    assert meaning.inventory_states(both, instances) == {"g": None, "h": None}
    # Two that were verified at one time are told apart by nothing.
    twins = [instance(**VERIFIED), instance(**DISABLED | {"last_verified_at": LATER})]
    assert meaning.inventory_states([held("g", VERIFIED)], twins) == {"g": None}


def test_two_instances_in_one_state_on_a_gpu_are_not_a_conflict() -> None:
    instances = [instance(**STARTING), instance(**VERIFIED)]
    assert meaning.inventory_states([held("g", DISABLED)], instances) == {"g": "starting"}
    assert meaning.inventory_states([held("g", STARTING, active=None)], instances) == {"g": "starting"}


def test_an_instance_of_an_unknown_chute_may_hold_any_gpu() -> None:
    unknown = instance(**DISABLED, chute_id=None)
    assert meaning.inventory_states([held("g", STARTING)], [instance(**STARTING), unknown]) == {"g": None}
    assert meaning.inventory_states([held("g", DISABLED)], [unknown]) == {"g": "disabled"}
    assert meaning.inventory_states([held("g", DISABLED, chute_id=None)], [unknown]) == {"g": "disabled"}
    assert meaning.inventory_states([held("g", STARTING)], []) == {"g": None}


def test_the_active_holder_of_a_gpu_counts() -> None:
    instances = [instance(**STARTING), instance(**ACTIVE, chute_id="d")]
    for inventory in itertools.permutations([held("g", STARTING), held("g", ACTIVE, chute_id="d")]):
        assert meaning.inventory_states(inventory, instances) == {"g": "active"}


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"finished_at": None, "miner_hotkey": None}, "waiting"),
        ({"finished_at": None, "miner_hotkey": "h"}, "stuck"),
        ({"finished_at": NOON, "miner_hotkey": "h"}, "finished"),
        ({"finished_at": NOON, "miner_hotkey": None}, "finished"),
        ({"finished_at": NOON}, "finished"),
        ({"finished_at": None}, None),
        ({"miner_hotkey": None}, None),
    ],
)
def test_the_state_of_a_job_follows_from_its_fields(fields: dict[str, Any], state: str | None) -> None:
    # A job that waits and one that is stuck are both "pending".
    assert meaning.job_state(read(Job, job_id="j", status="pending", **fields)) == state


def demand(**fields: Any) -> ChuteMetrics:
    return ChuteMetrics("c", **fields)


def test_demand_is_unknown_where_nobody_has_any() -> None:
    zero = demand(total_invocations=0, utilization=0.0, rate_limit_count=0, total_compute_time=0.0, total_usage_usd=0.0)
    assert meaning.demand_is_unknown([zero, zero])
    assert not meaning.demand_is_unknown([zero, demand(total_invocations=1)])
    assert not meaning.demand_is_unknown([zero, demand(utilization=0.01)])
    assert not meaning.demand_is_unknown([])
    assert set(meaning.unknown_metrics([zero])) == {*meaning.DEMAND_FIELDS}


def test_a_value_that_was_not_measured_is_unknown() -> None:
    rest = {"total_compute_time": 2.0, "total_usage_usd": 1.0}
    assert meaning.unknown_metrics([demand(total_invocations=3, utilization=0.0, **rest)]) == ["utilization"]
    assert meaning.unknown_metrics([demand(total_invocations=0, utilization=0.5, **rest)]) == ["total_invocations"]
    # That nobody was refused is possible.
    assert meaning.unknown_metrics([demand(total_invocations=3, utilization=0.5, rate_limit_count=0, **rest)]) == []


@pytest.mark.parametrize(
    ("gpu_id", "uuid"),
    [
        ("2791c6267cdced2a19679d6341469e5f", "GPU-2791c626-7cdc-ed2a-1967-9d6341469e5f"),
        ("2791C6267CDCED2A19679D6341469E5F", "GPU-2791c626-7cdc-ed2a-1967-9d6341469e5f"),
        ("GPU-2791c626-7cdc-ed2a-1967-9d6341469e5f", "GPU-2791c626-7cdc-ed2a-1967-9d6341469e5f"),
        ("2791c6267cdced2a19679d6341469e5", None),
        ("2791c6267cdced2a19679d6341469e5g", None),
        ("2791c6267cdced2a19679d6341469e5f\n", None),
        ("", None),
    ],
)
def test_gpu_ids_get_the_format_of_nvidia(gpu_id: str, uuid: str | None) -> None:
    assert meaning.nvidia_uuid(gpu_id) == uuid


def priced(gpus: int | None, multiplier: float | None, *models: str) -> Chute:
    selector = NodeSelector(gpu_count=gpus, supported_gpus=list(models))
    return Chute("c", node_selector=selector, effective_compute_multiplier=multiplier)


RATES = {"h200": 2.75, "l40s": 0.85}


def test_a_dearer_gpu_earns_in_proportion_to_its_rate() -> None:
    chute = priced(4, 2.0, "h200", "l40s")
    assert meaning.units_per_gpu_second(chute, "l40s", RATES) == 0.5
    assert meaning.units_per_gpu_second(chute, "h200", RATES) == pytest.approx(0.5 * 2.75 / 0.85)


def test_without_the_rates_the_pay_is_known_only_if_the_chute_allows_one_model() -> None:
    assert meaning.units_per_gpu_second(priced(2, 1.0, "h200"), "h200", {}) == 0.5
    assert meaning.units_per_gpu_second(priced(2, 1.0, "h200", "l40s"), "l40s", {"l40s": 0.85}) is None


@pytest.mark.parametrize(
    "chute",
    [
        priced(None, 1.0, "h200"),
        priced(0, 1.0, "h200"),
        priced(-1, 1.0, "h200"),
        priced(1, None, "h200"),
        priced(1, 1.0, "l40s"),
        Chute("c"),
    ],
)
def test_without_gpus_a_multiplier_or_the_model_the_pay_is_unknown(chute: Chute) -> None:
    assert meaning.units_per_gpu_second(chute, "h200", RATES) is None


MINER = LaunchMiner(registered=True, blacklisted=False, old_tee_server=False, runs_tee=True)
SERVER = LaunchServer(tee=True, in_maintenance=False, free_gpus=1)
PRIVATE = Chute(
    "c",
    tee=True,
    disabled=False,
    chutes_version="0.6.1",
    node_selector=NodeSelector(gpu_count=1),
    compute_multiplier_factors={"private_tee": 1.3},
)
PUBLIC = structs.replace(PRIVATE, compute_multiplier_factors={"tee": 2.25})
ROOM = ChuteInstances(active=1, starting=0, target=2)


@pytest.mark.parametrize(
    ("miner", "chute", "instances", "server", "reason"),
    [
        ({"registered": None}, PRIVATE, {}, {}, "unknown"),
        ({"blacklisted": None}, PRIVATE, {}, {}, "unknown"),
        ({"registered": None}, PRIVATE, {}, {"in_maintenance": True}, "in_maintenance"),
        ({"old_tee_server": None}, PRIVATE, {}, {}, "unknown"),
        ({"old_tee_server": None}, structs.replace(PRIVATE, chutes_version="0.5.9"), {}, {}, None),
        ({}, structs.replace(PRIVATE, chutes_version=UNSET), {}, {}, "unknown"),
        ({}, structs.replace(PRIVATE, disabled=UNSET), {}, {}, "unknown"),
        ({}, structs.replace(PRIVATE, disabled=None), {}, {}, None),
        ({}, structs.replace(PRIVATE, node_selector=None), {}, {}, "unknown"),
        ({}, structs.replace(PRIVATE, compute_multiplier_factors=None), {}, {}, "unknown"),
        ({}, structs.replace(PRIVATE, tee=None), {}, {}, "unknown"),
        ({}, structs.replace(PUBLIC, tee=None), {}, {}, "unknown"),
        ({}, PRIVATE, {"target": None}, {}, "unknown"),
        ({}, PRIVATE, {"active": None}, {}, "unknown"),
        ({}, PRIVATE, {"starting": None}, {}, None),
        ({}, PUBLIC, {"starting": None}, {}, "unknown"),
        ({}, PUBLIC, {"starting": 2}, {}, "enough_starting"),
        ({}, PUBLIC, {"starting": 1}, {}, None),
        ({}, PRIVATE, {"target": 0}, {}, None),
        ({}, PRIVATE, {"active": 2}, {}, "no_room"),
        ({}, PRIVATE, {}, {"tee": None}, "unknown"),
        ({}, PRIVATE, {}, {"tee": False}, "tee_mismatch"),
        ({}, structs.replace(PRIVATE, tee=False), {}, {}, "tee_mismatch"),
        ({}, structs.replace(PRIVATE, tee=False), {}, {"tee": False}, None),
        # The past of a miner without TEE decides about private chutes without TEE, and no answer shows it.
        ({"runs_tee": False}, structs.replace(PRIVATE, tee=False), {}, {"tee": False}, "unknown"),
        ({"runs_tee": False}, PRIVATE, {}, {}, None),
    ],
)
def test_a_missing_value_makes_a_launch_unknown_unless_something_else_refuses_it(
    miner: dict[str, Any], chute: Chute, instances: dict[str, Any], server: dict[str, Any], reason: str | None
) -> None:
    refusal = meaning.launch_refusal(
        replace(MINER, **miner), chute, replace(ROOM, **instances), replace(SERVER, **server), bounty=False
    )
    assert refusal == reason


def held_gpu(instance_id: str, activated_at: Any) -> HeldGpu:
    return HeldGpu("h", "h200", "s", "c", instance_id, activated_at)


def test_starting_instances_are_those_that_hold_gpus_and_were_never_active() -> None:
    gpus = [held_gpu("a", 1.0), held_gpu("s", None), held_gpu("s", None), held_gpu("d", 2.0)]
    room = ChuteUtilization("c", active_instance_count=1, total_instance_count=3, scale_allowance=4, target_count=9)
    assert meaning.chute_instances(PUBLIC, room, {"a"}, gpus) == ChuteInstances(1, 1, 5)
    # Fewer instances than in the older list of GPUs are left.
    fewer = structs.replace(room, total_instance_count=1)
    assert meaning.chute_instances(PUBLIC, fewer, {"a"}, gpus).starting == 0
    assert meaning.chute_instances(PUBLIC, fewer, {"a"}, None).starting == 0
    assert meaning.chute_instances(PUBLIC, room, {"a"}, None).starting is None
    assert meaning.chute_instances(PUBLIC, None, {"a"}, [held_gpu("x", UNSET)]).starting is None


def test_a_public_chute_without_a_target_has_its_present_instances_as_the_target() -> None:
    gpus = [held_gpu("a", 1.0), held_gpu("s", None), held_gpu("d", 2.0)]
    assert meaning.chute_instances(PUBLIC, None, {"a"}, gpus) == ChuteInstances(1, 1, 3)
    assert meaning.chute_instances(PUBLIC, None, {"a"}, None).target is None
    assert meaning.chute_instances(PRIVATE, None, {"a"}, gpus).target == 0


@pytest.mark.parametrize("missing", ["active_instance_count", "scale_allowance", "target_count"])
def test_without_what_gives_the_target_it_is_unknown(missing: str) -> None:
    room = ChuteUtilization("c", active_instance_count=1, total_instance_count=1, scale_allowance=0, target_count=1)
    assert meaning.chute_instances(PUBLIC, room, {"a"}, []).target == 1
    assert meaning.chute_instances(PUBLIC, structs.replace(room, **{missing: None}), {"a"}, []).target is None


def test_the_known_gpu_models_are_those_of_the_service() -> None:
    assert {*meaning.GPU_MODELS} == json.loads(recording(RECORDINGS / "extra", "nodes_supported")).keys()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("miner initialized", "miner"),
        ("Rolling update timeout", "update"),
        ("instance 1 of chute 2 has an old version of the chute", "update"),
        ("Private chute chute.chute_id='1' chute.name='x' already has >= target_count=1 active instances", "no_room"),
        ("Private chute has an old versio", "no_room"),
        ("a text of tomorrow", "other"),
        ("", "none"),
        (None, "none"),
    ],
)
def test_a_text_of_the_service_has_a_reason(text: str | None, reason: str) -> None:
    assert meaning.end_reason(text) == reason
