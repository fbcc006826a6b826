"""The lives of instances from the launch token to the deletion, and their compute units."""

from __future__ import annotations

import bisect
import enum
import itertools
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from chutes_exporter.simulator.chutes import refreshed
from chutes_exporter.simulator.hardware import MODELS, Registration
from chutes_exporter.simulator.naming import make_random, make_uuid
from chutes_exporter.simulator.times import AUTOSCALER_PERIOD, DAY, HOUR, MINUTE, last, next_run

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

    from chutes_exporter.simulator.chutes import Chute
    from chutes_exporter.simulator.maintenance import Upgrades

SECURED_AFTER = HOUR
"""A public instance that is deleted sooner after its activation loses its score."""
LONGEST_UNVERIFIED = 3.5 * HOUR
"""Instances that are not verified so long after their creation are purged."""
LONGEST_INACTIVE = 3 * HOUR
"""Instances that are not active so long after their verification are purged."""
PAST = 8 * DAY
"""Time before the world's start at which its instances begin."""
# Between these ages after the activation, the multiplier changes to the chute's target.
_UNCHANGED = 2 * HOUR
_BLENDED = 8 * HOUR
_SCALE_DOWN_AFTER = 63 * MINUTE
_PROBE_PERIOD = 7 * MINUTE


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


VALID_ENDS = frozenset({End.SCALED_DOWN, End.UPDATED, End.IDLE, End.MAINTENANCE})
"""Ends after which an instance of any age keeps its score."""


@dataclass(eq=False)
class Gpu:
    """A GPU of a server.

    Attributes:
        uuid: 32 hexadecimal digits, as in the API.
        seed: A number of its registration.
        registrations: The service's records, oldest first. The GPU's slot adds to them.
        grow: Makes the world's past up to a time.
    """

    uuid: str
    model: str
    device_index: int
    server_id: str
    seed: int
    registrations: list[Registration]
    grow: Callable[[float], None] = field(repr=False)

    def registration(self, now: float) -> Registration:
        """Return the service's current record of it."""
        self.grow(now)
        number = bisect.bisect_right(self.registrations, now, key=lambda one: one.since)
        return self.registrations[max(0, number - 1)]

    def verified_at(self, now: float) -> float | None:
        """Return when it passed the verification, or None if it cannot be used."""
        return self.registration(now).verified_at

    def error(self, now: float) -> str | None:
        """Return the text of its last failed verification. The GPU may be usable nevertheless."""
        return self.registration(now).error


