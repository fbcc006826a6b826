"""The service's rules for chutes and instances: demand, targets, multipliers, ends, and the periods
of its programs.
"""

from __future__ import annotations

import enum
import hashlib
import math
import random
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from chutes_exporter.duration import DAY, HOUR, MINUTE

CACHE_PERIOD: Final = 10 * MINUTE
"""Period of computing stats, scores, histories and invocation counts."""
SOFT_PERIOD: Final = 2 * MINUTE
"""Period of the autoscaler's soft runs, which set targets and boosts, and purge instances."""
SCALING_THRESHOLD: Final = 0.75
"""The utilization above which the autoscaler wants more instances of a public chute.

It wants more of a private chute from exactly this utilization on.
"""
DEAREST_RATE: Final = 4.5
"""Hourly rate of the most expensive model in USD.

The multiplier of a GPU is its rate divided by this.
"""
SECURED_AFTER: Final = HOUR
"""A public instance that is deleted sooner after its activation loses its score."""


def last_run(now: float, period: float) -> float:
    """Return the Unix time of the last run of a program that runs once in a period of seconds."""
    return now // period * period


def make_uuid(*parts: object) -> str:
    digits = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def make_random(*parts: object) -> random.Random:
    return random.Random("/".join(map(str, parts)))


class Model(NamedTuple):
    """A GPU model: the driver's name, memory in bytes, hourly rate in USD, multiprocessors and
    clock rate in kHz.
    """

    name: str
    memory: int
    hourly_rate: float
    processors: int
    clock_rate: float


MODELS: Final = {
    "4090": Model("NVIDIA GeForce RTX 4090", 24 * 2**30, 0.4, 128, 2520e3),
    "a100": Model("NVIDIA A100 80GB PCIe", 80 * 2**30, 1.2, 108, 1410e3),
    "l40s": Model("NVIDIA L40S", 48 * 2**30, 0.85, 142, 2520e3),
    "h200": Model("NVIDIA H200", 141 * 2**30, 2.75, 132, 1980e3),
    "b200": Model("NVIDIA B200", 180 * 2**30, 4.5, 148, 1965e3),
    "pro_6000": Model("NVIDIA RTX PRO 6000 Blackwell Server Edition", 96 * 2**30, 1.8, 188, 2617e3),
}
"""The models by the API's short name."""


@dataclass(frozen=True, eq=False)
class Chute:
    """A workload. What is None is null in the answers, as in old records. A manual boost of None is
    none.

    Attributes:
        seed: The text that its random numbers depend on.
        scaled: Whether the autoscaler has looked at it.
        phase: Part of a period, 0 to 1, by which its schedules are shifted.
        popularity: Factor of its demand.
        deploy_period: Seconds from one version to the next.
        bounty_period: Seconds from one bounty to the next.
        bounty_lifetime: Seconds for which a bounty is on offer.
    """

    chute_id: str
    name: str | None
    slug: str | None
    seed: str
    gpu_count: int
    models: tuple[str, ...]
    public: bool
    tee: bool | None
    manual_boost: float | None
    scaled: bool
    disabled: bool | None
    phase: float
    popularity: float
    deploy_period: float
    bounty_period: float
    max_instances: int
    bounty_lifetime: float

    def utilization(self, now: float) -> float:
        """Return the used share of the capacity. It depends on the time of day and may exceed 1."""
        # A wave from 0 to 1 within a day.
        daily_wave = 0.5 + 0.5 * math.sin(2 * math.pi * (now / DAY + self.phase))
        return round(self.popularity * (0.35 + 0.75 * daily_wave), 6)

    @cached_property
    def base_multiplier(self) -> float:
        """The base multiplier on the cheapest GPUs that it may run on."""
        cheapest = min(MODELS[model].hourly_rate for model in self.models)
        return self.gpu_count * cheapest / DEAREST_RATE

    def factors(self, now: float, bounty_age: float | None = None) -> dict[str, float]:
        """Return the factors, by name, whose product is the multiplier of an instance that starts
        now.

        Only a public chute that the autoscaler has looked at has an urgency boost. It follows the
        chute's load at the last soft run. The age of the bounty is in seconds, None without one.
        """
        factors = {"base": self.base_multiplier}
        if not self.public:
            name, factor = ("private_tee", 1.3) if self.tee else ("private", 2.0)
            factors[name] = factor
        if self.manual_boost is not None:
            factors["manual_boost"] = self.manual_boost
        if self.tee:
            factors["tee"] = 2.25
        if self.public and self.scaled:
            excess = self.utilization(last_run(now, SOFT_PERIOD)) - SCALING_THRESHOLD
            factors["urgency_boost"] = round(min(2.7, 1 + 4 * max(0.0, excess)), 3)
        if bounty_age is not None:
            # It rises in a straight line from 1.1 to 1.5, which it reaches after 3 hours.
            factors["bounty_boost"] = 1.1 + 0.4 * min(1.0, bounty_age / (3 * HOUR))
        return factors

    def version(self, now: float) -> str:
        return make_uuid(self.seed, "version", self._version_number(now))

    def deployed_at(self, now: float) -> float:
        """Return the Unix time from which on it has its version."""
        return (self._version_number(now) + self.phase) * self.deploy_period

    def _version_number(self, now: float) -> int:
        return math.floor(now / self.deploy_period - self.phase)


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
    """A GPU of a server.

    It can be used if it passed the verification, even if a later one failed with an error.
    """

    uuid: str
    gpu_identifier: str
    device_index: int
    server_id: str
    verified_at: float | None
    error: str | None = None


