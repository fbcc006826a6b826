"""Jobs: they wait, run on an instance, and stay in the list when finished. Their instances are not simulated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from chutes_exporter.simulator.times import HOUR, MINUTE, make_random, make_uuid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.simulator.chutes import Chute
    from chutes_exporter.simulator.world import Miner

PERIOD: Final = 20 * MINUTE
"""Seconds between two new jobs."""
_STUCK: Final = 0.06


@dataclass(frozen=True)
class Job:
    """A job as the API lists it at a time.

    Attributes:
        chute_id: Id of its chute, which may be deleted.
        tried_by: The hotkeys that requested its launch token.
        miner: The miner that claimed it. None while it waits.
        finished_at: When it finished. None while it waits, and for a stuck job.
    """

    job_id: str
    chute: Chute
    chute_id: str
    created_at: float
    tried_by: tuple[str, ...]
    miner: Miner | None = None
    finished_at: float | None = None
    status: str = "pending"

    @property
    def waiting(self) -> bool:
        """Whether it waits for a miner."""
        return self.finished_at is None and self.miner is None

    @property
    def stuck(self) -> bool:
        """Whether its instance is gone, so that the miner that claimed it must release it."""
        return self.finished_at is None and self.miner is not None


def job_at(now: float, seed: str, number: int, chutes: Sequence[Chute], miners: Sequence[Miner]) -> Job | None:
    """Return the job with a number, which is created that many periods after 1970. None while it runs."""
    draw = make_random(seed, "job", number)
    chute = draw.choice(chutes)
    created = number * PERIOD
    claimed = created + draw.uniform(2 * MINUTE, 3 * HOUR)
    over = claimed + draw.uniform(5 * MINUTE, 6 * HOUR)
    miner = draw.choice(miners)
    tried = tuple(one.hotkey for one in draw.sample(miners, min(draw.randint(0, 3), len(miners))))
    chute_id = make_uuid(seed, "gone", number) if draw.random() < 0.02 else chute.chute_id
    job = Job(make_uuid(seed, "job", number), chute, chute_id, created, tried)
    if now < claimed:
        return job
    if now < over:
        return None
    job = replace(job, miner=miner, tried_by=tuple(dict.fromkeys((*tried, miner.hotkey))))
    if draw.random() < _STUCK:
        return job
    status = draw.choices(("complete", "partial_failure", "error", "billing_termination"), (75, 8, 14, 3))[0]
    return replace(job, finished_at=over, status=status)
