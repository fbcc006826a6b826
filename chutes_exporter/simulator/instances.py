"""The instances of all miners, from the launch token to the deletion, and their compute units."""

from __future__ import annotations

import enum
import heapq
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final

from chutes_exporter.simulator.chutes import DEAREST_RATE, MODELS, bounty_boost
from chutes_exporter.simulator.times import HOUR, MINUTE, SOFT_PERIOD, last, make_random, make_uuid, next_run

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from chutes_exporter.simulator.chutes import Chute

LONGEST_START: Final = 3.5 * HOUR
"""Instances that are not active so long after their creation are purged."""
LONGEST_INACTIVE: Final = 3 * HOUR
"""Instances that are not active so long after their verification are purged."""
_SECURED_AFTER: Final = HOUR
"""A public instance that is deleted sooner after its activation loses its score."""
_SETTLED_AFTER: Final = 5 * HOUR
"""This long after its activation, an instance loses the factors of urgency and bounty."""
_SCALE_DOWN_AFTER: Final = 63 * MINUTE
_TRIES: Final = 4
_KEPT: Final = 12 * HOUR
"""The service's decisions do not depend on instances that ended longer ago: it is the longest age of a bounty."""


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
    """A chute on some GPUs, from its creation to its end.

    Attributes:
        created_at: When its pod claimed the launch token.
        disabled_at: When its miner disables it, or None.
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
    bounty_boost: float = 1.0

    def exists(self, now: float) -> bool:
        """Return whether the API lists it."""
        return self.created_at <= now < self.ended_at

    def activated(self, now: float) -> bool:
        """Return whether it has ever become active."""
        return self.activated_at is not None and self.activated_at <= now

    def disabled(self, now: float) -> bool:
        """Return whether its miner has disabled it. It continues to earn."""
        return self.exists(now) and self.disabled_at is not None and self.disabled_at <= now

    def active(self, now: float) -> bool:
        """Return whether it serves requests."""
        return self.exists(now) and self.activated(now) and not self.disabled(now)

    def has_bounty(self, now: float) -> bool:
        """Return whether it was activated with a bounty."""
        return self.activated(now) and self.bounty_boost > 1

    def last_verified_at(self, now: float) -> float | None:
        """Return when it was verified, or None before."""
        return None if self.verified_at is None or self.verified_at > now else self.verified_at

    def stop_billing_at(self, now: float) -> float | None:
        """Return until when a private instance is billed. Requests extend it, at most once a minute."""
        if self.chute.public or not self.activated(now):
            return None
        return last(min(now, self.ended_at), MINUTE) + 15 * MINUTE

    @property
    def version(self) -> str:
        """The chute's version at its creation."""
        return self.chute.version(self.created_at)

    @cached_property
    def hourly_rate(self) -> float:
        """Rate of its GPUs in USD per hour."""
        return math.fsum(MODELS[gpu.model].hourly_rate for gpu in self.gpus)

    @cached_property
    def _warmup_multiplier(self) -> float:
        """Multiplier of its start-up, without urgency and bounty."""
        return self.hourly_rate / DEAREST_RATE * self.chute.lasting_factor

    @cached_property
    def _launch_multiplier(self) -> float:
        """Multiplier that the API shows before its activation."""
        return self._warmup_multiplier * self.chute.urgency(self.created_at)

    def _records(self) -> list[tuple[float, float, float]]:
        """Return the start, end and multiplier of all records up to its end, the last one without a limit."""
        if self.activated_at is None:
            return []
        settled_at = self.activated_at + _SETTLED_AFTER
        return [
            (self.created_at, self.activated_at, self._warmup_multiplier),
            (self.activated_at, settled_at, self._launch_multiplier * self.bounty_boost),
            (settled_at, math.inf, self._warmup_multiplier),
        ]

    def history(self, now: float) -> list[tuple[float, float | None, float]]:
        """Return the start, end and multiplier of all records so far; the open one has no end.

        There are none before the activation.
        """
        records = [record for record in self._records() if self.activated(now) and record[0] <= min(now, self.ended_at)]
        return [
            (start, None if (until := min(end, self.ended_at)) > now else until, multiplier)
            for start, end, multiplier in records
        ]

    def multiplier(self, now: float) -> float:
        """Return the multiplier that the API shows."""
        history = self.history(now)
        return history[-1][2] if history else self._launch_multiplier

    def counts(self, now: float) -> bool:
        """Return whether it counts for the score: it was activated, and did not lose its score by its end."""
        if self.activated_at is None or self.activated_at > now:
            return False
        if now < self.ended_at or self.end in VALID_ENDS:
            return True
        return self.chute.public and self.ended_at - self.activated_at >= _SECURED_AFTER

    def seconds_within(self, start: float, now: float) -> float:
        """Return its billed seconds between a time and now, including its start-up."""
        return max(0.0, min(now, self.ended_at) - max(start, self.created_at))

    def units_within(self, start: float, now: float) -> float:
        """Return its compute units between a time and now: seconds times the multiplier of that time."""
        until = min(now, self.ended_at)
        return math.fsum(
            multiplier * max(0.0, min(until, end) - max(start, begin)) for begin, end, multiplier in self._records()
        )