@dataclass(eq=False)
class Instance:
    """A chute on some GPUs, from its creation to its end.

    Attributes:
        created_at: When its pod claimed the launch token.
        verified_at: When it is verified, or None.
        activated_at: When it is activated, or None.
        disabled_at: When its miner disables it, or None.
        ended_at: When it is deleted.
        end: Why it is deleted.
        last_request: When a private instance gets its last request. Its billing stops some time later.
        shutdown_after: Seconds without requests after which a private instance is deleted.
        bounty_boost: The factor of the bounty at its activation. 1 without a bounty.
        last_of_chute: Whether its miner deleted it as the chute's last active instance.
    """

    instance_id: str
    hotkey: str
    chute: Chute
    gpus: tuple[Gpu, ...]
    created_at: float
    verified_at: float | None
    activated_at: float | None
    disabled_at: float | None
    ended_at: float
    end: End
    last_request: float | None = None
    shutdown_after: float = 0.0
    bounty_boost: float = 1.0
    last_of_chute: bool = False

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

    def has_bounty(self, now: float) -> bool:
        """Return whether it was activated with a bounty."""
        return self.activated(now) and self.bounty_boost > 1

    def keeps_bounty(self, now: float) -> bool:
        """Return whether its bounty counts. Deleting a chute's last active instance drops it."""
        return self.has_bounty(now) and not (self.last_of_chute and now >= self.ended_at)

    def last_verified_at(self, now: float) -> float | None:
        """Return when it last passed its verification or a round of the prober."""
        if self.verified_at is None or self.verified_at > now:
            return None
        shift = int(self.instance_id[:4], 16) % _PROBE_PERIOD
        until = now if self.disabled_at is None else min(now, self.disabled_at)
        return max(self.verified_at, last(until - shift, _PROBE_PERIOD) + shift)

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

    @cached_property
    def _records(self) -> list[tuple[float, float]]:
        """Start and multiplier of each record until it has reached the target or is deleted."""
        records = [(self.created_at, self.warmup_multiplier)]
        if self.activated_at is None:
            return records
        multiplier = self.launch_multiplier * self.bounty_boost
        records.append((self.activated_at, multiplier))
        run = refreshed(self.activated_at)
        while (run := run + HOUR) < self.ended_at:
            age = run - self.activated_at
            target = self.chute.target(run) if self.chute.public else self.warmup_multiplier
            if age >= _BLENDED:
                records.append((run, target))
                break
            if age >= _UNCHANGED:
                weight = ((age - _UNCHANGED) / (_BLENDED - _UNCHANGED)) ** 2
                multiplier += (target - multiplier) * weight
                records.append((run, multiplier))
        return records

    @cached_property
    def _settled_at(self) -> float:
        """Time from which the multiplier of a public instance follows the chute's target."""
        start = self._records[-1][0]
        reached = self.activated_at is not None and start - self.activated_at >= _BLENDED
        return start if reached and self.chute.public else float("inf")

    def record(self, now: float) -> tuple[float, float]:
        """Return the start and the multiplier of the current record."""
        if now >= self._settled_at:
            run = refreshed(now)
            return run, self.chute.target(run)
        records = self._records
        number = bisect.bisect_right(records, now, key=lambda one: one[0])
        return records[max(0, number - 1)]

    def history(self, now: float) -> list[tuple[float, float | None, float]]:
        """Return the start, end and multiplier of all records so far; the open one has no end.

        There are none before the activation. A record begins where the multiplier changes.
        """
        if not self.activated(now):
            return []
        until = min(now, self.ended_at)
        starts = [start for start, _ in self._records if start <= until]
        run = self._settled_at
        while (run := run + HOUR) <= until:
            starts.append(run)
        found: list[tuple[float, float | None, float]] = []
        for start in starts:
            multiplier = self.record(start)[1]
            if found and found[-1][2] == multiplier:
                continue
            if found:
                found[-1] = (found[-1][0], start, found[-1][2])
            found.append((start, None, multiplier))
        if now >= self.ended_at:
            start, _, multiplier = found[-1]
            # The open record is cut to a tenth where its miner deleted the chute's last active instance.
            found[-1] = (start, self.ended_at, multiplier * (0.1 if self.last_of_chute else 1))
        return found

    def multiplier(self, now: float) -> float:
        """Return the multiplier that the API shows."""
        return self.record(now)[1] if self.activated(now) else self.launch_multiplier

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
        end = self._earning_until(now)
        if end <= max(start, self.created_at):
            return 0.0
        units = self._earned(end) - self._earned(max(start, self.created_at))
        if self.last_of_chute and now >= self.ended_at:
            # The service cuts the open record to a tenth.
            since, multiplier = self.record(end)
            units -= 0.9 * multiplier * (end - max(start, since))
        return units

    @cached_property
    def whole_life(self) -> tuple[float, float]:
        """All its billed seconds and compute units."""
        return self.seconds_within(0, self.ended_at), self.units_within(0, self.ended_at)

    @cached_property
    def _sums(self) -> list[float]:
        sums = [0.0]
        for (start, multiplier), (end, _) in itertools.pairwise(self._records):
            sums.append(sums[-1] + multiplier * (end - start))
        return sums

    def _earned(self, until: float) -> float:
        """Return the compute units from its creation to a time."""
        if until > self._settled_at:
            units = self.chute.target_units
            return self._sums[-1] + units(until) - units(self._settled_at)
        records = self._records
        number = max(0, bisect.bisect_right(records, until, key=lambda one: one[0]) - 1)
        start, multiplier = records[number]
        return self._sums[number] + multiplier * (until - start)


class Slot:
    """A group of GPUs that runs one instance after another. The instances are made when needed.

    Args:
        seed: Seed of its instances.
        hotkey: Its miner.
        gpus: The group.
        chutes: Chutes that can run on it, each using the whole group.
        start: Unix time at which its past begins.
        errors: Texts of failed verifications.
        upgrades: Upgrades of the server, which end its instances. None for a server without any.
    """

    def __init__(
        self,
        seed: str,
        hotkey: str,
        gpus: tuple[Gpu, ...],
        chutes: Sequence[Chute],
        start: float,
        errors: Sequence[str],
        upgrades: Upgrades | None = None,
    ) -> None:
        self._random = make_random(seed)
        self._seed = seed
        self._hotkey = hotkey
        self._gpus = gpus
        self._chutes = chutes
        self._errors = errors
        self._upgrades = upgrades
        self._next = start + self._random.uniform(0, 6 * HOUR)
        self._count = 0

    def grow(self, until: float) -> Iterator[Instance]:
        """Make the missing instances up to a creation time."""
        while self._next <= until:
            instance = self._launch(self._next)
            self._upgrade(instance)
            yield instance
            self._next = self._after_upgrades(self._rest(instance.ended_at))

    def _launch(self, created: float) -> Instance:
        draw = self._random
        chute = draw.choice(self._chutes)
        verified = created + draw.uniform(60, 300)
        self._count += 1
        instance = Instance(
            instance_id=make_uuid(self._seed, self._count),
            hotkey=self._hotkey,
            chute=chute,
            gpus=self._gpus,
            created_at=created,
            verified_at=verified,
            activated_at=None,
            disabled_at=None,
            ended_at=0.0,
            end=End.MINER,
        )
        fate = draw.random()
        if fate < 0.06:
            _fail_to_start(instance, verified, fate, draw)
        else:
            _serve(instance, verified, draw)
        return instance

    def _upgrade(self, instance: Instance) -> None:
        """Let an upgrade of the server end an instance. Nobody launches one during an upgrade."""
        upgrades = [] if self._upgrades is None else self._upgrades.until(instance.ended_at)
        begins = next((one.begins_at for one in upgrades if one.begins_at > instance.created_at), instance.ended_at)
        if begins < instance.ended_at:
            instance.ended_at, instance.end = begins, End.MAINTENANCE
            if instance.verified_at is not None and instance.verified_at > begins:
                instance.verified_at = None
            if instance.activated_at is not None and instance.activated_at > begins:
                instance.activated_at = None

    def _after_upgrades(self, start: float) -> float:
        upgrades = [] if self._upgrades is None else self._upgrades.until(start)
        return max([start, *(one.ends_at + MINUTE for one in upgrades)])

    def _rest(self, ended: float) -> float:
        """Return when the next instance is created. Sometimes the GPUs idle before, or are registered again."""
        draw = self._random
        start = ended + (draw.expovariate(1 / (6 * HOUR)) if draw.random() < 0.25 else draw.uniform(60, 600))
        if draw.random() < 0.08:
            for gpu in self._gpus:
                gpu.registrations += register(ended + 30, None, draw)
            if draw.random() < 0.5:
                failing = draw.choice(self._gpus)
                fixed = ended + draw.uniform(0.7, 10) * HOUR
                del failing.registrations[-1]
                failing.registrations += register(ended + 30, draw.choice(self._errors), draw)[1:]
                failing.registrations.append(Registration(fixed, ended + 30, fixed, None))
                start = max(start, fixed)
            start = max(start, ended + 5 * MINUTE)
        return start


