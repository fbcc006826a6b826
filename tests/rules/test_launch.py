from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import UNSET, structs

from chutes_exporter.api.records import Chute, ChuteUtilization, HeldGpu, NodeSelector
from chutes_exporter.rules.launch import ChuteInstances, LaunchMiner, LaunchServer, chute_instances, launch_refusal

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
    refusal = launch_refusal(
        replace(MINER, **miner), chute, replace(ROOM, **instances), replace(SERVER, **server), bounty=False
    )
    assert refusal == reason


def held_gpu(instance_id: str, activated_at: Any) -> HeldGpu:
    return HeldGpu("h", "h200", "s", "c", instance_id, activated_at)


def test_starting_instances_are_those_that_hold_gpus_and_were_never_active() -> None:
    gpus = [held_gpu("a", 1.0), held_gpu("s", None), held_gpu("s", None), held_gpu("d", 2.0)]
    room = ChuteUtilization("c", active_instance_count=1, total_instance_count=3, scale_allowance=4, target_count=9)
    assert chute_instances(PUBLIC, room, {"a"}, gpus) == ChuteInstances(1, 1, 5)
    # Fewer instances than in the older list of GPUs are left.
    fewer = structs.replace(room, total_instance_count=1)
    assert chute_instances(PUBLIC, fewer, {"a"}, gpus).starting == 0
    assert chute_instances(PUBLIC, fewer, {"a"}, None).starting == 0
    assert chute_instances(PUBLIC, room, {"a"}, None).starting is None
    assert chute_instances(PUBLIC, None, {"a"}, [held_gpu("x", UNSET)]).starting is None


def test_a_public_chute_without_a_target_has_its_present_instances_as_the_target() -> None:
    gpus = [held_gpu("a", 1.0), held_gpu("s", None), held_gpu("d", 2.0)]
    assert chute_instances(PUBLIC, None, {"a"}, gpus) == ChuteInstances(1, 1, 3)
    assert chute_instances(PUBLIC, None, {"a"}, None).target is None
    assert chute_instances(PRIVATE, None, {"a"}, gpus).target == 0


@pytest.mark.parametrize("missing", ["active_instance_count", "scale_allowance", "target_count"])
def test_without_what_gives_the_target_it_is_unknown(missing: str) -> None:
    room = ChuteUtilization("c", active_instance_count=1, total_instance_count=1, scale_allowance=0, target_count=1)
    assert chute_instances(PUBLIC, room, {"a"}, []).target == 1
    assert chute_instances(PUBLIC, structs.replace(room, **{missing: None}), {"a"}, []).target is None
