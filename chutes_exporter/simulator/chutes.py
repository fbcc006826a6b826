"""GPU models and chutes: requirements, demand and compute multipliers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.simulator.times import SOFT_PERIOD, last, make_uuid

SCALING_THRESHOLD: Final = 0.75
"""The utilization above which the autoscaler wants more instances."""
DEAREST_RATE: Final = 4.5
"""Hourly rate of the most expensive model in USD. The multiplier of a GPU is its rate divided by this."""


class Model(NamedTuple):
    """A GPU model: the driver's name, memory in bytes, hourly rate in USD, multiprocessors and clock rate in kHz."""

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


def bounty_boost(age: float) -> float:
    """Return the factor that a bounty of some age in seconds adds at activation."""
    return 1.1 + 0.4 * min(1.0, age / (3 * HOUR))


@dataclass(frozen=True, eq=False)
class Chute:
    """A workload. It has a new version and a bounty once in a period. The phase, 0 to 1, shifts its schedules.

    The popularity scales its demand. The autoscaler has looked at it once if it is ``scaled``.
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

    @property
    def max_instances(self) -> int:
        return 20 if self.public else 4

    @property
    def bounty_lifetime(self) -> float:
        return DAY if self.public else 2 * HOUR

    def utilization(self, now: float) -> float:
        """Return the used share of the capacity. It depends on the time of day and may exceed 1."""
        day = 0.5 + 0.5 * math.sin(2 * math.pi * (now / DAY + self.phase))
        return round(self.popularity * (0.35 + 0.75 * day), 6)

    def target_instances(self, run: float, active: int, *, bounty: bool) -> int:
        """Return how many active instances the autoscaler wants at one of its runs, when some are active."""
        if self.disabled:
            return 0
        load = self.utilization(run)
        if not self.public:
            return min(self.max_instances, active + (load >= SCALING_THRESHOLD)) if active else int(bounty)
        target = active
        if active and load > SCALING_THRESHOLD:
            target += min(5, math.ceil(10 * (load - SCALING_THRESHOLD)))
        elif load < 0.3:
            target -= 1
        return min(self.max_instances, max(2, target))

    @cached_property
    def base_multiplier(self) -> float:
        """The base multiplier on the cheapest GPUs that it may run on."""
        return self.gpu_count * min(MODELS[model].hourly_rate for model in self.models) / DEAREST_RATE

    @cached_property
    def lasting_factors(self) -> dict[str, float]:
        """The factors of the multiplier except the base, urgency and bounty."""
        factors: dict[str, float] = {}
        if not self.public:
            factors |= {"private_tee": 1.3} if self.tee else {"private": 2.0}
        if self.manual_boost is not None:
            factors["manual_boost"] = self.manual_boost
        if self.tee:
            factors["tee"] = 2.25
        return factors

    def factors(self, now: float, bounty_age: float | None) -> dict[str, float]:
        """Return the factors of the multiplier of an instance started now, with the age of the bounty in seconds."""
        factors = {"base": self.base_multiplier, **self.lasting_factors}
        if self.public and self.scaled:
            factors["urgency_boost"] = self.urgency(now)
        if bounty_age is not None:
            factors["bounty_boost"] = bounty_boost(bounty_age)
        return factors

    def urgency(self, now: float) -> float:
        """Return the urgency factor that the autoscaler has last set, which is 1 for private chutes."""
        if not (self.public and self.scaled):
            return 1.0
        above = self.utilization(last(now, SOFT_PERIOD)) - SCALING_THRESHOLD
        return round(min(2.7, 1 + 4 * max(0.0, above)), 3)

    def version(self, now: float) -> str:
        return make_uuid(self.seed, "version", math.floor(now / self.deploy_period - self.phase))

    def deployed_at(self, now: float) -> float:
        return (math.floor(now / self.deploy_period - self.phase) + self.phase) * self.deploy_period
