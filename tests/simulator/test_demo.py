"""The world of the demo, and its troubles."""

from __future__ import annotations

import pytest

from chutes_exporter.simulator import TROUBLES, DemoWorld
from chutes_exporter.simulator.answers import maintenance
from chutes_exporter.simulator.times import HOUR, MINUTE
from tests.support import HOTKEY, NOON


def earning(world: DemoWorld, now: float) -> dict[str, int]:
    """Return how many GPUs of each of the first miner's servers are in an active instance."""
    active = {gpu.uuid for one in world.instances(now, HOTKEY) if one.active(now) for gpu in one.gpus}
    return {server.name: sum(gpu.uuid in active for gpu in server.gpus) for server in world.miners[0].servers}


@pytest.mark.parametrize("seed", [64, 1, 2])
def test_without_troubles_all_gpus_earn_and_the_miner_is_in_the_middle(seed: int) -> None:
    world = DemoWorld(seed=seed, start=NOON, troubles=())
    for now in (NOON - HOUR, NOON, NOON + 2 * HOUR - 1):
        assert earning(world, now) == {server.name: len(server.gpus) for server in world.miners[0].servers}
    shares = sorted(world.shares(NOON).values(), reverse=True)
    assert len(shares) / 5 < shares.index(world.shares(NOON)[HOTKEY]) < len(shares) * 4 / 5
    assert not any(one["needs_upgrade"] for one in maintenance(world, world.miners[0], NOON)["servers"])
    # The world goes on.
    later = NOON + 24 * HOUR
    assert {one.instance_id for one in world.instances(NOON)} != {one.instance_id for one in world.instances(later)}


def test_in_a_crash_loop_instances_fail_again_and_again_and_one_is_never_verified() -> None:
    world = DemoWorld(start=NOON, troubles=["crash-loop"])
    (server,) = (one for one in world.miners[0].servers if one.created_at == NOON - 3 * HOUR)
    lives = [one for one in world.all_instances(NOON + HOUR, HOTKEY) if set(one.gpus) & set(server.gpus)]
    (stuck,) = (one for one in lives if one.verified_at is None)
    assert stuck.created_at + 3.5 * HOUR == NOON + 40 * MINUTE
    failed = [one for one in lives if one.activated_at is not None and one.ended_at <= NOON + HOUR]
    assert len(failed) > 3
    assert all(one.ended_at - (one.activated_at or 0) < HOUR for one in failed)


def test_a_dead_server_has_lost_its_instances_and_gets_no_new_ones() -> None:
    world = DemoWorld(start=NOON, troubles=["dead-server"])
    (dead,) = (name for name, count in earning(world, NOON).items() if not count)
    assert earning(world, NOON - HOUR)[dead]
    assert not earning(world, NOON + 24 * HOUR)[dead]


def test_a_blacklisted_miner_has_no_score() -> None:
    world = DemoWorld(start=NOON, troubles=["blacklisted"])
    assert world.miners[0].blacklist_reason
    assert HOTKEY not in world.shares(NOON)


def test_before_a_window_ends_one_server_is_too_old_and_one_has_not_come_back() -> None:
    world = DemoWorld(start=NOON, troubles=["upgrade"])
    policy = maintenance(world, world.miners[0], NOON)
    assert policy["window_open"]
    assert not maintenance(world, world.miners[0], NOON + 7 * HOUR)["window_open"]
    old = [one for one in policy["servers"] if one["needs_upgrade"]]
    assert sorted((one["version"], one["in_maintenance"]) for one in old) == [("1.3.0", False), ("1.3.1", True)]
    assert earning(world, NOON)[next(one["name"] for one in old if one["in_maintenance"])] == 0


def test_idle_are_a_new_server_and_an_old_one_without_tee() -> None:
    world = DemoWorld(start=NOON, troubles=["idle"])
    idle = {server.name: server for server in world.miners[0].servers if not earning(world, NOON)[server.name]}
    new, old = sorted(idle.values(), key=lambda server: -server.created_at)
    assert (new.created_at, new.is_tee, old.is_tee) == (NOON - 3 * HOUR, True, False)
    assert all(gpu.verified_at for gpu in new.gpus)
    assert not any(gpu.verified_at for gpu in old.gpus)
    assert not any(set(one.gpus) & set(new.gpus) for one in world.all_instances(NOON + 24 * HOUR, HOTKEY))


def test_all_troubles_can_come_together() -> None:
    world = DemoWorld(start=NOON, troubles=list(TROUBLES))
    assert sum(not count for count in earning(world, NOON).values()) == 4
