"""The world behind the simulated API: miners, servers, GPUs, chutes, instances and jobs that change over time.

Everything is a function of the seed and the time. Scores, stats, histories and incentives are computed from the
instances by the service's rules. So all endpoints agree with each other.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from bittensor_core import encode_ss58
from cachetools import LRUCache

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.simulator.chutes import Chute, bounty_boost
from chutes_exporter.simulator.instances import SECURED_AFTER, End, Gpu, Instance
from chutes_exporter.simulator.times import CACHE_PERIOD, SOFT_PERIOD, last, make_random, make_uuid, next_run

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence
    from typing import Final

TEST_SEED: Final = "0xe1816a6cda3a50d041d5e39be76dbbd9367ebf20377a6b9e9ce12c7808385ba3"
"""The invented seed of the first miner. It has no value."""

LONGEST_START: Final = 3.5 * HOUR
"""Instances that are not active so long after their creation are purged."""
LONGEST_INACTIVE: Final = 3 * HOUR
"""Instances that are not active so long after their verification are purged."""
_KEPT: Final = 12 * HOUR
"""The service's decisions do not depend on instances that ended longer ago: it is the longest age of a bounty."""
_JOB_PERIOD: Final = 20 * MINUTE
"""Seconds between two new jobs."""
_OLD_MODELS: Final = ("4090", "a100")
"""Models of the servers and chutes without TEE."""


@dataclass(frozen=True)
class Size:
    """The size of a world. ``servers`` are those of the first miner. The others have at most ``other_servers``."""

    miners: int = 256
    active_miners: int = 32
    chutes: int = 490
    servers: int = 8
    other_servers: int = 10
    source_bytes: int = 1024
    """Size of the readme of each chute."""


@dataclass(frozen=True)
class Server:
    """A machine of a miner, with the version before its upgrade, and the time in which it has an upgrade slot.

    For the first ``pending_for`` seconds in the slot, its maintenance is pending.
    """

    server_id: str
    name: str
    ip: str
    is_tee: bool
    version: str | None
    created_at: float
    updated_at: float | None
    gpus: tuple[Gpu, ...]
    upgrade: tuple[float, float] = (math.inf, math.inf)
    pending_for: float = 0.0

    def maintenance_status(self, now: float) -> str:
        if not self.maintenance_pending(now):
            return "none"
        return "pending" if now < self.upgrade[0] + self.pending_for else "maintenance"

    def maintenance_pending(self, now: float) -> bool:
        return self.upgrade[0] <= now < self.upgrade[1]

    def version_at(self, now: float) -> str | None:
        return World.target_version if self.upgrade[1] <= now else self.version


@dataclass(eq=False)
class Miner:
    """A seat on the subnet and its miner. Its newest server comes first."""

    uid: int
    key: Hotkey
    coldkey: str
    blacklist_reason: str | None
    registered_at: float
    stake: float
    servers: tuple[Server, ...]

    @property
    def hotkey(self) -> str:
        return self.key.address

    @property
    def gpus(self) -> list[Gpu]:
        return [gpu for server in self.servers for gpu in server.gpus]


@dataclass(frozen=True)
class Job:
    """A job as the API lists it at a time. ``tried_by`` are the hotkeys that requested its launch token."""

    job_id: str
    chute: Chute
    created_at: float
    tried_by: tuple[str, ...]
    miner: Miner | None = None
    finished_at: float | None = None
    status: str = "pending"

    @property
    def stuck(self) -> bool:
        return self.finished_at is None and self.miner is not None


class Work(NamedTuple):
    """What the instances that count did in a window, with the API's names."""

    total_instances: int
    bounty_count: int
    compute_seconds: float
    compute_units: float


