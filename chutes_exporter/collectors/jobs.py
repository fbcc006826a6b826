"""Jobs that wait for a miner or are stuck with one, and each waiting job."""

from __future__ import annotations

from functools import partial

from chutes_exporter.api.records import Chute, Job
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, Total
from chutes_exporter.feeds.definitions import CHUTES, JOBS
from chutes_exporter.rules.jobs import JobState, is_stuck, job_state


def _stuck_jobs(jobs: list[Job]) -> list[Job] | None:
    """Return the jobs that are stuck, None if it is unknown whether one job is."""
    if any(is_stuck(job) is None for job in jobs):
        return None
    return [job for job in jobs if is_stuck(job)]


def _jobs_in(state: JobState, jobs: list[Job], chutes: list[Chute]) -> list[Job] | None:
    """Return the jobs in a state, None if the state of one job is unknown."""
    chute_ids = {chute.chute_id for chute in chutes}
    states = [job_state(job, chute_ids) for job in jobs]
    if None in states:
        return None
    return [job for job, its_state in zip(jobs, states, strict=True) if its_state == state]


def _known_to_wait(jobs: list[Job], chutes: list[Chute]) -> list[Job]:
    chute_ids = {chute.chute_id for chute in chutes}
    return [job for job in jobs if job_state(job, chute_ids) == "waiting"]


# The list also has all finished jobs.
STUCK = Table[Job](
    JOBS,
    key="job_id",
    records=_stuck_jobs,
    chutes_jobs_stuck=Total(
        "Unfinished jobs that the watched miner claimed and that have no instance any more. No "
        "other miner can claim "
        "them until `chutes-exporter release-job` releases them.",
        len,
        by="miner_hotkey",
        label="hotkey",
    ),
)
WAITING = Table[Job](
    JOBS,
    CHUTES,
    key="job_id",
    records=partial(_jobs_in, "waiting"),
    chutes_jobs_waiting=Total("Jobs of the platform that wait for a miner.", len),
    chutes_jobs_available=Total(
        "Jobs of the platform that wait for a miner, by method. Absent for methods without any.",
        len,
        by="method",
    ),
    chutes_jobs_oldest_created_timestamp_seconds=Total(
        "When the oldest waiting job was created. Absent if no job waits.",
        partial(min, default=None),
        of="created_at",
    ),
    chutes_jobs_tried=Total(
        "Waiting jobs for which the watched miner requested a launch token.",
        len,
        by=lambda job: list(dict.fromkeys(job.miner_history or ())),
        label="hotkey",
    ),
)
ABANDONED = Table[Job](
    JOBS,
    CHUTES,
    key="job_id",
    records=partial(_jobs_in, "abandoned"),
    chutes_jobs_abandoned=Total(
        "Unfinished jobs of the platform that no miner can claim: 15 miners have tried, or "
        "the chute is gone.",
        len,
    ),
)
EACH = Table[Job](
    JOBS,
    CHUTES,
    key="job_id",
    records=_known_to_wait,
    chutes_job_info=Info(
        "The chute and method of a waiting job.",
        {"chute_id": "chute_id", "method": "method", "status": "status"},
    ),
    chutes_job_created_timestamp_seconds=Row("When the waiting job was created.", "created_at"),
    chutes_job_compute_multiplier=Row(
        "Base compute multiplier of the waiting job. The launch computes it again from the "
        "real GPUs.",
        "compute_multiplier",
    ),
    chutes_job_tries=Row(
        "Miners that requested a launch token for the waiting job. With 15, no miner can "
        "claim it any more.",
        lambda job: len(job.miner_history or ()),
    ),
)

COLLECTOR = Collector(
    "jobs",
    "jobs that wait for a miner, jobs that the miner has tried, and jobs that are stuck with it",
    (STUCK, WAITING, ABANDONED),
)
DETAILS = Collector("job_details", "each job that waits for a miner", (EACH,), default="off")
