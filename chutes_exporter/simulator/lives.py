"""The lives of all instances, in the order of time: miners launch them where the service accepts it."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chutes_exporter.simulator.chutes import bounty_boost
from chutes_exporter.simulator.instances import SECURED_AFTER, End, Instance
from chutes_exporter.simulator.times import DAY, HOUR, MINUTE, SOFT_PERIOD, last, make_random, make_uuid, next_run

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from chutes_exporter.simulator.chutes import Chute
    from chutes_exporter.simulator.instances import Gpu
    from chutes_exporter.simulator.maintenance import Upgrade

LONGEST_START: Final = 3.5 * HOUR
"""Instances that are not active so long after their creation are purged."""
LONGEST_INACTIVE: Final = 3 * HOUR
"""Instances that are not active so long after their verification are purged."""
_SCALE_DOWN_AFTER: Final = 63 * MINUTE
_TRIES: Final = 4
_SHORTEST_WAIT: Final = 3 * MINUTE
_LONGEST_WAIT: Final = 2 * HOUR
_KEPT: Final = 3 * DAY


@dataclass(eq=False)
class Slot:
    """A group of GPUs that runs one instance after another.

    Attributes:
        chutes: Chutes that can run on it, each using the whole group.
        begins_at: When it launches its first instance.
        upgrades: Upgrades of the server, which end its instances.
        steady: Times between which its instance does not end, or None. Its starts never fail.
        dies_at: When its server breaks down for ever.
        crashes: Whether its instances fail soon after their activation.
        stuck: Whether its first instance is never verified.
        count: Number of its instances so far.
        waits: Seconds until it looks again for a chute that wants an instance.
    """

    seed: str
    hotkey: str
    gpus: tuple[Gpu, ...]
    chutes: Sequence[Chute]
    begins_at: float
    upgrades: tuple[Upgrade, ...] = ()
    steady: tuple[float, float] | None = None
    dies_at: float = math.inf
    crashes: bool = False
    stuck: bool = False
    count: int = 0
    waits: float = _SHORTEST_WAIT
    random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.random = make_random(self.seed)


@dataclass(frozen=True)
class Bounty:
    """A bounty on offer. It expires unless an instance becomes active."""

    made_at: float
    expires_at: float


class Lives:
    """All instances of a world.

    Attributes:
        by_chute: The instances of the past days, by chute id.
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
        self._at(slot.begins_at, lambda now: self._launch(slot, now))

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

    def bounty(self, chute: Chute, now: float) -> Bounty | None:
        """Return the bounty on offer for a chute, or None. An active instance of the chute ends it."""
        made = (math.floor(now / chute.bounty_period - chute.phase) + chute.phase) * chute.bounty_period
        expires = made + chute.bounty_lifetime
        if now >= expires or chute.disabled:
            return None
        served = any(one.active_within(made, now) for one in self.by_chute[chute.chute_id])
        return None if served else Bounty(made, expires)

    def target(self, chute: Chute, now: float) -> int:
        """Return how many active instances the autoscaler has last wanted of a chute."""
        run = last(now, SOFT_PERIOD)
        return chute.target_instances(run, self.active(chute, run), bounty=self.bounty(chute, run) is not None)

    def accepts(self, chute: Chute, now: float) -> bool:
        """Return whether the service accepts another instance of a chute."""
        # A disabled chute has the target 0 and no bounty.
        active, target = self.active(chute, now), self.target(chute, now)
        if chute.private_rules:
            wanted = active > 0 or self.bounty(chute, now) is not None
            return wanted and not chute.disabled and not 0 < target <= active
        return active < target and (not chute.tee or self._live(chute, now) < target + 1)

    def _live(self, chute: Chute, now: float) -> int:
        """Return the number of active and starting instances of a chute."""
        return sum(one.exists(now) and not one.disabled(now) for one in self.by_chute[chute.chute_id])

    def _wants(self, chute: Chute, now: float) -> bool:
        """Return whether a miner launches a chute: where it is accepted, and not enough instances start already."""
        return self.accepts(chute, now) and self._live(chute, now) < max(1, self.target(chute, now))

    def _admits(self, chute: Chute, now: float) -> bool:
        """Return whether the service lets a started instance become active."""
        active = self.active(chute, now)
        if chute.private_rules and not active:
            return self.bounty(chute, now) is not None
        return bool(chute.tee and not chute.private_rules) or active < self.target(chute, now)

    # What miners do

    def _launch(self, slot: Slot, now: float) -> None:
        draw = slot.random
        ready = max([now, *(one.ends_at + MINUTE for one in slot.upgrades if one.begins_at <= now)])
        if now >= slot.dies_at:
            return
        if ready > now:
            self._at(ready, lambda at: self._launch(slot, at))
            return
        tried = draw.sample(slot.chutes, len(slot.chutes) if slot.steady else min(_TRIES, len(slot.chutes)))
        fallback = tried[0] if slot.crashes or slot.steady else None
        chute = next((one for one in tried if self._wants(one, now)), fallback)
        if chute is None:
            slot.waits = min(2 * slot.waits, _LONGEST_WAIT)
            self._at(now + draw.uniform(1, 2) * slot.waits, lambda at: self._launch(slot, at))
            return
        slot.count += 1
        slot.waits = _SHORTEST_WAIT
        verified = now + draw.uniform(1, 5) * MINUTE
        deadline = next_run(min(now + LONGEST_START, verified + LONGEST_INACTIVE), SOFT_PERIOD)
        instance = Instance(
            instance_id=make_uuid(slot.seed, slot.count),
            hotkey=slot.hotkey,
            chute=chute,
            gpus=slot.gpus,
            created_at=now,
            verified_at=verified,
            activated_at=None,
            ended_at=deadline,
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
        self._limit(slot, instance)
        if fate < 0.04 or starts >= instance.ended_at:
            self._at(instance.ended_at, lambda at: self._end(slot, at))
        else:
            self._at(starts, lambda at: self._activate(slot, instance, at))

    def _activate(self, slot: Slot, instance: Instance, now: float) -> None:
        chute, draw = instance.chute, slot.random
        if not slot.steady and not self._admits(chute, now):
            instance.ended_at, instance.end = now, End.REFUSED
            self._end(slot, now)
            return
        bounty = self.bounty(chute, now)
        instance.bounty_boost = 1.0 if bounty is None else bounty_boost(now - bounty.made_at)
        instance.activated_at, instance.ended_at = now, math.inf
        if slot.crashes:
            _cut(instance, now + draw.uniform(5, 20) * MINUTE, End.FAILURES)
        else:
            _serve(instance, now, draw)
        if slot.steady and now >= slot.steady[0]:
            instance.ended_at = max(instance.ended_at, slot.steady[1] + draw.expovariate(1 / (10 * HOUR)))
            instance.disabled_at = None
        if not chute.public:
            _use_privately(instance, now, draw)
        self._limit(slot, instance)
        self._at(instance.ended_at, lambda at: self._end(slot, at))

    def _limit(self, slot: Slot, instance: Instance) -> None:
        """Let the end of a server, of an unsteady time, and an upgrade end an instance."""
        _cut(instance, slot.dies_at, End.FAILURES)
        if slot.steady and (instance.activated_at or instance.created_at) < slot.steady[0]:
            _cut(instance, slot.steady[0], End.SCALED_DOWN if instance.activated_at else End.MINER)
        for upgrade in slot.upgrades:
            if instance.created_at < upgrade.begins_at:
                _cut(instance, upgrade.begins_at, End.MAINTENANCE)

    def _end(self, slot: Slot, now: float) -> None:
        pause = slot.random.uniform(1, 10) * MINUTE
        if not slot.steady and not slot.crashes and slot.random.random() < 0.2:
            pause = slot.random.expovariate(1 / (5 * HOUR))
        self._at(now + pause, lambda at: self._launch(slot, at))


def _cut(instance: Instance, at: float, end: End) -> None:
    """Let an instance end earlier."""
    if at < instance.ended_at:
        instance.ended_at, instance.end = at, end


def _serve(instance: Instance, now: float, draw: random.Random) -> None:
    """Choose the end of an instance that becomes active now."""
    chute = instance.chute
    if draw.random() < 0.05:
        _cut(instance, now + draw.uniform(MINUTE, SECURED_AFTER - MINUTE), draw.choice((End.MINER, End.FAILURES)))
    else:
        end = draw.choices((End.MINER, End.FAILURES, End.SCALED_DOWN), (20, 10, 70))[0]
        _cut(instance, now + _SCALE_DOWN_AFTER + draw.expovariate(1 / (40 * HOUR)), end)
    if draw.random() < 0.03:
        instance.disabled_at = now + draw.uniform(5, 80) * MINUTE
        limit = max(instance.disabled_at, (instance.verified_at or now) + LONGEST_INACTIVE)
        _cut(instance, next_run(limit, SOFT_PERIOD), End.PURGED)
    # A rolling update replaces it some time after a new version.
    replaced = chute.next_deploy(instance.created_at) + draw.uniform(0.02 * HOUR, chute.update_takes)
    _cut(instance, max(replaced, now + MINUTE), End.UPDATED)


def _use_privately(instance: Instance, now: float, draw: random.Random) -> None:
    """Choose the last request to a private instance that becomes active now."""
    instance.shutdown_after = draw.choice((300.0, 900.0, 1800.0))
    instance.last_request = instance.ended_at
    if instance.end is End.SCALED_DOWN:
        # The instance is idle. The service's cron job finds it within a minute.
        instance.end = End.IDLE
        instance.last_request = max(now, last(instance.ended_at, MINUTE))
        instance.ended_at = instance.last_request + instance.shutdown_after + draw.uniform(1, MINUTE)
