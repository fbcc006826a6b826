"""Jobs that wait for a miner or are stuck with one, and each waiting job."""

from __future__ import annotations

from functools import partial

from chutes_exporter.api.records import Job
from chutes_exporter.collectors.table import Info, Row, Table, Total, collector
from chutes_exporter.feeds.table import JOBS
from chutes_exporter.rules.jobs import JobState, job_state


def _is(state: JobState, job: Job) -> bool | None:
    return None if (found := job_state(job)) is None else found == state


_waits, _is_stuck = partial(_is, "waiting"), partial(_is, "stuck")


# The list also has all finished jobs.
JOB = Table[Job](
    JOBS,
    key="job_id",
    chutes_jobs_waiting=Total("Jobs of the platform that wait for a miner.", len, where=_waits),
    chutes_jobs_available=Total(
        "Jobs of the platform that wait for a miner, by method. Absent for methods without any.",
        len,
        where=_waits,
        by="method",
    ),
    chutes_jobs_oldest_created_timestamp_seconds=Total(
        "When the oldest waiting job was created. Absent if no job waits.",
        partial(min, default=None),
        where=_waits,
        of="created_at",
    ),
    chutes_jobs_tried=Total(
        "Waiting jobs for which the watched miner requested a launch token.",
        len,
        where=_waits,
        by="miner_history",
        label="hotkey",
    ),
    chutes_jobs_stuck=Total(
        "Unfinished jobs that the watched miner claimed and that have no instance any more. No other miner can claim "
        "them until `chutes-exporter release-job` releases them.",
        len,
        where=_is_stuck,
        by="miner_hotkey",
        label="hotkey",
    ),
)

WAITING = Table[Job](
    JOBS,
    key="job_id",
    each="waiting job",
    records=lambda jobs: [job for job in jobs if _waits(job)],
    chutes_job_info=Info(
        "The chute and method of a waiting job.", {"chute_id": "chute_id", "method": "method", "status": "status"}
    ),
    chutes_job_created_timestamp_seconds=Row("When the waiting job was created.", "created_at"),
    chutes_job_compute_multiplier=Row(
        "Base compute multiplier of the waiting job. The launch computes it again from the real GPUs.",
        "compute_multiplier",
    ),
    chutes_job_tries=Row(
        "Miners that requested a launch token for the waiting job. With 15, no miner can claim the job any more, but "
        "it still waits.",
        "miner_history",
        convert=len,
    ),
)

COLLECTOR = collector(
    "jobs", "jobs that wait for a miner, jobs that the miner has tried, and jobs that are stuck with it", JOB
)
DETAILS = collector("job_details", "each job that waits for a miner", WAITING, default="off")
