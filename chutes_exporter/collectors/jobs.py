"""Jobs that wait for a miner or are stuck with one, and each waiting job."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chutes_exporter.api.records import Job
from chutes_exporter.collectors.base import Answers, Collector, Miners, Samples, distinct, metrics_of
from chutes_exporter.collectors.table import Table, Total
from chutes_exporter.feeds.table import CHUTES, JOBS
from chutes_exporter.rules.jobs import is_stuck, job_state

if TYPE_CHECKING:
    from chutes_exporter.rules.jobs import JobState

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

ALL = metrics_of(JOBS)
WAITING = ALL.declare("chutes_jobs_waiting", "Jobs of the platform that wait for a miner.")
ABANDONED = ALL.declare(
    "chutes_jobs_abandoned",
    "Unfinished jobs of the platform that no miner can claim: 15 miners have tried, or the chute is gone.",
)
OLDEST = ALL.declare(
    "chutes_jobs_oldest_created_timestamp_seconds",
    "When the oldest waiting job was created. Absent if no job waits.",
)
AVAILABLE = metrics_of(JOBS, labels=("method",), each="method").declare(
    "chutes_jobs_available", "Jobs of the platform that wait for a miner, by method. Absent for methods without any."
)
TRIED = metrics_of(JOBS, labels=("hotkey",), each="miner").declare(
    "chutes_jobs_tried", "Waiting jobs for which the watched miner requested a launch token."
)

EACH = metrics_of(JOBS, labels=("job_id",), each="waiting job", whole=False)
INFO = EACH.declare(
    "chutes_job_info",
    "The chute and method of a waiting job.",
    labels=("job_id", "chute_id", "method", "status"),
)
CREATED = EACH.declare("chutes_job_created_timestamp_seconds", "When the waiting job was created.")
MULTIPLIER = EACH.declare(
    "chutes_job_compute_multiplier",
    "Base compute multiplier of the waiting job. The launch computes it again from the real GPUs.",
)
TRIES = EACH.declare(
    "chutes_job_tries",
    "Miners that requested a launch token for the waiting job. With 15, no miner can claim it any more.",
)


def _with_state(answers: Answers, out: Samples) -> list[tuple[Job, JobState | None]]:
    listed = answers.optional(CHUTES)
    chutes = None if listed is None else {chute.chute_id for chute in listed}
    return [(job, job_state(job, chutes)) for job in distinct(answers[JOBS], lambda job: job.job_id, out)]


def _collect(answers: Answers, miners: Miners, out: Samples) -> None:
    CLAIMED.collect(answers, miners, out)
    states = _with_state(answers, Samples())
    if any(state is None for _, state in states):
        return
    waiting = [job for job, state in states if state == "waiting"]
    out.add(WAITING, len(waiting))
    out.add(ABANDONED, sum(state == "abandoned" for _, state in states))
    if all(job.method is not None for job in waiting):
        for method, count in Counter(job.method for job in waiting).items():
            out.add(AVAILABLE, count, method)
    created = [job.created_at for job in waiting if job.created_at is not None]
    if len(created) == len(waiting):
        out.add(OLDEST, min(created, default=None))
    for hotkey in sorted(miners.watched):
        out.add(TRIED, sum(hotkey in (job.miner_history or ()) for job in waiting), hotkey)


def _collect_details(answers: Answers, _miners: Miners, out: Samples) -> None:
    for job, state in _with_state(answers, out):
        if state == "waiting":
            out.add(INFO, 1, job.job_id, job.chute_id, job.method, job.status)
            out.add(CREATED, job.created_at, job.job_id)
            out.add(MULTIPLIER, job.compute_multiplier, job.job_id)
            out.add(TRIES, len(job.miner_history or ()), job.job_id)


COLLECTOR = Collector(
    "jobs",
    "jobs that wait for a miner, jobs that the miner has tried, and jobs that are stuck with it",
    feeds=(JOBS,),
    metrics=[*ALL, AVAILABLE, TRIED, *CLAIMED.metrics],
    collect=_collect,
    extra=(CHUTES,),
)
DETAILS = Collector(
    "job_details",
    "each job that waits for a miner",
    feeds=(JOBS,),
    metrics=EACH,
    collect=_collect_details,
    extra=(CHUTES,),
    default="off",
)
