"""The world behind the simulated API: miners, servers, GPUs, chutes, instances and jobs that change over time.

Everything is a function of the seed and the time. Scores, stats, histories and incentives are computed from the
instances by the service's rules. So all endpoints agree with each other.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from cachetools import LRUCache

from chutes_exporter.api.keys import Hotkey, address_of
from chutes_exporter.simulator.chutes import Chute
from chutes_exporter.simulator.instances import Gpu, Instance
from chutes_exporter.simulator.jobs import PERIOD as JOB_PERIOD
from chutes_exporter.simulator.jobs import Job, job_at
from chutes_exporter.simulator.lives import Bounty, Lives, Slot
from chutes_exporter.simulator.maintenance import OLDEST_TARGET, Upgrade, Window, newest_window, plan_upgrades
from chutes_exporter.simulator.times import (
    CACHE_PERIOD,
    DAY,
    HOUR,
    MINUTE,
    SYNC_PERIOD,
    WEEK,
    last,
    make_random,
    make_uuid,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Final

TEST_SEED: Final = "0xe1816a6cda3a50d041d5e39be76dbbd9367ebf20377a6b9e9ce12c7808385ba3"
"""The invented seed of the first miner. It has no value."""

U16: Final = 65535
"""The maximum of the chain's incentive and consensus."""
PAST: Final = 8 * DAY
"""Time before the world's start at which its instances begin."""
_EPOCH: Final = 72 * MINUTE
_WEIGHTS_DELAY: Final = MINUTE
_JOBS_KEPT: Final = 3 * DAY
_CACHE_SIZE: Final = 64
_OLD_MODELS: Final = ("4090", "a100")
"""Models of the servers and chutes without TEE."""


@dataclass(frozen=True)
class Size:
    """The size of a world: ``servers`` of the first miner, at most ``other_servers`` of each other one.

    The readme of each chute has ``source_bytes`` bytes.
    """

    miners: int = 256
    active_miners: int = 32
    chutes: int = 490
    servers: int = 8
    other_servers: int = 10
    source_bytes: int = 1024


@dataclass(frozen=True)
class Server:
    """A machine of a miner. ``version`` is that of a TEE server before its upgrades. The oldest upgrade is first."""

    server_id: str
    name: str
    ip: str
    is_tee: bool
    version: str | None
    created_at: float
    updated_at: float | None
    gpus: tuple[Gpu, ...]
    upgrades: tuple[Upgrade, ...] = ()

    def maintenance_pending(self, now: float) -> bool:
        """Return whether it has an upgrade slot."""
        return any(one.begins_at <= now < one.ends_at for one in self.upgrades)

    def version_at(self, now: float) -> str | None:
        """Return the attested version of a TEE server, None for others."""
        return next((one.target for one in reversed(self.upgrades) if one.ends_at <= now), self.version)


@dataclass(eq=False)
class Miner:
    """A seat on the subnet and its miner. ``axon`` is the announced address as a number, 0 for none.

    The newest of ``servers`` comes first. An empty ``blacklist_reason`` does not blacklist.
    """

    uid: int
    key: Hotkey
    coldkey: str
    blacklist_reason: str | None
    registered_at: float
    axon: int
    stake: float
    servers: tuple[Server, ...]
    slots: tuple[Slot, ...] = field(repr=False)

    @property
    def hotkey(self) -> str:
        """Its address."""
        return self.key.address

    @property
    def gpus(self) -> list[Gpu]:
        """All its GPUs."""
        return [gpu for server in self.servers for gpu in server.gpus]


@dataclass(frozen=True)
class Work:
    """The counting instances in a window, those with a bounty, and their billed seconds and compute units."""

    instances: int
    bounties: int
    seconds: float
    units: float


