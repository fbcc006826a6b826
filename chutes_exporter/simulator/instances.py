"""Instances from the launch token to the deletion, and their compute units."""

from __future__ import annotations

import bisect
import enum
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from chutes_exporter.simulator.chutes import MODELS
from chutes_exporter.simulator.times import FULL_PERIOD, HOUR, MINUTE, last, last_full_run

if TYPE_CHECKING:
    from chutes_exporter.simulator.chutes import Chute

SECURED_AFTER: Final = HOUR
"""A public instance that is deleted sooner after its activation loses its score."""
# Between these ages after the activation, the multiplier changes to the chute's target.
_UNCHANGED: Final = 2 * HOUR
_BLENDED: Final = 8 * HOUR
_PROBE_PERIOD: Final = 7 * MINUTE


class End(enum.Enum):
    """Why an instance was deleted."""

    MINER = "its miner deleted it"
    FAILURES = "it failed too often"
    PURGED = "it did not become active in time"
    REFUSED = "the chute had enough instances when it was ready"
    SCALED_DOWN = "the chute needed fewer instances"
    UPDATED = "the chute has a new version"
    IDLE = "nobody used the private instance"
    MAINTENANCE = "its server is upgraded"


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
    """A chute on some GPUs, from its creation to its end.

    Attributes:
        created_at: When its pod claimed the launch token.
        disabled_at: When its miner disables it, or None.
        last_request: When a private instance gets its last request. Its billing stops some time later.
        shutdown_after: Seconds without requests after which a private instance is deleted.
        bounty_boost: The factor of the bounty at its activation. 1 without a bounty.
    """

    instance_id: str
    hotkey: str
    chute: Chute
    gpus: tuple[Gpu, ...]
    created_at: float
    verified_at: float | None
    activated_at: float | None
    ended_at: float
    end: End
    disabled_at: float | None = None
    last_request: float | None = None
    shutdown_after: float = 0.0
    bounty_boost: float = 1.0
    # The starts of the multipliers so far, the multipliers, the units before each, and the next run that may change it.
    _starts: list[float] = field(init=False, repr=False)
    _multipliers: list[float] = field(init=False, repr=False)
    _units: list[float] = field(init=False, repr=False)
    _next_run: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        self._starts, self._multipliers, self._units = [self.created_at], [self.warmup_multiplier], [0.0]

    def exists(self, now: float) -> bool:
        """Return whether the API lists it."""
        return self.created_at <= now < self.ended_at

    def verified(self, now: float) -> bool:
        """Return whether its verification has passed."""
        return self.verified_at is not None and self.verified_at <= now

    def activated(self, now: float) -> bool:
        """Return whether it has ever become active."""
        return self.activated_at is not None and self.activated_at <= now

    def disabled(self, now: float) -> bool:
        """Return whether its miner has disabled it. It continues to earn."""
        return self.exists(now) and self.disabled_at is not None and self.disabled_at <= now

    def active(self, now: float) -> bool:
        """Return whether it serves requests."""
        return self.exists(now) and self.activated(now) and not self.disabled(now)

    def active_within(self, start: float, now: float) -> bool:
        """Return whether it served requests at some time between two times."""
        ended = self.ended_at if self.disabled_at is None else min(self.ended_at, self.disabled_at)
        return self.activated(now) and start < ended

    def has_bounty(self, now: float) -> bool:
        """Return whether it was activated with a bounty."""
        return self.activated(now) and self.bounty_boost > 1

    def last_verified_at(self, now: float) -> float | None:
        """Return when it was verified, or when the prober last reached it. Only instances without TEE are probed."""
        if self.verified_at is None or self.verified_at > now:
            return None
        if self.chute.tee or not self.active(now):
            return self.verified_at
        shift = int(self.instance_id[:4], 16) % _PROBE_PERIOD
        return max(self.verified_at, last(now - shift, _PROBE_PERIOD) + shift)

    def stop_billing_at(self, now: float) -> float | None:
        """Return until when a private instance is billed. Requests extend it, at most once a minute."""
        if self.last_request is None or self.activated_at is None or not self.activated(now):
            return None
        request = max(self.activated_at, last(min(now, self.last_request), MINUTE))
        return request + self.shutdown_after

    @property
    def version(self) -> str:
        """The chute's version at its creation."""
        return self.chute.version(self.created_at)

    @cached_property
    def hourly_rate(self) -> float:
        """Rate of its GPUs in USD per hour."""
        return math.fsum(MODELS[gpu.model].hourly_rate for gpu in self.gpus)

    @cached_property
    def warmup_multiplier(self) -> float:
        """Multiplier of its start-up, without urgency and bounty."""
        return math.fsum(MODELS[gpu.model].multiplier for gpu in self.gpus) * self.chute.lasting_factor

    @cached_property
    def launch_multiplier(self) -> float:
        """Multiplier that the API shows before its activation."""
        return self.warmup_multiplier * self.chute.urgency(self.created_at)

    def _number(self, now: float) -> int:
        """Return the number of the multiplier at a time, and add those that are missing up to then."""
        if self.activated_at is not None and self.activated_at <= now:
            if len(self._starts) == 1:
                self._add(self.activated_at, self.launch_multiplier * self.bounty_boost)
                self._next_run = last_full_run(self.activated_at) + FULL_PERIOD
            while self._next_run <= min(now, self.ended_at):
                self._run(self._next_run - self.activated_at)
        return max(0, bisect.bisect_right(self._starts, now) - 1)

    def _run(self, age: float) -> None:
        """Let the autoscaler move the multiplier towards the chute's target."""
        run, before = self._next_run, self._multipliers[-1]
        target = self.warmup_multiplier
        if self.chute.public:
            target = self.chute.base_multiplier * self.chute.lasting_factor * self.chute.urgency(run)
        weight = min(1.0, max(0.0, age - _UNCHANGED) / (_BLENDED - _UNCHANGED)) ** 2
        multiplier = target if weight == 1 else before + (target - before) * weight
        if multiplier != before:
            self._add(run, multiplier)
        # The target of a private chute never changes.
        settled = multiplier == target and not self.chute.public
        self._next_run = math.inf if settled else run + FULL_PERIOD

    def _add(self, start: float, multiplier: float) -> None:
        self._units.append(self._units[-1] + self._multipliers[-1] * (start - self._starts[-1]))
        self._starts.append(start)
        self._multipliers.append(multiplier)

    def multiplier(self, now: float) -> float:
        """Return the multiplier that the API shows."""
        return self._multipliers[self._number(now)] if self.activated(now) else self.launch_multiplier

    def history(self, now: float) -> list[tuple[float, float | None, float]]:
        """Return the start, end and multiplier of all records so far; the open one has no end.

        There are none before the activation.
        """
        if not self.activated(now):
            return []
        starts = self._starts[: self._number(now) + 1]
        ends: list[float | None] = [*starts[1:], None if now < self.ended_at else self.ended_at]
        return list(zip(starts, ends, self._multipliers, strict=False))

    def counts(self, now: float) -> bool:
        """Return whether it counts for the score: it was activated, and did not lose its score by its end."""
        if self.activated_at is None or self.activated_at > now:
            return False
        if now < self.ended_at or self.end in VALID_ENDS:
            return True
        return self.chute.public and self.ended_at - self.activated_at >= SECURED_AFTER

    def _earning_until(self, now: float) -> float:
        stop = self.stop_billing_at(now)
        return min(now, self.ended_at) if stop is None else min(now, self.ended_at, stop)

    def seconds_within(self, start: float, now: float) -> float:
        """Return its billed seconds between a time and now, including its start-up."""
        return max(0.0, self._earning_until(now) - max(start, self.created_at))

    def units_within(self, start: float, now: float) -> float:
        """Return its compute units between a time and now: seconds times the multiplier of that time."""
        start, end = max(start, self.created_at), self._earning_until(now)
        return self._earned(end) - self._earned(start) if start < end else 0.0

    def _earned(self, until: float) -> float:
        """Return the compute units from its creation to a time."""
        number = self._number(until)
        return self._units[number] + self._multipliers[number] * (until - self._starts[number])
