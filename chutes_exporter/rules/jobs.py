"""Rules about jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import UNSET

if TYPE_CHECKING:
    from chutes_exporter.api.records import Job

JobState = Literal["waiting", "stuck", "finished"]
"""State of a job without an instance. A stuck job was claimed by a miner whose instance is gone."""


def job_state(job: Job) -> JobState | None:
    """Return the state of a job."""
    if job.finished_at is UNSET:
        return None
    if job.finished_at is not None:
        return "finished"
    if job.miner_hotkey is UNSET:
        return None
    return "waiting" if job.miner_hotkey is None else "stuck"
