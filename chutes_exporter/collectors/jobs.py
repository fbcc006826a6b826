"""Jobs that wait for a miner or are stuck with one."""

from __future__ import annotations

from collections import Counter

from chutes_exporter.api.meaning import job_state
from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import JOBS

METRICS = Metrics()
_SOURCE = "GET /miner/jobs/"

WAITING = METRICS.gauge(
    "chutes_jobs_waiting",
    "Jobs of the platform that wait for a miner.",
    (),
    f"{_SOURCE}: finished_at and miner_hotkey that are null",
)
AVAILABLE = METRICS.gauge(
    "chutes_jobs_available",
    "Jobs of the platform that wait for a miner, by method. Absent for methods without any.",
    ("method",),
    f"{_SOURCE}: method",
)
OLDEST = METRICS.gauge(
    "chutes_jobs_oldest_created_timestamp_seconds",
    "When the oldest waiting job was created. Absent if no job waits.",
    (),
    f"{_SOURCE}: the oldest created_at",
)
TRIED = METRICS.gauge(
    "chutes_jobs_tried",
    "Waiting jobs for which the watched miner requested a launch token.",
    ("hotkey",),
    f"{_SOURCE}: miner_history",
)

STUCK = METRICS.gauge(
    "chutes_jobs_stuck",
    "Unfinished jobs that the watched miner claimed and that have no instance any more. No other miner can claim them "
    "until `chutes-exporter release-job` releases them.",
    ("hotkey",),
    f"{_SOURCE}: miner_hotkey, if finished_at is null",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Count waiting and stuck jobs. The list also has all finished jobs."""
    jobs = distinct(answers[JOBS], lambda job: job.job_id, out)
    if not answers.complete() or any(job_state(job) is None for job in jobs):
        return
    waiting = [job for job in jobs if job_state(job) == "waiting"]
    out.add(WAITING, len(waiting))
    if all(job.method is not None for job in waiting):
        for method, count in Counter(job.method for job in waiting).items():
            out.add(AVAILABLE, count, method)
    created = [job.created_at for job in waiting if job.created_at is not None]
    if len(created) == len(waiting):
        out.add(OLDEST, min(created, default=None))
    for hotkey in sorted(scope.watched):
        if all(job.miner_history is not None for job in waiting):
            out.add(TRIED, sum(1 for job in waiting if hotkey in (job.miner_history or ())), hotkey)
        out.add(STUCK, sum(1 for job in jobs if job_state(job) == "stuck" and job.miner_hotkey == hotkey), hotkey)


COLLECTOR = Collector(
    name="jobs",
    summary="jobs that wait for a miner, jobs that the miner has tried, and jobs that are stuck with it",
    feeds=(JOBS,),
    metrics=METRICS,
    collect=collect,
    cost=Cost(fixed=2, miner=2, item=1),
)
