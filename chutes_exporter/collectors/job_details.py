"""Each waiting job. Off by default because the ids change all the time."""

from __future__ import annotations

from chutes_exporter.api.meaning import job_state
from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import JOBS

METRICS = Metrics()
_SOURCE = "GET /miner/jobs/"
_JOB = ("job_id",)

INFO = METRICS.info(
    "chutes_job_info",
    "The chute and method of a waiting job.",
    ("job_id", "chute_id", "method", "status"),
    f"{_SOURCE}: chute_id, method, status",
    changes="live",
)
CREATED = METRICS.gauge(
    "chutes_job_created_timestamp_seconds",
    "When the waiting job was created.",
    _JOB,
    f"{_SOURCE}: created_at",
    changes="once",
)
MULTIPLIER = METRICS.gauge(
    "chutes_job_compute_multiplier",
    "Base compute multiplier of the waiting job. The launch computes it again from the real GPUs.",
    _JOB,
    f"{_SOURCE}: compute_multiplier",
    changes="once",
)
TRIES = METRICS.gauge(
    "chutes_job_tries",
    "Miners that requested a launch token for the waiting job. With 15, no miner can claim the job any more, but it "
    "still waits.",
    _JOB,
    f"{_SOURCE}: miner_history",
)


def collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    """Add the waiting jobs."""
    for job in distinct(answers[JOBS], lambda job: job.job_id, out):
        if job_state(job) != "waiting":
            continue
        out.add(INFO, 1, job.job_id, job.chute_id, job.method, job.status)
        out.add(CREATED, job.created_at, job.job_id)
        out.add(MULTIPLIER, job.compute_multiplier, job.job_id)
        if job.miner_history is not None:
            out.add(TRIES, len(job.miner_history), job.job_id)


COLLECTOR = Collector(
    name="job_details",
    summary="each job that waits for a miner",
    feeds=(JOBS,),
    metrics=METRICS,
    collect=collect,
    cost=Cost(item=4),
    default="off",
)