@dataclass(eq=False)
class Slot:
    """A group of GPUs that runs one instance after another, each of a chute that uses the whole group.

    Attributes:
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
    outages: tuple[tuple[float, float, End], ...]
    random: random.Random
    steady: tuple[float, float] | None = None
    crashes: bool = False
    stuck: bool = False
    count: int = 0

    def limit(self, instance: Instance) -> None:
        """Let outages end an instance."""
        for begins, _, end in self.outages:
            if instance.created_at < begins:
                instance.cut(begins, end)


class World:
    """A simulated subnet. Miners launch instances in the order of time, where the service wants them.

    Somebody looks at it from the start on, which is a Unix time. Its instances begin 8 days earlier.
    """

    chute_names: ClassVar[tuple[str, ...]] = (
        "affine/Affine-5DfhG",
        "affine/Affine-5FQXk",
        "deepseek-ai/DeepSeek-V3.2-TEE",
        "affine/Affine-5HmP2",
        "acme/support-bot",
        "affine/Affine-5GcVw",
        "whisper-large-v3",
        "affine/Affine-5EtRb",
        "mistralai/Mistral-Small-3.2",
        "affine/Affine-5CyNs",
    )
    gpu_errors: ClassVar[tuple[str, ...]] = (
        "GraVal challenge timed out",
        "Device memory is 23.6 GiB, expected 24.0 GiB",
    )
    accepted_versions: ClassVar[tuple[str, ...]] = ("1.3.1", "1.4.0")
    """The versions that TEE servers can boot with."""
    target_version: ClassVar[str] = accepted_versions[-1]
    """The version that the servers are upgraded to in the maintenance window."""
    first_job_miner: ClassVar[int] = 0
    """The first miner that tries jobs."""
    window_opened: ClassVar[float] = 15 * HOUR
    """Seconds before the start at which the window opens. It takes 4 days."""

    def __init__(self, *, seed: int = 64, start: float, size: Size | None = None) -> None:
        self.size = size or Size()
        self.start = start
        self.released_jobs: set[str] = set()
        # The only maintenance window.
        self.window = start - self.window_opened, start - self.window_opened + 4 * DAY
        self._seed = seed
        self._sums: LRUCache[tuple[float, float, bool], dict[tuple[str, str], Work]] = LRUCache(64)
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._instances: defaultdict[str, list[Instance]] = defaultdict(list)
        self._recent: defaultdict[Chute, list[Instance]] = defaultdict(list)
        self.chutes = [self.make_chute(index) for index in range(self.size.chutes)]
        self.miners = [self._miner(uid) for uid in range(self.size.miners)]
        self.by_hotkey = {miner.hotkey: miner for miner in self.miners}
        for miner in self.miners:
            for server in miner.servers:
                for slot in self._slots(miner.uid, miner.hotkey, server):
                    self._at(slot.begins_at, partial(self._launch, slot))

    def _random(self, *parts: object) -> random.Random:
        return make_random(self._seed, *parts)

    def make_chute(self, index: int) -> Chute:
        draw = self._random("chute", index)
        stem = self.chute_names[index % len(self.chute_names)]
        repeat = index // len(self.chute_names)
        tee = index % 40 != 5
        public = index % 10 == 2 or not tee
        models: tuple[str, ...] = ("pro_6000",) if tee else _OLD_MODELS
        if index % 20 == 4:
            models = ("h200",) if index % 40 == 4 else ("b200", "h200")
        gpu_count = draw.choice((1, 1, 1, 2, 4)) if public and tee else 1
        if index % 30 == 2:
            # Few servers can hold it, so there is nearly always a bounty.
            models, gpu_count = ("h200",), 8
        return Chute(
            chute_id=make_uuid(self._seed, "chute", index),
            name=f"{stem}-v{repeat}" if repeat else stem,
            slug=f"chutes-{index}",
            seed=f"{self._seed}/chute/{index}",
            gpu_count=gpu_count,
            models=models,
            public=public,
            tee=tee,
            manual_boost=draw.choice((0.5, 1.75)) if index % 25 == 7 else None,
            scaled=draw.random() < 0.95,
            disabled=draw.random() < 0.04,
            phase=draw.random(),
            popularity=draw.uniform(0.4, 1.5),
            deploy_period=draw.uniform(4, 25) * DAY,
            bounty_period=draw.uniform(3, 12) * HOUR,
        )

    # Miners

    def blacklist_reason(self, uid: int) -> str | None:
        return "Spoofed GPUs" if 0 < uid == self.size.miners - 1 else None

    def _miner(self, uid: int) -> Miner:
        draw = self._random("miner", uid)
        seed = hashlib.sha256(f"{self._seed}/hotkey/{uid}".encode()).hexdigest() if uid else TEST_SEED
        active = uid < self.size.active_miners
        count = self.size.servers if uid == 0 else draw.randint(1, max(1, self.size.other_servers))
        return Miner(
            uid=uid,
            key=Hotkey.from_seed(seed, source="simulator"),
            coldkey=encode_ss58(hashlib.sha256(f"{self._seed}/coldkey/{uid // 3}".encode()).digest()),
            blacklist_reason=self.blacklist_reason(uid),
            registered_at=round(self.start - (draw.uniform(61, 300) if active else draw.uniform(0.1, 90)) * DAY, 6),
            stake=draw.uniform(1, 500) * active,
            servers=self._servers(uid, count) if active else (),
        )

    def _servers(self, uid: int, count: int) -> tuple[Server, ...]:
        servers = [self.make_server(uid, index) for index in range(count)]
        return tuple(sorted(servers, key=lambda server: -server.created_at))

    def make_server(self, uid: int, index: int) -> Server:
        draw = self._random("server", uid, index)
        is_tee = index % 7 != 4
        model = draw.choice(("pro_6000",) * 18 + ("h200", "b200")) if is_tee else draw.choice(_OLD_MODELS)
        server_id = make_uuid(self._seed, "server", uid, index)
        created = self.start - draw.uniform(9, 60) * DAY
        error = draw.choice(self.gpu_errors)
        # The servers of a miner are upgraded one after another. Some miss the window.
        turn = min(12 * HOUR, 4 * DAY / (self.size.other_servers if uid else self.size.servers))
        upgraded = self.window[0] + (index + draw.uniform(0, 0.2)) * turn
        is_upgraded = is_tee and draw.random() < 0.9
        return Server(
            server_id=server_id,
            name=f"{model.replace('_', '-')}-{index}",
            ip=f"198.51.{100 + uid % 100}.{index % 250}",
            is_tee=is_tee,
            version=draw.choice(("1.3.1",) * 5 + ("1.3.0",)) if is_tee else None,
            created_at=created,
            updated_at=created + DAY if is_tee else None,
            gpus=tuple(
                # Only an old GPU without TEE can be unverified.
                self._gpu(server_id, model, device, created, error if not is_tee and draw.random() < 0.4 else None)
                for device in range(draw.choice((4, 8, 8)) if is_tee else 2)
            ),
            upgrade=(upgraded, upgraded + draw.uniform(0.05, 0.2) * turn) if is_upgraded else (math.inf, math.inf),
        )

    def _gpu(self, server_id: str, model: str, device: int, created: float, error: str | None) -> Gpu:
        uuid = make_uuid(server_id, device).replace("-", "")
        return Gpu(uuid, model, device, server_id, created, None if error else created, error)

    def _slots(self, uid: int, hotkey: str, server: Server) -> Iterator[Slot]:
        draw = self._random("slots", server.server_id)
        gpus = [gpu for gpu in server.gpus if gpu.verified_at is not None]
        models = {gpu.model for gpu in gpus}
        chutes = [
            chute
            for chute in self.chutes
            if bool(chute.tee) == server.is_tee and not chute.disabled and models.intersection(chute.models)
        ]
        while fitting := [chute for chute in chutes if chute.gpu_count <= len(gpus)]:
            width = draw.choice(fitting).gpu_count
            seed = f"{self._seed}/slot/{uid}/{server.server_id}/{len(gpus)}"
            yield Slot(
                seed,
                hotkey,
                tuple(gpus[:width]),
                [chute for chute in fitting if chute.gpu_count == width],
                max(server.created_at, self.start - 8 * DAY) + draw.uniform(0, 6 * HOUR),
                ((*server.upgrade, End.MAINTENANCE),),
                make_random(seed),
            )
            del gpus[:width]

    # Instances

    def add(self, instance: Instance) -> None:
        recent = self._recent[instance.chute]
        recent[:] = [*(one for one in recent if one.ended_at > instance.created_at - _KEPT), instance]
        self._instances[instance.hotkey].append(instance)

    def grow(self, until: float) -> None:
        """Make everything that happens up to a time. The first time, it takes seconds in a large world."""
        while self._events and self._events[0][0] <= until:
            now, _, happen = heapq.heappop(self._events)
            happen(now)

    def all_instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        """Return every instance created up to now, of all miners or one, including deleted ones."""
        self.grow(now)
        found = self._instances.values() if hotkey is None else [self._instances[hotkey]]
        return [one for one in itertools.chain.from_iterable(found) if one.created_at <= now]

    def instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        return [instance for instance in self.all_instances(now, hotkey) if now < instance.ended_at]

    def active_counts(self, now: float) -> Counter[Chute]:
        return Counter(one.chute for one in self.instances(now) if one.active(now))

    def bounty_age(self, chute: Chute, now: float) -> float | None:
        """Return the age in seconds of the bounty on offer for a chute, or None. An active instance ends a bounty."""
        made = (math.floor(now / chute.bounty_period - chute.phase) + chute.phase) * chute.bounty_period
        if chute.disabled or now >= made + chute.bounty_lifetime:
            return None
        served = any(one.activated_at <= now and made < one.ended_at for one in self._recent[chute])
        return None if served else now - made

    def target(self, chute: Chute, now: float) -> int:
        """Return how many active instances the autoscaler has last wanted of a chute."""
        run = last(now, SOFT_PERIOD)
        active = sum(one.active(run) for one in self._recent[chute])
        return chute.target_instances(run, active, bounty=self.bounty_age(chute, run) is not None)

    def _wants(self, chute: Chute, now: float) -> bool:
        """Return whether fewer instances are active or starting than the autoscaler has last wanted."""
        existing = sum(now < one.ended_at for one in self._recent[chute])
        # The target, which takes long to find, is at most this number.
        return existing < chute.max_instances and existing < self.target(chute, now)

    def _at(self, time: float, event: Callable[[float], None]) -> None:
        if time < math.inf:
            heapq.heappush(self._events, (time, next(self._order), event))

    def _launch(self, slot: Slot, now: float) -> None:
        draw = slot.random
        for begins, ends, _ in slot.outages:
            if begins <= now < ends:
                self._at(ends + MINUTE, partial(self._launch, slot))
                return
        tried = draw.sample(slot.chutes, len(slot.chutes) if slot.steady else min(4, len(slot.chutes)))
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
            ended_at=next_run(min(now + LONGEST_START, verified + LONGEST_INACTIVE), SOFT_PERIOD),
            end=End.PURGED,
        )
        self.add(instance)
        stuck = slot.stuck and slot.count == 1
        fate = 0.0 if stuck else 1.0 if slot.steady or slot.crashes else draw.random()
        if fate < 0.02:
            instance.verified_at = math.inf
            instance.ended_at = next_run(now + LONGEST_START, SOFT_PERIOD)
        if fate < 0.04 and not stuck:
            instance.cut(now + draw.uniform(0.4, 5) * HOUR, End.MINER)
        starts = verified + draw.uniform(2, 6 if slot.crashes else 40) * MINUTE
        slot.limit(instance)
        if fate < 0.04 or starts >= instance.ended_at:
            self._at(instance.ended_at, partial(self._pause, slot))
        else:
            self._at(starts, partial(self._activate, slot, instance))

    def _activate(self, slot: Slot, instance: Instance, now: float) -> None:
        age = self.bounty_age(instance.chute, now)
        instance.bounty_boost = 1.0 if age is None else bounty_boost(age)
        instance.activated_at, instance.ended_at = now, math.inf
        if slot.crashes:
            instance.cut(now + slot.random.uniform(5, 20) * MINUTE, End.FAILURES)
        else:
            _serve(instance, now, slot.random)
        if slot.steady and now >= slot.steady[0]:
            instance.ended_at = max(instance.ended_at, slot.steady[1] + slot.random.expovariate(1 / (10 * HOUR)))
        slot.limit(instance)
        self._at(instance.ended_at, partial(self._pause, slot))

    def _pause(self, slot: Slot, now: float) -> None:
        pause = slot.random.uniform(1, 10) * MINUTE
        if not slot.steady and not slot.crashes and slot.random.random() < 0.2:
            pause = slot.random.expovariate(1 / (5 * HOUR))
        self._at(now + pause, partial(self._launch, slot))

    # Scores

    def work(self, now: float, seconds: float, *, per_chute: bool = False) -> dict[tuple[str, str], Work]:
        """Return the compute by hotkey and chute id (empty unless per chute).

        The window of some seconds ended at the last refresh of the service's cache.
        """
        until = last(now, CACHE_PERIOD)
        key = until, seconds, per_chute
        if key not in self._sums:
            groups: defaultdict[tuple[str, str], list[Instance]] = defaultdict(list)
            for one in self.all_instances(until):
                if one.ended_at > until - seconds and one.counts(until) and one.seconds_within(until - seconds, until):
                    groups[one.hotkey, one.chute.chute_id if per_chute else ""].append(one)
            self._sums[key] = {
                name: Work(
                    len(group),
                    sum(one.has_bounty(until) for one in group),
                    math.fsum(one.seconds_within(until - seconds, until) for one in group),
                    math.fsum(one.units_within(until - seconds, until) for one in group),
                )
                for name, group in groups.items()
            }
        return self._sums[key]

    def scored(self, now: float) -> dict[str, Work]:
        """Return the compute of the past day of each miner that has a seat and is not blacklisted."""
        return {
            hotkey: entry
            for (hotkey, _), entry in self.work(now, DAY).items()
            if (miner := self.by_hotkey.get(hotkey)) is not None and not miner.blacklist_reason
        }

    def shares(self, now: float) -> dict[str, float]:
        units = {hotkey: entry.compute_units for hotkey, entry in self.scored(now).items()}
        total = math.fsum(units.values())
        return {hotkey: share / total for hotkey, share in units.items()}

    def incentives(self, now: float) -> dict[str, int]:
        """Return the chain's incentive of each seat that has one, 1 to 65535, as set at the last full hour."""
        incentives = {hotkey: int(65535 * share) for hotkey, share in self.shares(last(now, HOUR)).items()}
        return {hotkey: incentive for hotkey, incentive in incentives.items() if incentive}

    def history(self, hotkey: str, now: float) -> list[tuple[float, int, int]]:
        """Return each of 169 full hours of a miner's past week, as last calculated. Empty without a history.

        An hour has its Unix time, the GPUs of the distinct chutes that ran, and the GPUs of all instances.
        """
        at = last(now, CACHE_PERIOD)
        ran = [one for one in self.all_instances(at, hotkey) if one.activated_at <= at]
        rows = []
        for hour in (last(at, HOUR) - age * HOUR for age in range(168, -1, -1) if ran):
            running = [one for one in ran if one.activated_at <= hour < one.ended_at]
            unique = sum(chute.gpu_count for chute in {one.chute for one in running})
            rows.append((hour, unique, sum(len(one.gpus) for one in running)))
        return rows

    # Jobs

    def jobs(self, now: float) -> list[Job]:
        """Return the jobs that the API lists: waiting, stuck and finished ones, but not running ones."""
        numbers = range(math.ceil((self.start - 3 * DAY) / _JOB_PERIOD), int(now // _JOB_PERIOD) + 1)
        jobs = (self._job(number, now) for number in numbers)
        return [replace(job, miner=None) if job.job_id in self.released_jobs else job for job in jobs if job]

    def _job(self, number: int, now: float) -> Job | None:
        """Return the job that is created that many periods after 1970. None while it runs."""
        draw = self._random("job", number)
        created = number * _JOB_PERIOD
        claimed = created + draw.uniform(2 * MINUTE, 3 * HOUR)
        over = claimed + draw.uniform(5 * MINUTE, 6 * HOUR)
        miners = [miner for miner in self.miners if miner.servers][self.first_job_miner :] or self.miners
        tried = draw.sample(miners, min(draw.randint(1, 4), len(miners)))
        hotkeys = tuple(miner.hotkey for miner in tried)
        job = Job(make_uuid(self._seed, "job", number), draw.choice(self.chutes), created, hotkeys[1:])
        if now < over:
            return job if now < claimed else None
        job = replace(job, miner=tried[0], tried_by=hotkeys)
        if draw.random() < 0.06:
            return job
        status = draw.choices(("complete", "partial_failure", "error", "billing_termination"), (75, 8, 14, 3))[0]
        return replace(job, finished_at=over, status=status)


def _serve(instance: Instance, now: float, draw: random.Random) -> None:
    """Choose the end of an instance that becomes active now."""
    if draw.random() < 0.05:
        instance.cut(now + draw.uniform(MINUTE, SECURED_AFTER - MINUTE), draw.choice((End.MINER, End.FAILURES)))
    else:
        unused = End.SCALED_DOWN if instance.chute.public else End.IDLE
        end = draw.choices((End.MINER, End.FAILURES, unused), (20, 10, 70))[0]
        instance.cut(now + 63 * MINUTE + draw.expovariate(1 / (40 * HOUR)), end)
    # A rolling update replaces it some time after a new version.
    chute = instance.chute
    deployed = chute.deployed_at(instance.created_at) + chute.deploy_period
    instance.cut(max(deployed + draw.uniform(0.02, 6) * HOUR, now + MINUTE), End.UPDATED)