@dataclass(eq=False)
class Slot:
    """A group of GPUs that runs one instance after another.

    Attributes:
        chutes: Chutes that can run on it, each using the whole group.
        begins_at: When it launches its first instance.
        outages: Starts and ends of times without an instance, and why an instance ends by each.
        steady: Times between which its instance does not end, or None. Its starts never fail.
        crashes: Whether its instances fail soon after their activation.
        stuck: Whether its first instance is never verified.
        count: Number of its instances so far.
    """

    seed: str
    hotkey: str
    gpus: tuple[Gpu, ...]
    chutes: Sequence[Chute]
    begins_at: float
    outages: tuple[tuple[float, float, End], ...] = ()
    steady: tuple[float, float] | None = None
    crashes: bool = False
    stuck: bool = False
    count: int = 0
    random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.random = make_random(self.seed)


class Lives:
    """All instances of a world, made in the order of time: miners launch them where the service wants them.

    Attributes:
        by_chute: The instances that the service's decisions depend on, by chute id.
        by_hotkey: All instances, by miner.
    """

    def __init__(self) -> None:
        self.by_chute: defaultdict[str, list[Instance]] = defaultdict(list)
        self.by_hotkey: defaultdict[str, list[Instance]] = defaultdict(list)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()

    def add(self, instance: Instance) -> None:
        """Add an instance."""
        recent = self.by_chute[instance.chute.chute_id]
        recent[:] = [*(one for one in recent if one.ended_at > instance.created_at - _KEPT), instance]
        self.by_hotkey[instance.hotkey].append(instance)

    def plan(self, instance: Instance) -> None:
        """Add an instance at its creation."""
        self._at(instance.created_at, lambda _: self.add(instance))

    def add_slot(self, slot: Slot) -> None:
        """Let a slot launch instances."""
        self._at(slot.begins_at, partial(self._launch, slot))

    def grow(self, until: float) -> None:
        """Make everything that happens up to a time."""
        while self._events and self._events[0][0] <= until:
            now, _, happen = heapq.heappop(self._events)
            happen(now)

    def _at(self, time: float, event: Callable[[float], None]) -> None:
        if time < math.inf:
            heapq.heappush(self._events, (time, next(self._order), event))

    # The service's decisions

    def active(self, chute: Chute, now: float) -> int:
        """Return the number of active instances of a chute."""
        return sum(one.active(now) for one in self.by_chute[chute.chute_id])

    def bounty_age(self, chute: Chute, now: float) -> float | None:
        """Return the age in seconds of the bounty on offer for a chute, or None. An active instance ends a bounty."""
        made = (math.floor(now / chute.bounty_period - chute.phase) + chute.phase) * chute.bounty_period
        if chute.disabled or now >= made + chute.bounty_lifetime:
            return None
        served = any(one.activated(now) and made < one.ended_at for one in self.by_chute[chute.chute_id])
        return None if served else now - made

    def target(self, chute: Chute, now: float) -> int:
        """Return how many active instances the autoscaler has last wanted of a chute."""
        run = last(now, SOFT_PERIOD)
        return chute.target_instances(run, self.active(chute, run), bounty=self.bounty_age(chute, run) is not None)

    def _wants(self, chute: Chute, now: float) -> bool:
        """Return whether fewer instances are active or starting than the autoscaler has last wanted."""
        existing = sum(one.exists(now) for one in self.by_chute[chute.chute_id])
        # The target, which takes long to find, is at most this number.
        return existing < chute.max_instances and existing < self.target(chute, now)

    # What miners do

    def _launch(self, slot: Slot, now: float) -> None:
        draw = slot.random
        for begins, ends, _ in slot.outages:
            if begins <= now < ends:
                self._at(ends + MINUTE, partial(self._launch, slot))
                return
        tried = draw.sample(slot.chutes, len(slot.chutes) if slot.steady else min(_TRIES, len(slot.chutes)))
        fallback = tried[0] if slot.crashes or slot.steady else None
        chute = next((one for one in tried if self._wants(one, now)), fallback)
        if chute is None:
            self._at(now + draw.uniform(5, 90) * MINUTE, partial(self._launch, slot))
            return
        slot.count += 1
        verified = now + draw.uniform(1, 5) * MINUTE
        instance = Instance(
            instance_id=make_uuid(slot.seed, slot.count),
            hotkey=slot.hotkey,
            chute=chute,
            gpus=slot.gpus,
            created_at=now,
            verified_at=verified,
            activated_at=None,
            ended_at=next_run(min(now + LONGEST_START, verified + LONGEST_INACTIVE), SOFT_PERIOD),
            end=End.PURGED,
        )
        self.add(instance)
        stuck = slot.stuck and slot.count == 1
        fate = 0.0 if stuck else 1.0 if slot.steady or slot.crashes else draw.random()
        if fate < 0.02:
            instance.verified_at = None
            instance.ended_at = next_run(now + LONGEST_START, SOFT_PERIOD)
        if fate < 0.04 and not stuck:
            _cut(instance, now + draw.uniform(0.4, 5) * HOUR, End.MINER)
        starts = verified + draw.uniform(2, 6 if slot.crashes else 40) * MINUTE
        _limit(slot, instance)
        if fate < 0.04 or starts >= instance.ended_at:
            self._at(instance.ended_at, partial(self._pause, slot))
        else:
            self._at(starts, partial(self._activate, slot, instance))

    def _activate(self, slot: Slot, instance: Instance, now: float) -> None:
        chute, draw = instance.chute, slot.random
        age = self.bounty_age(chute, now)
        instance.bounty_boost = 1.0 if age is None else bounty_boost(age)
        instance.activated_at, instance.ended_at = now, math.inf
        if slot.crashes:
            _cut(instance, now + draw.uniform(5, 20) * MINUTE, End.FAILURES)
        else:
            _serve(instance, now, draw)
        if slot.steady and now >= slot.steady[0]:
            instance.ended_at = max(instance.ended_at, slot.steady[1] + draw.expovariate(1 / (10 * HOUR)))
        _limit(slot, instance)
        self._at(instance.ended_at, partial(self._pause, slot))

    def _pause(self, slot: Slot, now: float) -> None:
        pause = slot.random.uniform(1, 10) * MINUTE
        if not slot.steady and not slot.crashes and slot.random.random() < 0.2:
            pause = slot.random.expovariate(1 / (5 * HOUR))
        self._at(now + pause, partial(self._launch, slot))


def _cut(instance: Instance, at: float, end: End) -> None:
    """Let an instance end earlier."""
    if at < instance.ended_at:
        instance.ended_at, instance.end = at, end


def _limit(slot: Slot, instance: Instance) -> None:
    """Let outages end an instance."""
    for begins, _, end in slot.outages:
        if instance.created_at < begins:
            _cut(instance, begins, end)


def _serve(instance: Instance, now: float, draw: random.Random) -> None:
    """Choose the end of an instance that becomes active now."""
    if draw.random() < 0.05:
        _cut(instance, now + draw.uniform(MINUTE, _SECURED_AFTER - MINUTE), draw.choice((End.MINER, End.FAILURES)))
    else:
        unused = End.SCALED_DOWN if instance.chute.public else End.IDLE
        end = draw.choices((End.MINER, End.FAILURES, unused), (20, 10, 70))[0]
        _cut(instance, now + _SCALE_DOWN_AFTER + draw.expovariate(1 / (40 * HOUR)), end)
    # A rolling update replaces it some time after a new version.
    chute = instance.chute
    deployed = chute.deployed_at(instance.created_at) + chute.deploy_period
    _cut(instance, max(deployed + draw.uniform(0.02, 6) * HOUR, now + MINUTE), End.UPDATED)
