"""Jobs that wait for a miner or are stuck with one, and each waiting job."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from chutes_exporter.api.records import Chute, Job
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, Total
from chutes_exporter.feeds.table import CHUTES, JOBS
from chutes_exporter.rules.jobs import is_stuck, job_state

if TYPE_CHECKING:
    from chutes_exporter.rules.jobs import JobState


class _JobInState(NamedTuple):
    job_id: str
    job: Job
    state: JobState | None


def _with_states(jobs: list[Job], chutes: list[Chute]) -> list[_JobInState]:
    listed = {chute.chute_id for chute in chutes}
    return [_JobInState(job.job_id, job, job_state(job, listed)) for job in jobs]


def _waiting_jobs(jobs: list[Job], chutes: list[Chute]) -> list[Job]:
    return [one.job for one in _with_states(jobs, chutes) if one.state == "waiting"]


def _is(state: JobState, one: _JobInState) -> bool | None:
    return None if one.state is None else one.state == state


_waits = partial(_is, "waiting")

# The list also has all finished jobs.
CLAIMED = Table[Job](
    JOBS,
    key="job_id",
    chutes_jobs_stuck=Total(
        "Unfinished jobs that the watched miner claimed and that have no instance any more. No other miner can claim "
        "them until `chutes-exporter release-job` releases them.",
        len,
        where=is_stuck,
        by="miner_hotkey",
        label="hotkey",
    ),
)
ALL = Table[_JobInState](
    JOBS,
    CHUTES,
    key="job_id",
    records=_with_states,
    chutes_jobs_waiting=Total("Jobs of the platform that wait for a miner.", len, where=_waits),
    chutes_jobs_abandoned=Total(
        "Unfinished jobs of the platform that no miner can claim: 15 miners have tried, or the chute is gone.",
        len,
        where=partial(_is, "abandoned"),
    ),
    chutes_jobs_available=Total(
        "Jobs of the platform that wait for a miner, by method. Absent for methods without any.",
        len,
        where=_waits,
        by=lambda one: one.job.method,
        label="method",
    ),
    chutes_jobs_oldest_created_timestamp_seconds=Total(
        "When the oldest waiting job was created. Absent if no job waits.",
        partial(min, default=None),
        of=lambda one: one.job.created_at,
        where=_waits,
    ),
    chutes_jobs_tried=Total(
        "Waiting jobs for which the watched miner requested a launch token.",
        len,
        where=_waits,
        by=lambda one: list(dict.fromkeys(one.job.miner_history or ())),
        label="hotkey",
    ),
)
EACH = Table[Job](
    JOBS,
    CHUTES,
    key="job_id",
    records=_waiting_jobs,
    chutes_job_info=Info(
        "The chute and method of a waiting job.", {"chute_id": "chute_id", "method": "method", "status": "status"}
    ),
    chutes_job_created_timestamp_seconds=Row("When the waiting job was created.", "created_at"),
    chutes_job_compute_multiplier=Row(
        "Base compute multiplier of the waiting job. The launch computes it again from the real GPUs.",
        "compute_multiplier",
    ),
    chutes_job_tries=Row(
        "Miners that requested a launch token for the waiting job. With 15, no miner can claim it any more.",
        lambda job: len(job.miner_history or ()),
    ),
)

COLLECTOR = Collector(
    "jobs",
    "jobs that wait for a miner, jobs that the miner has tried, and jobs that are stuck with it",
    (CLAIMED, ALL),
)
DETAILS = Collector("job_details", "each job that waits for a miner", (EACH,), default="off")
