"""Instances, from the launch token to the deletion, and their compute units."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from chutes_exporter.duration import HOUR, MINUTE
from chutes_exporter.simulator.chutes import DEAREST_RATE, MODELS
from chutes_exporter.simulator.times import last

if TYPE_CHECKING:
    from chutes_exporter.simulator.chutes import Chute

SECURED_AFTER: Final = HOUR
"""A public instance that is deleted sooner after its activation loses its score."""
_SETTLED_AFTER: Final = 5 * HOUR
"""This long after its activation, an instance loses the factors of urgency and bounty."""


class End(enum.Enum):
    """Why an instance was deleted, in the service's words."""

    MINER = "miner initialized"
    FAILURES = "max failures reached: 6 disables within sliding 1-hour window"
    PURGED = "autoscaler - instance failed to verify within a reasonable amount of time"
    SCALED_DOWN = "autoscaler - downscale adjustment"
    UPDATED = "Rolling update replacement"
    IDLE = "user-defined/private chute instance has not been used since shutdown_after_seconds"
    MAINTENANCE = "maintenance - server entering TEE upgrade window"


VALID_ENDS: Final = frozenset({End.SCALED_DOWN, End.UPDATED, End.IDLE, End.MAINTENANCE})
"""Ends after which an instance of any age keeps its score."""


@dataclass(eq=False)
class Gpu:
    """A GPU of a server. It can be used if it passed the verification, even if a later one failed with an error."""

    uuid: str
    model: str
    device_index: int
    server_id: str
    created_at: float
    verified_at: float | None
    error: str | None = None


@dataclass(eq=False)
class Instance:
    """A chute on some GPUs, from its creation to its end. What never happens has an infinite time.

    Attributes:
        created_at: When its pod claimed the launch token.
        disabled_at: When its miner disables it. It continues to earn.
        bounty_boost: The factor of the bounty at its activation. 1 without a bounty.
    """

    instance_id: str
    hotkey: str
    chute: Chute
    gpus: tuple[Gpu, ...]
    created_at: float
    verified_at: float = math.inf
    activated_at: float = math.inf
    ended_at: float = math.inf
    end: End = End.MINER
    disabled_at: float = math.inf
    bounty_boost: float = 1.0

    def cut(self, at: float, end: End) -> None:
        if at < self.ended_at:
            self.ended_at, self.end = at, end

    def active(self, now: float) -> bool:
        return self.activated_at <= now < min(self.ended_at, self.disabled_at)

    def has_bounty(self, now: float) -> bool:
        return self.activated_at <= now and self.bounty_boost > 1

    def stop_billing_at(self, now: float) -> float | None:
        """Return until when a private instance is billed. Requests extend it, at most once a minute."""
        if self.chute.public or self.activated_at > now:
            return None
        return last(min(now, self.ended_at), MINUTE) + 15 * MINUTE

    @property
    def version(self) -> str:
        return self.chute.version(self.created_at)

    @cached_property
    def hourly_rate(self) -> float:
        return math.fsum(MODELS[gpu.model].hourly_rate for gpu in self.gpus)

    @cached_property
    def _warmup_multiplier(self) -> float:
        """Multiplier of its start-up, without urgency and bounty."""
        return self.hourly_rate / DEAREST_RATE * math.prod(self.chute.lasting_factors.values())

    @cached_property
    def _launch_multiplier(self) -> float:
        """Multiplier that the API shows before its activation."""
        return self._warmup_multiplier * self.chute.urgency(self.created_at)

    def history(self, now: float) -> list[tuple[float, float, float]]:
        """Return the start, end and multiplier of all records so far. There are none before the activation."""
        if self.activated_at > now:
            return []
        settled_at = self.activated_at + _SETTLED_AFTER
        records = (
            (self.created_at, self.activated_at, self._warmup_multiplier),
            (self.activated_at, settled_at, self._launch_multiplier * self.bounty_boost),
            (settled_at, math.inf, self._warmup_multiplier),
        )
        until = min(now, self.ended_at)
        return [(start, min(end, self.ended_at), multiplier) for start, end, multiplier in records if start <= until]

    def multiplier(self, now: float) -> float:
        """Return the multiplier that the API shows."""
        history = self.history(now)
        return history[-1][2] if history else self._launch_multiplier

    def counts(self, now: float) -> bool:
        """Return whether it counts for the score: it was activated, and did not lose its score by its end."""
        is_secured = self.chute.public and self.ended_at - self.activated_at >= SECURED_AFTER
        return self.activated_at <= now and (now < self.ended_at or self.end in VALID_ENDS or is_secured)

    def seconds_within(self, start: float, now: float) -> float:
        """Return its billed seconds between a time and now, including its start-up."""
        return max(0.0, min(now, self.ended_at) - max(start, self.created_at))

    def units_within(self, start: float, now: float) -> float:
        """Return its compute units between a time and now: seconds times the multiplier of that time."""
        return math.fsum(
            multiplier * max(0.0, min(now, end) - max(start, begin)) for begin, end, multiplier in self.history(now)
        )
