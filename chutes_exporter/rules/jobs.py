"""Rules about jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import Job

MAX_TRIES: Final = 15
"""Miners that may try to claim a job."""


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


def is_stuck_with(job: Job, hotkey: str) -> bool | None:
    """Return whether a job is stuck with a miner, None if it is unknown.

    A job that does not name its miner may be one of this miner.
    """
    return is_stuck(job) if job.miner_hotkey in (hotkey, UNSET) else False


def waits_for_miner(job: Job, chutes: AbstractSet[str]) -> bool | None:
    """Return whether a miner can still claim a job, None if it is unknown.

    No miner can if it is finished or claimed, too many have tried, or its chute is gone.
    ``chutes`` are the ids of all chutes.
    """
    stuck = is_stuck(job)
    if stuck is None:
        return None
    if stuck or job.finished_at is not None:
        return False
    if job.miner_history is not None and len(job.miner_history) >= MAX_TRIES:
        return False
    if job.chute_id is None or job.miner_history is None:
        return None
    return job.chute_id in chutes