class World:
    """A simulated platform. Its past begins more than a week before its start, a Unix time."""

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
    window_opened: ClassVar[float] = 15 * HOUR
    """Seconds before the start at which the first maintenance window opens."""

    def __init__(self, *, seed: int = 64, start: float, size: Size | None = None) -> None:
        self.size = size or Size()
        self.start = start
        self.released_jobs: set[str] = set()
        self.lives = Lives()
        self._seed = seed
        self._active_counts: LRUCache[float, Counter[str]] = LRUCache(_CACHE_SIZE)
        self._sums: LRUCache[tuple[float, float, bool], dict[tuple[str, str], Work]] = LRUCache(_CACHE_SIZE)
        self._histories: LRUCache[tuple[str, float], list[tuple[float, int, int]] | None] = LRUCache(4 * _CACHE_SIZE)

    def _random(self, *parts: object) -> random.Random:
        return make_random(self._seed, *parts)

    # Chutes

    @cached_property
    def chutes(self) -> tuple[Chute, ...]:
        """All chutes."""
        return tuple(self.make_chute(index) for index in range(self.size.chutes))

    def make_chute(self, index: int) -> Chute:
        """Make the chute with a number: nearly all with TEE, most private, and for one GPU of one model."""
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
            official=index % 30 == 16,
            manual_boost=draw.choice((0.5, 1.75)) if index % 25 == 7 else None,
            scaled=draw.random() < 0.95,
            disabled=draw.random() < 0.04,
            phase=draw.random(),
            popularity=draw.uniform(0.4, 1.5),
            deploy_period=draw.uniform(4, 25) * DAY,
            bounty_period=draw.uniform(3, 12) * HOUR,
            created_at=self.start - draw.uniform(20, 200) * DAY,
        )

    def bounty(self, chute: Chute, now: float) -> Bounty | None:
        """Return the bounty on offer for a chute, or None."""
        self.grow(now)
        return self.lives.bounty(chute, now)

    def bounty_age(self, chute: Chute, now: float) -> float | None:
        """Return the age in seconds of the bounty on offer for a chute, or None."""
        bounty = self.bounty(chute, now)
        return None if bounty is None else now - bounty.made_at

    def active_counts(self, now: float) -> Counter[str]:
        """Return the number of active instances of each chute that has any, by chute id."""
        counts = self._active_counts.get(now)
        if counts is None:
            active = (one.chute.chute_id for one in self.instances(now) if one.active(now))
            counts = self._active_counts[now] = Counter(active)
        return counts

    def target_instances(self, chute: Chute, now: float) -> int:
        """Return how many active instances the autoscaler has last wanted of a chute."""
        self.grow(now)
        return self.lives.target(chute, now)

    def updated_chutes(self, now: float) -> list[Chute]:
        """Return the chutes with a rolling update: an active instance has an older version."""
        old = {one.chute for one in self.instances(now) if one.active(now) and one.version != one.chute.version(now)}
        return [chute for chute in self.chutes if chute in old]

    def window(self, now: float) -> Window | None:
        """Return the newest maintenance window, whether it is to come, open or over. None before the first."""
        return newest_window(self.start - self.window_opened, now)

    def accepted_versions(self, now: float) -> tuple[str, ...]:
        """Return the versions that TEE servers can boot with, oldest first."""
        window = self.window(now)
        return (OLDEST_TARGET,) if window is None else (replace(window, number=window.number - 1).target, window.target)

    # Miners

    @cached_property
    def miners(self) -> tuple[Miner, ...]:
        """All miners, by UID. The first has the test seed."""
        return tuple(self._miner(uid) for uid in range(self.size.miners))

    @cached_property
    def by_hotkey(self) -> dict[str, Miner]:
        """All miners, by hotkey."""
        return {miner.hotkey: miner for miner in self.miners}

    def seed_of(self, uid: int) -> str:
        """Return the invented seed of a miner's hotkey, as hexadecimal digits. It has no value."""
        return TEST_SEED if uid == 0 else hashlib.sha256(f"{self._seed}/hotkey/{uid}".encode()).hexdigest()

    def blacklist_reason(self, uid: int) -> str | None:
        """Return why a seat is blacklisted, which only the last one is."""
        return "Spoofed GPUs" if 0 < uid == self.size.miners - 1 else None

    def _miner(self, uid: int) -> Miner:
        draw = self._random("miner", uid)
        key = Hotkey.from_seed(self.seed_of(uid), source="simulator")
        coldkey = address_of(hashlib.sha256(f"{self._seed}/coldkey/{uid // 3}".encode()).digest())
        active = uid < self.size.active_miners
        # If there are seats without servers, two of them are validators, but not the last ones.
        validator = not active and self.size.miners - uid in (3, 4)
        count = self.size.servers if uid == 0 else draw.randint(1, max(1, self.size.other_servers))
        servers = self._servers(uid, count) if active else ()
        return Miner(
            uid=uid,
            key=key,
            coldkey=coldkey,
            blacklist_reason=self.blacklist_reason(uid),
            registered_at=round(self.start - (draw.uniform(61, 300) if active else draw.uniform(0.1, 90)) * DAY, 6),
            axon=int.from_bytes((203, 0, 113, uid % 256)) if validator or draw.random() < 0.2 else 0,
            stake=draw.uniform(2e4, 2e5) if validator else draw.uniform(1, 500) * active,
            servers=servers,
            slots=tuple(slot for server in servers for slot in self._slots(uid, key.address, server)),
        )

    def _servers(self, uid: int, count: int) -> tuple[Server, ...]:
        servers = [self.make_server(uid, index) for index in range(count)]
        return tuple(sorted(servers, key=lambda server: -server.created_at))

    def make_server(self, uid: int, index: int) -> Server:
        """Make the server with a number of a miner: nearly all have TEE, and most have the same model."""
        draw = self._random("server", uid, index)
        is_tee = index % 7 != 4
        model = draw.choice(("pro_6000",) * 18 + ("h200", "b200")) if is_tee else draw.choice(_OLD_MODELS)
        server_id = make_uuid(self._seed, "server", uid, index)
        created = self.start - draw.uniform(9, 60) * DAY
        first = self.start - self.window_opened
        servers = self.size.other_servers if uid else self.size.servers
        error = draw.choice(self.gpu_errors)
        return Server(
            server_id=server_id,
            name=f"{model.replace('_', '-')}-{index}",
            ip=f"198.51.{100 + uid % 100}.{index % 250}",
            is_tee=is_tee,
            version=draw.choice((OLDEST_TARGET,) * 5 + ("1.3.0",)) if is_tee else None,
            created_at=created,
            updated_at=created + DAY if is_tee else None,
            gpus=tuple(
                # Only an old GPU without TEE can be unverified.
                self._gpu(server_id, model, device, created, error if not is_tee and draw.random() < 0.4 else None)
                for device in range(draw.choice((4, 8, 8)) if is_tee else 2)
            ),
            upgrades=plan_upgrades(first, f"{self._seed}/upgrades/{uid}", index, servers) if is_tee else (),
        )

    def _gpu(self, server_id: str, model: str, device: int, created: float, error: str | None) -> Gpu:
        uuid = make_uuid(server_id, device).replace("-", "")
        return Gpu(uuid, model, device, server_id, created, None if error else created, error)

    def _slots(self, uid: int, hotkey: str, server: Server) -> Iterator[Slot]:
        draw = self._random("slots", server.server_id)
        gpus = [gpu for gpu in server.gpus if gpu.verified_at is not None]
        while gpus:
            fitting = [
                chute for chute in self._launchable[gpus[0].model, server.is_tee] if chute.gpu_count <= len(gpus)
            ]
            if not fitting:
                return
            width = draw.choice(fitting).gpu_count
            yield Slot(
                f"{self._seed}/slot/{uid}/{server.server_id}/{len(gpus)}",
                hotkey,
                tuple(gpus[:width]),
                [chute for chute in fitting if chute.gpu_count == width],
                max(server.created_at, self.start - PAST) + draw.uniform(0, 6 * HOUR),
                server.upgrades,
            )
            del gpus[:width]

    @cached_property
    def _launchable(self) -> dict[tuple[str, bool], list[Chute]]:
        """The chutes that can run on a model, on a server with TEE or without."""
        chutes = defaultdict(list)
        for chute in self.chutes:
            for model in () if chute.disabled else chute.models:
                chutes[model, bool(chute.tee)].append(chute)
        return chutes

    # Instances

    @cached_property
    def _growing(self) -> Lives:
        """The instances, which all slots add to."""
        for miner in self.miners:
            for slot in miner.slots:
                self.lives.add_slot(slot)
        return self.lives

    def grow(self, until: float) -> None:
        """Make the instances up to a time, unless they exist."""
        self._growing.grow(until)

    def all_instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        """Return every instance created up to now, of all miners or one, including deleted ones."""
        self.grow(now)
        lives = self.lives.by_hotkey
        return [
            instance
            for instances in (lives.values() if hotkey is None else [lives[hotkey]])
            for instance in instances[: bisect.bisect_right(instances, now, key=lambda one: one.created_at)]
        ]

    def instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        """Return the instances that exist now, of all miners or one."""
        return [instance for instance in self.all_instances(now, hotkey) if now < instance.ended_at]

    # Scores

    def work(
        self, now: float, seconds: float, *, hotkey: str | None = None, per_chute: bool = False
    ) -> dict[tuple[str, str], Work]:
        """Return the compute by hotkey and chute id (empty unless per chute), of all miners or of one.

        The window of some seconds ended at the last refresh of the service's cache.
        """
        key = last(now, CACHE_PERIOD), seconds, per_chute
        if key not in self._sums:
            self._sums[key] = _add_up(self.all_instances(key[0]), key[0] - seconds, key[0], per_chute=per_chute)
        return {name: entry for name, entry in self._sums[key].items() if hotkey in (None, name[0])}

    def scored(self, now: float) -> dict[str, Work]:
        """Return the compute of the past day of each miner that is not blacklisted, which makes the scores."""
        return {
            hotkey: entry
            for (hotkey, _), entry in self.work(now, DAY).items()
            if not self.by_hotkey[hotkey].blacklist_reason
        }

    def shares(self, now: float) -> dict[str, float]:
        """Return each scored miner's share of the compute units of the past day, as last calculated."""
        units = {hotkey: entry.units for hotkey, entry in self.scored(now).items()}
        total = math.fsum(units.values())
        return {hotkey: share / total if total else 1 / len(units) for hotkey, share in units.items()}

    def incentives(self, now: float) -> dict[str, int]:
        """Return the chain's incentive of each seat that has one, 1 to 65535.

        Weights are set at every full hour. The chain uses them from its next epoch on, and the service from its next
        sync on.
        """
        epoch = last(last(now, SYNC_PERIOD), _EPOCH)
        weights = last(epoch - _WEIGHTS_DELAY, HOUR)
        incentives = {hotkey: int(share * U16) for hotkey, share in self.shares(weights).items()}
        return {hotkey: incentive for hotkey, incentive in incentives.items() if incentive}

    def history(self, hotkey: str, now: float) -> list[tuple[float, int, int]] | None:
        """Return each of 169 full hours of a miner's past week, as last calculated. None without a history.

        An hour has its Unix time, the GPUs of the distinct chutes that ran, and the GPUs of all instances.
        """
        at = last(now, CACHE_PERIOD)
        instances = [one for one in self.all_instances(at, hotkey) if one.activated(at)]
        if not instances:
            return None
        key = hotkey, at
        if key not in self._histories:
            self._histories[key] = _count_hours(instances, at)
        return self._histories[key]

    def prepare(self, now: float) -> None:
        """Compute ahead of time what the first answers need, which takes seconds in a large world."""
        self.work(now, WEEK)
        self.incentives(now)

    # Jobs

    def job_miners(self) -> list[Miner]:
        """Return the miners that try jobs."""
        return [miner for miner in self.miners if miner.servers] or list(self.miners)

    def jobs(self, now: float) -> list[Job]:
        """Return the jobs that the API lists: waiting, stuck and finished ones, but not running ones."""
        miners = self.job_miners()
        numbers = range(math.ceil((self.start - _JOBS_KEPT) / JOB_PERIOD), int(now // JOB_PERIOD) + 1)
        jobs = (job_at(now, str(self._seed), number, self.chutes, miners) for number in numbers)
        return [replace(job, miner=None) if job.job_id in self.released_jobs else job for job in jobs if job]

    def release_job(self, job_id: str, hotkey: str, now: float) -> Job | None:
        """Let a stuck job of a miner wait again. Return None if it is not stuck, or somebody else's."""
        for job in self.jobs(now):
            if job.job_id == job_id and job.stuck and job.miner is not None and job.miner.hotkey == hotkey:
                self.released_jobs.add(job_id)
                return job
        return None


def _add_up(instances: Iterable[Instance], start: float, now: float, *, per_chute: bool) -> dict[tuple[str, str], Work]:
    groups: defaultdict[tuple[str, str], list[Instance]] = defaultdict(list)
    for one in instances:
        if one.ended_at > start and one.counts(now) and one.seconds_within(start, now):
            groups[one.hotkey, one.chute.chute_id if per_chute else ""].append(one)
    return {
        key: Work(
            len(group),
            sum(one.has_bounty(now) for one in group),
            math.fsum(one.seconds_within(start, now) for one in group),
            math.fsum(one.units_within(start, now) for one in group),
        )
        for key, group in groups.items()
    }


def _count_hours(instances: Sequence[Instance], at: float) -> list[tuple[float, int, int]]:
    newest = last(at, HOUR)
    oldest = newest - WEEK
    totals: Counter[float] = Counter()
    chutes: dict[float, dict[str, int]] = defaultdict(dict)
    for instance in instances:
        activated, ended = instance.activated_at or 0, min(instance.ended_at, at)
        if instance.chute.public and ended - activated < HOUR:
            continue
        hour = max(oldest, math.ceil(activated / HOUR) * HOUR)
        while hour <= newest and hour < instance.ended_at:
            totals[hour] += len(instance.gpus)
            chutes[hour][instance.chute.chute_id] = instance.chute.gpu_count
            hour += HOUR
    hours = [oldest + number * HOUR for number in range(169)]
    return [(hour, sum(chutes[hour].values()), totals[hour]) for hour in hours]
