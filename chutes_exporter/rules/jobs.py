"""Rules about jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from msgspec import UNSET

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import Job

MAX_TRIES: Final = 15
"""Miners that may try to claim a job."""
JobState = Literal["waiting", "abandoned", "stuck", "finished"]
"""State of a job without an instance.

A stuck job was claimed by a miner whose instance is gone. No miner can claim an abandoned one: too
many have tried, or its chute is gone."""


def is_stuck(job: Job) -> bool | None:
    """Return whether a miner claimed an unfinished job and has no instance for it any more.

    None is unknown.
    """
    if job.finished_at is UNSET:
        return None
    if job.finished_at is not None:
        return False
    if job.miner_hotkey is UNSET:
        return None
    # The service lists only jobs without an instance.
    return job.miner_hotkey is not None


def job_state(job: Job, chutes: AbstractSet[str | None] | None) -> JobState | None:
    """Return the state of a job, None if it is unknown.

    ``chutes`` are the ids of all chutes, None if they are unknown.
    """
    stuck = is_stuck(job)
    if stuck is None:
        return None
    if stuck:
        return "stuck"
    if job.finished_at is not None:
        return "finished"
    if job.miner_history is not None and len(job.miner_history) >= MAX_TRIES:
        return "abandoned"
    if job.chute_id is None or job.miner_history is None or chutes is None:
        return None
    return "waiting" if job.chute_id in chutes else "abandoned"
