from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chutes_exporter.simulator.jobs import make_job
from chutes_exporter.simulator.world import DAY, HOUR
from tests.support import NOON

if TYPE_CHECKING:
    from chutes_exporter.simulator import World


def test_a_job_is_listed_while_it_waits_and_after_it_ended_but_not_while_it_runs(world: World) -> None:
    life = make_job("seed", 5_000_000, world.chutes, world.miners)
    assert life.listed(life.waiting.created_at - 1) is None
    assert life.listed(life.waiting.created_at) is life.waiting
    assert life.listed(life.claimed_at - 1) is life.waiting
    assert life.listed(life.claimed_at) is None
    assert life.listed(life.over_at - 1) is None
    assert life.listed(life.over_at) is life.over


def test_a_job_belongs_to_its_miner_from_the_claim_until_it_finishes(world: World) -> None:
    lives = [make_job("seed", number, world.chutes, world.miners) for number in range(5_000_000, 5_000_100)]
    for life in lives:
        assert life.claimed_by(life.claimed_at - 1) is None
        assert life.claimed_by(life.claimed_at) is life.over.miner
        # A stuck job stays claimed.
        assert life.claimed_by(life.over_at) is (life.over.miner if life.over.stuck else None)
    assert {life.over.stuck for life in lives} == {True, False}


def test_jobs_wait_finish_and_get_stuck(world: World) -> None:
    jobs = world.jobs(NOON)
    states = Counter((job.waiting, job.stuck) for job in jobs)
    assert states[True, False] > 1
    assert states[False, True] > 5
    assert states[False, False] > 100
    for job in jobs:
        assert len(set(job.tried_by)) == len(job.tried_by) <= 15
        if job.waiting:
            assert NOON - job.created_at <= 3 * HOUR
            assert job.status == "pending"
        else:
            assert job.miner is not None
            assert job.miner.servers
            assert job.miner.hotkey in job.tried_by
            assert (job.status == "pending") == job.stuck
    assert {job.status for job in jobs if job.finished_at} >= {"complete", "error"}
    assert any(job.chute_id not in {chute.chute_id for chute in world.chutes} for job in world.jobs(NOON + 5 * DAY))
    # What has once ended stays for ever; what waits is taken, runs and is not listed meanwhile.
    later = {job.job_id: job for job in world.jobs(NOON + HOUR)}
    assert all(later[job.job_id] == job for job in jobs if not job.waiting)
    assert any(job.job_id not in later for job in jobs if job.waiting)
