"""Chutes: requirements, demand and compute multipliers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from chutes_exporter.simulator.hardware import MODELS
from chutes_exporter.simulator.naming import make_uuid
from chutes_exporter.simulator.times import AUTOSCALER_PERIOD, DAY, HOUR, MINUTE, last

SCALING_THRESHOLD = 0.75
"""The utilization above which the autoscaler boosts a chute."""
MAX_INSTANCES = 20
"""Most instances that a chute may have."""
_MOST_BOOST = 2.7
_LEAST_PUBLIC_TARGET = 2
_LITTLE_LOAD = 0.3
_MOST_AT_ONCE = 5
_REFRESH_DELAY = 2 * MINUTE
"""The service refreshes multipliers this long after every full hour."""


def refreshed(now: float) -> float:
    """Return when the autoscaler last refreshed the multipliers of running instances."""
    return last(now - _REFRESH_DELAY, HOUR) + _REFRESH_DELAY


def bounty_amount(age: float) -> int:
    """Return the number that the API shows for a bounty of some age in seconds."""
    return min(100 + 3 * int(age), 86_400)


def bounty_boost(age: float) -> float:
    """Return the factor that a bounty of some age in seconds adds at activation."""
    return 1.1 + 0.4 * min(1.0, age / (180 * MINUTE))


@dataclass(frozen=True, eq=False)
class Chute:
    """A workload.

    Attributes:
        seed: Seed of its versions.
        models: The GPU models that it may run on.
        public: Whether its instances serve everybody. Private instances are billed to the owner.
        integrated: Whether it belongs to another subnet, which triples the multiplier of a private chute.
        manual_boost: A factor set by hand, or None.
        scaled: Whether the autoscaler has ever boosted it.
        real_code: Whether the API shows its code, as for old library versions.
        phase: Shifts its schedules, 0 to 1.
        popularity: Scales its demand.
        deploy_period: Seconds between two versions.
        bounty_period: Seconds between two bounties.
        created_at: Unix time.
        past_begins: Unix time before which no instance was started.
    """

    chute_id: str
    user_id: str
    name: str | None
    slug: str | None
    seed: str
    gpu_count: int
    models: tuple[str, ...]
    public: bool
    tee: bool | None
    integrated: bool
    manual_boost: float | None
    scaled: bool
    disabled: bool | None
    real_code: bool
    phase: float
    popularity: float
    deploy_period: float
    bounty_period: float
    created_at: float
    past_begins: float
    _boosts: dict[float, float] = field(init=False, repr=False, default_factory=dict)

    def utilization(self, now: float) -> float:
        """Return the used share of the capacity. It depends on the time of day and may exceed 1."""
        day = 0.5 + 0.5 * math.sin(2 * math.pi * (now / DAY + self.phase))
        return round(self.popularity * (0.35 + 0.75 * day), 6)

    def boost(self, now: float) -> float | None:
        """Return the urgency boost that the autoscaler has last set, or None if it never did."""
        if not self.scaled:
            return None
        if not self.public:
            return 1.0
        run = last(now, AUTOSCALER_PERIOD)
        if run not in self._boosts:
            above = max(0.0, self.utilization(run) - SCALING_THRESHOLD)
            self._boosts[run] = round(min(_MOST_BOOST, 1 + 4 * above), 3)
        return self._boosts[run]

    def target_instances(self, run: float, active: int, *, bounty: bool) -> int:
        """Return how many active instances the autoscaler wants at one of its runs.

        Args:
            run: Unix time of the run.
            active: Active instances at that time.
            bounty: Whether a bounty is on offer.
        """
        if not self.public:
            # Requests of the owner create a bounty, and a bounty allows one more instance.
            return min(MAX_INSTANCES, active + bounty)
        load = self.utilization(run) if active else 0.0
        target = active
        if load > SCALING_THRESHOLD:
            target += min(_MOST_AT_ONCE, math.ceil(10 * (load - SCALING_THRESHOLD)))
        elif load < _LITTLE_LOAD:
            target -= 1
        return min(MAX_INSTANCES, max(_LEAST_PUBLIC_TARGET, target))

    @cached_property
    def base_multiplier(self) -> float:
        """The base multiplier on the cheapest GPUs that it may run on."""
        return self.gpu_count * min(MODELS[model].multiplier for model in self.models)

    @cached_property
    def _lasting_factors(self) -> dict[str, float]:
        factors: dict[str, float] = {}
        if not self.public:
            if self.integrated:
                factors["integrated_subnet"] = 3
            elif self.tee:
                factors["private_tee"] = 1.3
            else:
                factors["private"] = 2
        if self.manual_boost is not None:
            factors["manual_boost"] = self.manual_boost
        if self.tee:
            factors["tee"] = 2.25
        return factors

    @cached_property
    def lasting_factor(self) -> float:
        """The product of all factors except the base, urgency and bounty."""
        return math.prod(self._lasting_factors.values())

    def factors(self, now: float, bounty_age: float | None) -> dict[str, float]:
        """Return the factors of the multiplier of an instance started now.

        Args:
            now: Unix time.
            bounty_age: Age of the bounty in seconds, or None.
        """
        boost = self.boost(now)
        found = {"base": self.base_multiplier, **self._lasting_factors}
        if self.public and boost is not None:
            found["urgency_boost"] = boost
        if bounty_age is not None:
            found["bounty_boost"] = bounty_boost(bounty_age)
        order = (
            "base",
            "private",
            "private_tee",
            "integrated_subnet",
            "urgency_boost",
            "manual_boost",
            "bounty_boost",
            "tee",
        )
        return {name: found[name] for name in order if name in found}

    def urgency(self, now: float) -> float:
        """Return the urgency factor of an instance, which is 1 for private chutes."""
        return (self.boost(now) or 1.0) if self.public else 1.0

    def target(self, now: float) -> float:
        """Return the value that the multiplier of a public instance approaches."""
        return self.base_multiplier * self.lasting_factor * self.urgency(now)

    def _version_number(self, now: float) -> int:
        return math.floor(now / self.deploy_period - self.phase)

    def version(self, now: float) -> str:
        """Return the id of its current version."""
        return make_uuid(self.seed, "version", self._version_number(now))

    def deployed_at(self, now: float) -> float:
        """Return when its current version was deployed."""
        return max(self.created_at, (self._version_number(now) + self.phase) * self.deploy_period)

    def old_version(self, now: float) -> str:
        """Return the id of the version before the present one."""
        return make_uuid(self.seed, "version", self._version_number(now) - 1)

    @property
    def update_takes(self) -> float:
        """Seconds within which a rolling update replaces all old instances."""
        return (12 if self.public else 2) * HOUR

    def next_deploy(self, now: float) -> float:
        """Return when its next version is deployed."""
        return (self._version_number(now) + 1 + self.phase) * self.deploy_period

    @cached_property
    def target_units(self) -> TargetUnits:
        """Compute units of an instance whose multiplier has reached the target."""
        return TargetUnits(self)


class TargetUnits:
    """The compute units of a chute's target over time, computed hour by hour when needed."""

    def __init__(self, chute: Chute) -> None:
        self._chute = chute
        self._first = refreshed(chute.past_begins)
        self._sums = [0.0]

    def __call__(self, until: float) -> float:
        """Return the compute units from a fixed time before the world's start until a time."""
        number, seconds = divmod(until - self._first, HOUR)
        while len(self._sums) <= number:
            hour = self._first + (len(self._sums) - 1) * HOUR
            self._sums.append(self._sums[-1] + HOUR * self._chute.target(hour))
        return self._sums[int(number)] + seconds * self._chute.target(self._first + number * HOUR)