def register(created: float, error: str | None, draw: random.Random) -> list[Registration]:
    """Return the records of a GPU's registration, whose verification passes or fails with an error."""
    checked = created + draw.uniform(60, 120)
    return [
        Registration(created, created, None, None),
        Registration(checked, created, None if error else checked, error),
    ]


def _fail_to_start(instance: Instance, verified: float, fate: float, draw: random.Random) -> None:
    """Let an instance end before it becomes active."""
    if fate < 0.03:
        instance.verified_at = None
        limit = instance.created_at + LONGEST_UNVERIFIED
    elif fate < 0.045:
        limit = verified + LONGEST_INACTIVE
    else:
        instance.ended_at = verified + draw.uniform(120, 2400)
        instance.end = End.REFUSED
        return
    purge = next_run(limit, AUTOSCALER_PERIOD)
    instance.ended_at = min(purge, instance.created_at + draw.uniform(0.4, 5) * HOUR)
    instance.end = End.PURGED if instance.ended_at == purge else End.MINER


def _serve(instance: Instance, verified: float, draw: random.Random) -> None:
    """Let an instance become active, and end later."""
    instance.activated_at = activated = verified + draw.uniform(120, 2400)
    if draw.random() < 0.05:
        instance.ended_at = activated + draw.uniform(60, SECURED_AFTER - 60)
        instance.end = draw.choice((End.MINER, End.FAILURES))
    else:
        instance.ended_at = activated + SECURED_AFTER + draw.expovariate(1 / (30 * HOUR))
        instance.end = draw.choices((End.MINER, End.FAILURES, End.SCALED_DOWN), (40, 15, 45))[0]
        if instance.end is End.SCALED_DOWN:
            instance.ended_at = max(instance.ended_at, activated + _SCALE_DOWN_AFTER)
    if not instance.chute.public:
        _use_privately(instance, activated, draw)
    elif draw.random() < 0.04:
        _disable(instance, verified, activated, draw)
    _update(instance, activated, draw)


def _use_privately(instance: Instance, activated: float, draw: random.Random) -> None:
    instance.shutdown_after = draw.choice((300.0, 900.0, 1800.0))
    instance.last_request = instance.ended_at
    if instance.end is End.SCALED_DOWN or draw.random() < 0.5:
        # The instance is idle. The service's cron job finds it within a minute.
        instance.end = End.IDLE
        instance.last_request = max(activated, last(instance.ended_at, MINUTE))
        instance.ended_at = instance.last_request + instance.shutdown_after + draw.uniform(1, MINUTE)


def _disable(instance: Instance, verified: float, activated: float, draw: random.Random) -> None:
    """Let the miner disable a public instance. Later the miner deletes it, or the service purges it."""
    instance.disabled_at = activated + draw.uniform(5, 80) * MINUTE
    purge = next_run(max(instance.disabled_at, verified + LONGEST_INACTIVE), AUTOSCALER_PERIOD)
    instance.ended_at = min(purge, instance.disabled_at + draw.uniform(0.2, 4) * HOUR)
    instance.end = End.PURGED if instance.ended_at == purge else End.MINER


def _update(instance: Instance, activated: float, draw: random.Random) -> None:
    """Let a rolling update delete an instance after a new version of its chute."""
    chute = instance.chute
    replaced = chute.next_deploy(instance.created_at) + draw.uniform(0.02, chute.update_takes / HOUR) * HOUR
    replaced = max(replaced, activated + MINUTE)
    if replaced < instance.ended_at:
        instance.ended_at = replaced
        instance.end = End.UPDATED
