"""Jobs: they wait, run on an instance, and stay in the list when finished. Their instances are not simulated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.simulator.times import HOUR, MINUTE, make_random, make_uuid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.simulator.chutes import Chute
    from chutes_exporter.simulator.world import Miner

PERIOD: Final = 20 * MINUTE
"""Seconds between two new jobs."""
_ENDS: Final[dict[str, tuple[int, dict[str, Any] | None, str | None]]] = {
    # The final status, with its weight, the result and the error.
    "complete": (75, {"ok": True}, None),
    "partial_failure": (8, None, "2 of 5 outputs could not be uploaded"),
    "error": (14, None, "Instance was terminated: consecutive failures"),
    "billing_termination": (3, None, "Job terminated due to insufficient balance"),
}


@dataclass(frozen=True)
class Job:
    """A job as the API lists it at a time.

    Attributes:
        chute_id: Id of its chute, which may be deleted.
        tried_by: The hotkeys that requested its launch token.
        miner: The miner that claimed it. None while it waits.
        started_at: When its instance was ready, or None.
        finished_at: When it finished. None while it waits or runs, and for a stuck job.
    """

    job_id: str
    chute: Chute
    chute_id: str
    created_at: float
    tried_by: tuple[str, ...]
    miner: Miner | None = None
    started_at: float | None = None
    finished_at: float | None = None
    status: str = "pending"
    result: dict[str, Any] | None = None
    error_detail: str | None = None

    @property
    def waiting(self) -> bool:
        """Whether it waits for a miner."""
        return self.finished_at is None and self.miner is None

    @property
    def stuck(self) -> bool:
        """Whether its instance is gone, so that the miner that claimed it must release it."""
        return self.finished_at is None and self.miner is not None


@dataclass(frozen=True)
class JobLife:
    """The life of a job.

    Attributes:
        waiting: The job before a miner claims it.
        claimed_at: When a miner claims it.
        over: The job after its instance is gone: finished or stuck.
        over_at: When its instance is gone.
    """

    waiting: Job
    claimed_at: float
    over: Job
    over_at: float

    def listed(self, now: float) -> Job | None:
        """Return the job as the API lists it, or None before it exists and while it runs."""
        if now < self.waiting.created_at or self.claimed_at <= now < self.over_at:
            return None
        return self.waiting if now < self.claimed_at else self.over

    def claimed_by(self, now: float) -> Miner | None:
        """Return the miner that has claimed it and not finished it."""
        finished = self.over.finished_at is not None and self.over_at <= now
        return None if now < self.claimed_at or finished else self.over.miner


def make_job(seed: str, number: int, chutes: Sequence[Chute], miners: Sequence[Miner]) -> JobLife:
    """Return the job with a number. It is created that many periods after 1970.

    Args:
        seed: Seed of the jobs.
        number: Number of the job.
        chutes: Chutes to choose from.
        miners: Miners to choose from.
    """
    draw = make_random(seed, "job", number)
    chute = draw.choice(chutes)
    created = number * PERIOD
    claimed = created + draw.uniform(2 * MINUTE, 3 * HOUR)
    over = claimed + draw.uniform(5 * MINUTE, 6 * HOUR)
    miner = draw.choice(miners)
    tried = [one.hotkey for one in draw.sample(miners, min(draw.randint(0, 3), len(miners)))]
    waiting = Job(
        job_id=make_uuid(seed, "job", number),
        chute=chute,
        chute_id=make_uuid(seed, "gone", number) if draw.random() < 0.02 else chute.chute_id,
        created_at=created,
        tried_by=tuple(tried),
    )
    ended = replace(
        waiting,
        miner=miner,
        tried_by=tuple(dict.fromkeys((*tried, miner.hotkey))),
        started_at=claimed + draw.uniform(60, 200),
    )
    if draw.random() < 0.06:
        return JobLife(waiting, claimed, ended, over)
    status = draw.choices(list(_ENDS), [often for often, _, _ in _ENDS.values()])[0]
    _, result, error = _ENDS[status]
    finished = replace(ended, finished_at=over, status=status, result=result, error_detail=error)
    return JobLife(waiting, claimed, finished, over)