class MultiplierRecord(NamedTuple):
    """A multiplier of an instance, between two Unix times."""

    started_at: float
    ended_at: float
    multiplier: float


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

    @property
    def chute_id(self) -> str:
        return self.chute.chute_id

    def cut(self, at: float, end: End) -> None:
        """End it at a time, unless it ends sooner."""
        if at < self.ended_at:
            self.ended_at, self.end = at, end

    def active(self, now: float) -> bool:
        return self.activated_at <= now < min(self.ended_at, self.disabled_at)

    def has_bounty(self, now: float) -> bool:
        return self.activated_at <= now and self.bounty_boost > 1

    @property
    def version(self) -> str:
        return self.chute.version(self.created_at)

    @cached_property
    def hourly_rate(self) -> float:
        return math.fsum(MODELS[gpu.gpu_identifier].hourly_rate for gpu in self.gpus)

    @cached_property
    def _warmup_multiplier(self) -> float:
        """Multiplier without urgency and bounty.

        It applies until the activation, and again from 5 hours after the activation on.
        """
        # Without the age of a bounty, there is no factor for it.
        factors = self.chute.factors(self.created_at)
        # The chute's base factor is for the cheapest GPUs that it allows. The rate of the GPUs of
        # this instance takes its place.
        del factors["base"]
        factors.pop("urgency_boost", None)
        return self.hourly_rate / DEAREST_RATE * math.prod(factors.values())

    @cached_property
    def _launch_multiplier(self) -> float:
        """Multiplier that the API shows before its activation."""
        urgency_boost = self.chute.factors(self.created_at).get("urgency_boost", 1.0)
        return self._warmup_multiplier * urgency_boost

    def history(self, now: float) -> list[MultiplierRecord]:
        """Return all records of its multipliers so far, none until its activation.

        The last one may end after now.
        """
        if self.activated_at > now:
            return []
        # The service moves the multiplier to the chute's present one without a bounty, in small
        # steps from 2 to 8 hours after the activation. Here, urgency and bounty end in one step,
        # in the middle of that time.
        settled_at = self.activated_at + 5 * HOUR
        full_multiplier = self._launch_multiplier * self.bounty_boost
        periods = (
            (self.created_at, self.activated_at, self._warmup_multiplier),
            (self.activated_at, settled_at, full_multiplier),
            (settled_at, math.inf, self._warmup_multiplier),
        )
        until = min(now, self.ended_at)
        return [
            MultiplierRecord(begins_at, min(ends_at, self.ended_at), multiplier)
            for begins_at, ends_at, multiplier in periods
            if begins_at <= until
        ]

    def multiplier(self, now: float) -> float:
        """Return the multiplier that the API shows."""
        history = self.history(now)
        return history[-1].multiplier if history else self._launch_multiplier

    def counts(self, now: float) -> bool:
        """Return whether it counts for the score: it was activated, and did not lose its score by
        its end.
        """
        if self.activated_at > now:
            return False
        is_there = now < self.ended_at
        is_secured = self.chute.public and self.ended_at - self.activated_at >= SECURED_AFTER
        return is_there or self.end in VALID_ENDS or is_secured

    def seconds_within(self, start: float, now: float) -> float:
        """Return its billed seconds between a time and now, including its start-up."""
        return max(0.0, min(now, self.ended_at) - max(start, self.created_at))

    def units_within(self, start: float, now: float) -> float:
        """Return its compute units between a time and now: the seconds of each multiplier, times
        the multiplier.
        """
        units = []
        for record in self.history(now):
            seconds = min(now, record.ended_at) - max(start, record.started_at)
            units.append(record.multiplier * max(0.0, seconds))
        return math.fsum(units)
