"""The world of the demo."""

from __future__ import annotations

import pytest

from chutes_exporter.simulator import DemoWorld
from chutes_exporter.simulator.times import HOUR, MINUTE
from tests.support import HOTKEY, NOON


@pytest.mark.parametrize("seed", [64, 1, 2])
def test_its_miner_is_in_the_middle_of_the_ranking_and_most_gpus_earn(seed: int) -> None:
    world = DemoWorld(seed=seed, start=NOON)
    miner = world.miners[0]
    assert miner.hotkey == HOTKEY
    shares = sorted(world.shares(NOON).values(), reverse=True)
    rank = shares.index(world.shares(NOON)[HOTKEY]) + 1
    assert len(shares) / 4 < rank < len(shares) * 3 / 4
    used = {gpu.uuid for one in world.instances(NOON, HOTKEY) if one.active(NOON) for gpu in one.gpus}
    assert len(miner.gpus) / 2 < len(used) < len(miner.gpus)


@pytest.mark.parametrize("seed", [64, 1])
def test_its_miner_has_added_a_server_that_is_idle_and_one_whose_first_launch_is_stuck(seed: int) -> None:
    world = DemoWorld(seed=seed, start=NOON)
    added = {server.name: server for server in world.miners[0].servers if server.created_at == NOON - 3 * HOUR}
    assert sorted(added) == ["4090-9", "a100-8"]

    later = world.all_instances(NOON + 24 * HOUR, HOTKEY)
    assert not any(set(one.gpus) & set(added["4090-9"].gpus) for one in later)
    stuck, *others = (one for one in later if set(one.gpus) & set(added["a100-8"].gpus))
    assert not stuck.verified(stuck.ended_at)
    assert stuck.created_at + 3.5 * HOUR - NOON == 40 * MINUTE
    assert 40 * MINUTE <= stuck.ended_at - NOON <= 70 * MINUTE
    # Afterwards, the server works like any other.
    assert any(one.activated(NOON + 24 * HOUR) for one in others)
