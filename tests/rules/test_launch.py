from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import UNSET, structs

from chutes_exporter.api.records import (
    Bounty,
    Chute,
    ChuteUtilization,
    MetagraphNode,
    NodeSelector,
    UnixTime,
)
from chutes_exporter.rules.launch import (
    Demand,
    LaunchServer,
    demand_for,
    launch_refusal,
)

SEAT = MetagraphNode("me", blacklist_reason=None)
SERVER = LaunchServer(tee=True, in_maintenance=False, free_gpus=1)
PRIVATE = Chute(
    "c",
    tee=True,
    disabled=False,
    node_selector=NodeSelector(gpu_count=1),
    compute_multiplier_factors={"private_tee": 1.3},
)
PUBLIC = structs.replace(PRIVATE, compute_multiplier_factors={"tee": 2.25})
NO_TEE = structs.replace(PUBLIC, tee=False)
UNKNOWN = structs.replace(NO_TEE, compute_multiplier_factors=None)
ROOM = Demand(PRIVATE, active=1, starting=0, target=2)
"""A chute that has room for one more instance, and no bounty."""
BOUNTY = Bounty("c")


@pytest.mark.parametrize(
    ("miner", "chute", "instances", "server", "reason"),
    [
        ({"seat": None}, PRIVATE, {}, {}, "not_registered"),
        ({"seat": MetagraphNode("me")}, PRIVATE, {}, {}, "unknown"),
        # Null is not disabled, but without the field, it is unknown.
        ({}, structs.replace(PRIVATE, disabled=UNSET), {}, {}, "unknown"),
        ({}, structs.replace(PRIVATE, disabled=None), {}, {}, None),
        # For a public chute with TEE, active and starting instances must be fewer than the target
        # of 2, plus 1.
        ({}, PUBLIC, {"starting": None}, {}, "unknown"),
        ({}, PUBLIC, {"starting": None, "active": 2}, {}, "no_room"),
        ({}, PUBLIC, {"starting": 2}, {}, "enough_starting"),
        # The service accepts the launch, and would refuse the activation.
        ({}, PRIVATE, {"active": 2}, {}, "no_room"),
        ({}, PRIVATE, {"target_expired": True}, {}, "target_expired"),
        # Without an active instance, a bounty decides instead of the target.
        ({}, PRIVATE, {"active": 0, "target_expired": True}, {}, "no_bounty"),
        ({}, PRIVATE, {}, {"tee": None}, "unknown"),
        # The past of a miner without TEE decides about private chutes without TEE, and no answer
        # shows it.
        ({"runs_tee": False}, structs.replace(PRIVATE, tee=False), {}, {"tee": False}, "unknown"),
        ({"runs_tee": False}, PRIVATE, {}, {}, None),
    ],
)
def test_a_missing_value_makes_a_launch_unknown_unless_something_else_refuses_it(
    miner: dict[str, Any],
    chute: Chute,
    instances: dict[str, Any],
    server: dict[str, Any],
    reason: str | None,
) -> None:
    refusal = launch_refusal(
        miner.get("seat", SEAT),
        replace(ROOM, chute=chute, **instances),
        [replace(SERVER, **server)],
        runs_tee=miner.get("runs_tee", True),
    )
    assert refusal == reason


@pytest.mark.parametrize(
    ("chute", "instances", "now", "after_starting"),
    [
        # The first active instance of a private chute needs a bounty, whatever the target says.
        (PRIVATE, {"active": 0, "target": 0, "target_expired": True, "bounty": BOUNTY}, 1, 1),
        (PRIVATE, {"active": 0, "target": 3}, 0, 0),
        # The others need a target that has not expired, whether there is a bounty or not.
        (PRIVATE, {"target_expired": True, "bounty": BOUNTY}, 0, 0),
        (PRIVATE, {"target_expired": None, "bounty": BOUNTY}, None, None),
        (PRIVATE, {"target_expired": None, "target": 1}, 0, 0),
        # With TEE, the 1 active and the 2 starting ones must be fewer than 4, plus 1. The room is
        # not checked again at the activation.
        (PUBLIC, {"target_expired": True, "target": 4, "starting": 2}, 2, 2),
        (PUBLIC, {"starting": None}, None, None),
        (PUBLIC, {"active": None}, None, None),
        # Without TEE, those that are starting may take the room.
        (NO_TEE, {"target": 4, "starting": 2}, 3, 1),
        (NO_TEE, {"starting": None}, 1, None),
    ],
)
def test_the_room_of_a_chute_follows_the_rules_of_its_launches(
    chute: Chute, instances: dict[str, Any], now: float | None, after_starting: float | None
) -> None:
    demand = replace(ROOM, chute=chute, **instances)
    assert (demand.room_now, demand.room_after_starting) == (now, after_starting)


@pytest.mark.parametrize(
    ("chute", "instances", "is_refused"),
    [
        # One is active, and the target is 2.
        (PRIVATE, {"active": 2}, True),
        (PRIVATE, {"target_expired": True}, True),
        (PRIVATE, {"target_expired": None}, None),
        # A bounty lets the first instance become active, and not the second one.
        (PRIVATE, {"active": 0, "target": 0, "bounty": BOUNTY}, False),
        (PRIVATE, {"active": 0, "target": 0}, True),
        (PRIVATE, {"active": 1, "target": 1, "bounty": BOUNTY}, True),
        # Only the targets of private chutes expire.
        (NO_TEE, {"active": 2}, True),
        (NO_TEE, {"target_expired": True}, False),
        # It is not known which rules this one follows.
        (UNKNOWN, {"active": 2}, True),
        (UNKNOWN, {"active": 0, "target": 0, "bounty": BOUNTY}, None),
        (UNKNOWN, {"target_expired": True}, None),
        # Nothing is checked again for a public chute with TEE.
        (PUBLIC, {"active": 2}, False),
    ],
)
def test_the_activation_of_a_private_chute_and_of_one_without_tee_is_checked_again(
    chute: Chute,
    instances: dict[str, Any],
    is_refused: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    assert replace(ROOM, chute=chute, **instances).activation_is_refused is is_refused


def test_a_target_expires_after_3700_seconds_by_the_time_that_the_answers_show() -> None:
    def target_expired(log: ChuteUtilization | None, now: float) -> bool | None:
        return demand_for(PRIVATE, log, active_ids=set(), held_gpus=[], now=now).target_expired

    now = 1e9
    without_time = ChuteUtilization("c", active_instance_count=1, total_instance_count=1)
    younger = structs.replace(without_time, timestamp=UnixTime(now - 3650))
    older = structs.replace(without_time, timestamp=UnixTime(now - 3750))
    assert target_expired(younger, now) is False
    assert target_expired(older, now) is True
    assert target_expired(without_time, now) is None
    # Without a record of the autoscaler, the service has no target.
    assert target_expired(None, now) is True


@pytest.mark.parametrize("missing", ["active_instance_count", "scale_allowance", "target_count"])
def test_without_what_gives_the_target_it_is_unknown(missing: str) -> None:
    room = ChuteUtilization(
        "c", active_instance_count=1, total_instance_count=1, scale_allowance=0, target_count=1
    )
    assert demand_for(PUBLIC, room, {"a"}, [], 0).target == 1
    without = structs.replace(room, **{missing: None})
    assert demand_for(PUBLIC, without, {"a"}, [], 0).target is None
