from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chutes_exporter.simulator.world import DAY, HOUR
from tests.support import NOON

if TYPE_CHECKING:
    from chutes_exporter.simulator import World


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
