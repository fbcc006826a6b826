"""Jobs that no instance has claimed: work that waits."""

from __future__ import annotations

from collections import Counter

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.metric import Metric, Samples
from chutes_exporter.sources import JOBS

_SOURCE = "GET /miner/jobs/"

WAITING = Metric("chutes_jobs_waiting", "Jobs of the platform that no instance has claimed.", (), _SOURCE)
AVAILABLE = Metric(
    "chutes_jobs_available",
    "Jobs of the platform that no instance has claimed, by method; absent for methods without any.",
    ("method",),
    f"{_SOURCE}: method",
)
OLDEST = Metric(
    "chutes_jobs_oldest_created_timestamp_seconds",
    "When the job that has waited longest was created; absent where none waits.",
    (),
    f"{_SOURCE}: the oldest created_at",
)
TRIED = Metric(
    "chutes_jobs_tried",
    "Waiting jobs that the watched miner has tried, and did not keep.",
    ("hotkey",),
    f"{_SOURCE}: miner_history",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Count the jobs that wait."""
    jobs = distinct(answers[JOBS], lambda job: job.job_id, out)
    if not answers.complete():
        return
    out.add(WAITING, len(jobs))
    for method, count in Counter(job.method or "" for job in jobs).items():
        out.add(AVAILABLE, count, method)
    out.add(OLDEST, min((job.created_at for job in jobs if job.created_at is not None), default=None))
    for hotkey in sorted(scope.watched):
        out.add(TRIED, sum(1 for job in jobs if hotkey in (job.miner_history or ())), hotkey)


COLLECTOR = Collector(
    name="jobs",
    summary="jobs that wait for an instance, and which of them the miner has tried",
    sources=(JOBS,),
    metrics=(WAITING, AVAILABLE, OLDEST, TRIED),
    collect=collect,
    cost=Cost(fixed=2, miner=1, item=1),
)
