from __future__ import annotations

import pytest

from chutes_exporter.simulator.world import DAY, HOUR, WEEK, Size, World
from tests.support import HOTKEY, NOON


@pytest.fixture(scope="module")
def world() -> World:
    """A world of the full size."""
    return World(start=NOON)


def test_it_has_the_size_that_the_subnet_has(world: World) -> None:
    assert len(world.miners) == len(world.by_hotkey) == 256
    assert len(world.chutes) == 300
    assert world.miners[0].hotkey == HOTKEY
    assert sum(1 for miner in world.miners if miner.servers) == 100
    assert len(world.instances(NOON)) > 500
    assert len(world.jobs(NOON)) > 0


def test_the_same_seed_and_time_give_the_same_world_in_whichever_order_it_is_asked() -> None:
    size = Size(miners=6, active_miners=3, chutes=40)
    one, other = World(start=NOON, size=size), World(start=NOON, size=size)
    later = [instance.instance_id for instance in one.instances(NOON + DAY)]
    sooner = [instance.instance_id for instance in one.instances(NOON)]
    assert [instance.instance_id for instance in other.instances(NOON)] == sooner
    assert [instance.instance_id for instance in other.instances(NOON + DAY)] == later
    assert sooner != later
    different = World(seed=1, start=NOON, size=size)
    assert [instance.instance_id for instance in different.instances(NOON)] != sooner


def test_instances_start_become_active_fail_and_end(world: World) -> None:
    instances = world.all_instances(NOON)
    assert any(instance.error for instance in instances)
    assert any(instance.ended_at < NOON for instance in instances)
    for instance in instances:
        if instance.error is not None:
            assert instance.activated_at is None
        else:
            assert instance.verified_at is not None
            assert instance.activated_at is not None
            assert instance.created_at < instance.verified_at < instance.activated_at < instance.ended_at
    starting = [one for one in world.instances(NOON) if not one.active(NOON)]
    assert starting
    assert max(world.failures(one, NOON) for one in world.instances(NOON)) > 0


def test_no_gpu_ever_runs_two_instances_at_once(world: World) -> None:
    for time in (NOON - 3 * DAY, NOON, NOON + HOUR):
        gpus = [gpu.uuid for instance in world.instances(time) for gpu in instance.gpus]
        assert len(gpus) == len(set(gpus))


def test_gpus_are_verified_fail_and_idle(world: World) -> None:
    gpus = [gpu for miner in world.miners for gpu in miner.gpus]
    errors = [gpu.error(NOON) for gpu in gpus]
    assert 0.01 < sum(1 for error in errors if error) / len(gpus) < 0.1
    assert all((gpu.verified_at(NOON) is None) == (gpu.error(NOON) is not None) for gpu in gpus)
    used = {gpu.uuid for instance in world.instances(NOON) for gpu in instance.gpus}
    assert 0 < len(used) < len(gpus)
    assert any(gpu.error(NOON) != gpu.error(NOON + DAY) for gpu in gpus)


def test_the_first_miner_has_what_real_miners_were_seen_with(world: World) -> None:
    servers = world.miners[0].servers
    assert len({server.server_id for server in servers}) == len(servers)
    assert len({server.name for server in servers}) < len(servers)
    assert len({server.ip for server in servers}) < len(servers)
    assert any(not server.gpus for server in servers)
    assert any('"' in server.name and "\\" in server.name and "\n" in server.name for server in servers)
    assert world.miners[-1].blacklist_reason


def test_utilisation_follows_the_day(world: World) -> None:
    for chute in world.chutes[:20]:
        hours = [chute.utilization(NOON + hour * HOUR) for hour in range(24)]
        assert max(hours) > 2 * min(hours)
        assert chute.utilization(NOON + DAY) == pytest.approx(hours[0], abs=1e-5)
    assert max(chute.utilization(NOON) for chute in world.chutes) > 1


def test_windows_are_sums_over_lives_and_shares_sum_to_one(world: World) -> None:
    hour, day, week = (world.work(NOON, seconds) for seconds in (HOUR, DAY, WEEK))
    assert hour.keys() <= day.keys() <= week.keys()
    assert all(0 < entry.seconds <= entry.instances * HOUR for entry in hour.values())
    assert sum(world.shares(NOON).values()) == pytest.approx(1)
    assert world.shares(NOON) != world.shares(NOON + HOUR)
    per_chute = world.work(NOON, DAY, hotkey=HOTKEY, per_chute=True)
    whole = day[HOTKEY, ""]
    assert sum(entry.units for entry in per_chute.values()) == pytest.approx(whole.units)
    assert sum(entry.instances for entry in per_chute.values()) == whole.instances


def test_a_world_where_nobody_works_has_no_shares() -> None:
    assert World(start=NOON, size=Size(miners=2, active_miners=0)).shares(NOON) == {}


def test_bounties_come_and_go_and_jobs_are_claimed(world: World) -> None:
    offers = [[chute.bounty(NOON + hour * HOUR) for hour in range(48)] for chute in world.chutes[:40]]
    assert any(None in offer and any(offer) for offer in offers)
    now = {job.job_id for job in world.jobs(NOON)}
    assert now != {job.job_id for job in world.jobs(NOON + HOUR)}
    servers = [server for miner in world.miners for server in miner.servers]
    assert any(server.maintenance_pending(NOON) for server in servers)
