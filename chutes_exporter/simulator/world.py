"""The world behind the simulated API: miners, servers, GPUs, chutes, instances and jobs that change over time.

Everything is a function of the seed and the time. The order of questions does not matter. Each slot (a group of GPUs of
a server) makes its instances with a random process. Scores, stats, histories and incentives are computed from the
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
from chutes_exporter.simulator.chutes import Chute, bounty_boost
from chutes_exporter.simulator.hardware import MODELS
from chutes_exporter.simulator.instances import PAST, End, Gpu, Instance, Slot, register
from chutes_exporter.simulator.jobs import PERIOD as JOB_PERIOD
from chutes_exporter.simulator.jobs import Job, JobLife, make_job
from chutes_exporter.simulator.maintenance import Upgrades, Window, latest_window
from chutes_exporter.simulator.naming import make_random, make_uuid
from chutes_exporter.simulator.times import AUTOSCALER_PERIOD, CACHE_PERIOD, DAY, HOUR, MINUTE, SYNC_PERIOD, WEEK, last

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "DAY",
    "HOUR",
    "TEST_SEED",
    "WEEK",
    "Bounty",
    "Chute",
    "Gpu",
    "Instance",
    "Job",
    "Miner",
    "Server",
    "Size",
    "Update",
    "Window",
    "Work",
    "World",
]

TEST_SEED = "0xe1816a6cda3a50d041d5e39be76dbbd9367ebf20377a6b9e9ce12c7808385ba3"
"""The invented seed of the first miner. It has no value."""

U16 = 65535
"""The maximum of the chain's incentive and consensus."""
_EPOCH = 72 * MINUTE
_WEIGHTS_DELAY = MINUTE
_JOBS_KEPT = 3 * DAY
_GROWTH_STEP = 6 * HOUR
_CACHE_SIZE = 256

_CHUTE_NAMES = (
    "deepseek-ai/DeepSeek-V3.2",
    "moonshotai/Kimi-K2-Instruct",
    "Qwen/Qwen3-Next-80B",
    "zai-org/GLM-4.6",
    "openai/gpt-oss-120b",
    "BAAI/bge-m3",
    "whisper-large-v3",
    "kokoro",
    "FLUX.1-schnell",
    "mistralai/Mistral-Small-3.2",
)


@dataclass(frozen=True)
class Size:
    """The size of a world.

    Attributes:
        miners: Seats on the subnet.
        active_miners: Miners with servers.
        chutes: Chutes of the platform.
        servers: Servers of the first miner.
        other_servers: Maximum servers of another miner.
        source_bytes: Bytes of each chute's code or readme.
    """

    miners: int = 256
    active_miners: int = 100
    chutes: int = 300
    servers: int = 13
    other_servers: int = 28
    source_bytes: int = 4096


@dataclass(frozen=True)
class Server:
    """A machine of a miner.

    Attributes:
        version: The attested version of a TEE server before its upgrades, None for others.
        upgrades: The upgrades of a TEE server, None for others.
    """

    server_id: str
    name: str
    ip: str
    is_tee: bool
    version: str | None
    created_at: float
    updated_at: float | None
    gpus: tuple[Gpu, ...]
    upgrades: Upgrades | None = None

    def maintenance_pending(self, now: float) -> bool:
        """Return whether it has an upgrade slot. Only one TEE server of a miner has one at a time."""
        return self.upgrades is not None and self.upgrades.under_way(now)

    def version_at(self, now: float) -> str | None:
        """Return the attested version of a TEE server, None for others."""
        return self.version if self.upgrades is None else self.upgrades.version_at(now)


@dataclass(eq=False)
class Miner:
    """A seat on the subnet and its miner.

    Attributes:
        blacklist_reason: Why it is blacklisted. None or empty if it is not.
        registered_at: When the service first saw it in its seat.
        validator: Whether it is a validator, with much stake and no incentive.
        axon: The announced address as a number, 0 for none.
        servers: Newest first.
    """

    uid: int
    key: Hotkey
    coldkey: str
    blacklist_reason: str | None
    registered_at: float
    validator: bool
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
    """The compute in a window.

    Attributes:
        instances: Counting instances.
        bounties: Counting instances that were activated with a bounty.
        seconds: Their billed seconds.
        units: Their compute units: each second times its multiplier.
    """

    instances: int
    bounties: int
    seconds: float
    units: float


@dataclass(frozen=True)
class Bounty:
    """A bounty on offer.

    Attributes:
        made_at: When it was created.
        ends_at: When it is claimed, or expires.
        expires_at: When it expires unless it is claimed.
    """

    made_at: float
    ends_at: float
    expires_at: float


@dataclass(frozen=True)
class Update:
    """A rolling update of a chute.

    Attributes:
        chute: The chute.
        started_at: When its new version was deployed.
        permitted: Instances of each miner at that time, by hotkey.
    """

    chute: Chute
    started_at: float
    permitted: dict[str, int]


class World:
    """A simulated platform.

    Args:
        seed: Seed of everything in the world.
        start: Unix time around which the world is built. Its past begins more than a week before.
        size: Its size.

    Attributes:
        released_jobs: Ids of released jobs, which wait again.
    """

    chute_names: ClassVar[tuple[str, ...]] = _CHUTE_NAMES
    gpu_errors: ClassVar[tuple[str, ...]] = (
        "GraVal challenge timed out",
        "Device memory is 23.6 GiB, expected 24.0 GiB",
    )

    def __init__(self, *, seed: int = 64, start: float, size: Size | None = None) -> None:
        self.size = size or Size()
        self.start = start
        self.released_jobs: set[str] = set()
        self._seed = seed
        self._grown_until = float("-inf")
        self._lives: dict[str, list[Instance]] = {}
        self._offers: dict[str, list[Bounty]] = {}
        self._active_counts: LRUCache[float, Counter[str]] = LRUCache(_CACHE_SIZE)
        self._job_lives: dict[int, JobLife] = {}
        self._sums: LRUCache[tuple[float, float], dict[tuple[str, str], Work]] = LRUCache(_CACHE_SIZE)
        self._shares: LRUCache[float, dict[str, float]] = LRUCache(_CACHE_SIZE)
        self._histories: LRUCache[tuple[str, float], list[tuple[float, int, int]] | None] = LRUCache(_CACHE_SIZE)

    def _random(self, *parts: object) -> random.Random:
        return make_random(self._seed, *parts)

    # Chutes

    @cached_property
    def chutes(self) -> tuple[Chute, ...]:
        """All chutes."""
        return tuple(self.make_chute(index) for index in range(self.size.chutes))

    def make_chute(self, index: int) -> Chute:
        """Make the chute with a number."""
        draw = self._random("chute", index)
        stem = self.chute_names[index % len(self.chute_names)]
        repeat = index // len(self.chute_names)
        public = draw.random() < 0.88
        return Chute(
            chute_id=make_uuid(self._seed, "chute", index),
            user_id=make_uuid(self._seed, "user", index % 40),
            name=f"{stem}-v{repeat}" if repeat else stem,
            slug=f"chutes-{index}",
            seed=f"{self._seed}/chute/{index}",
            gpu_count=draw.choice((1, 1, 1, 2, 4, 8)),
            models=tuple(draw.sample(list(MODELS), 3)),
            public=public,
            tee=draw.random() < 0.1,
            integrated=draw.random() < 0.2,
            manual_boost=draw.choice((0.5, 1.75)) if draw.random() < 0.03 else None,
            scaled=draw.random() < 0.95,
            disabled=draw.random() < 0.08,
            real_code=draw.random() < 0.5,
            phase=draw.random(),
            popularity=draw.uniform(0.1, 1.3),
            deploy_period=draw.uniform(4, 25) * DAY,
            bounty_period=draw.uniform(4, 30) * HOUR,
            created_at=self.start - draw.uniform(20, 200) * DAY,
            past_begins=self.start - PAST - DAY,
        )

    def bounty(self, chute: Chute, now: float) -> Bounty | None:
        """Return the bounty on offer for a chute, or None."""
        self.grow(now)
        offers = self._offers[chute.chute_id]
        number = bisect.bisect_right(offers, now, key=lambda offer: offer.made_at)
        return offers[number - 1] if number and now < offers[number - 1].ends_at else None

    def bounty_age(self, chute: Chute, now: float) -> float | None:
        """Return the age in seconds of the bounty on offer for a chute, or None."""
        bounty = self.bounty(chute, now)
        return None if bounty is None else now - bounty.made_at

    def lost_bounty(self, now: float) -> tuple[str, Bounty] | None:
        """Return the id of a deleted chute and its remaining bounty, which exists for half of each day."""
        made = last(now, DAY)
        bounty = Bounty(made, made + DAY / 2, made + DAY / 2)
        return (make_uuid(self._seed, "gone", int(made // DAY)), bounty) if now < bounty.ends_at else None

    def active_counts(self, now: float) -> Counter[str]:
        """Return the number of active instances of each chute that has any, by chute id."""
        found = self._active_counts.get(now)
        if found is None:
            active = (one.chute.chute_id for one in self.instances(now) if one.active(now))
            found = self._active_counts[now] = Counter(active)
        return found

    def target_instances(self, chute: Chute, now: float) -> int:
        """Return how many active instances the autoscaler has last wanted of a chute."""
        run = last(now, AUTOSCALER_PERIOD)
        bounty = self.bounty(chute, run) is not None
        return chute.target_instances(run, self.active_counts(run)[chute.chute_id], bounty=bounty)

    def rolling_updates(self, now: float) -> list[Update]:
        """Return the rolling updates: each lasts until the autoscaler finds no active instance of an older version."""
        run = last(now, AUTOSCALER_PERIOD)
        deployed = {
            chute.chute_id: chute.deployed_at(now)
            for chute in self.chutes
            if chute.created_at < chute.deployed_at(now) and now < chute.deployed_at(now) + chute.update_takes
        }
        permitted: dict[str, Counter[str]] = {chute_id: Counter() for chute_id in deployed}
        left: set[str] = set()
        for one in self.all_instances(now):
            chute_id = one.chute.chute_id
            if chute_id in deployed and one.exists(deployed[chute_id]):
                permitted[chute_id][one.hotkey] += 1
                if run <= deployed[chute_id] or one.active(run):
                    left.add(chute_id)
        return [
            Update(chute, deployed[chute.chute_id], dict(permitted[chute.chute_id]))
            for chute in self.chutes
            if chute.chute_id in left
        ]

    def window(self, now: float) -> Window | None:
        """Return the maintenance window that is open, or None."""
        newest = latest_window(self.start, now)
        return newest if newest is not None and now < newest.closes_at else None

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

    def _validates(self, uid: int) -> bool:
        # If there are seats without servers, two of them are validators, but not the last ones.
        return uid >= self.size.active_miners and self.size.miners - uid in (3, 4)

    def _miner(self, uid: int) -> Miner:
        draw = self._random("miner", uid)
        key = Hotkey.from_seed(self.seed_of(uid), source="simulator")
        coldkey = address_of(hashlib.sha256(f"{self._seed}/coldkey/{uid // 3}".encode()).digest())
        active = uid < self.size.active_miners
        validator = self._validates(uid)
        servers: tuple[Server, ...] = ()
        if active:
            count = self.size.servers if uid == 0 else draw.randint(1, max(1, self.size.other_servers))
            servers = self._servers(uid, count)
        return Miner(
            uid=uid,
            key=key,
            coldkey=coldkey,
            blacklist_reason=self.blacklist_reason(uid),
            registered_at=round(self.start - (draw.uniform(61, 300) if active else draw.uniform(0.1, 90)) * DAY, 6),
            validator=validator,
            axon=int.from_bytes((203, 0, 113, uid % 256)) if validator or draw.random() < 0.2 else 0,
            stake=draw.uniform(2e4, 2e5) if validator else draw.uniform(1, 500) * active,
            servers=servers,
            slots=tuple(self._slots(uid, key.address, servers)),
        )

    def _servers(self, uid: int, count: int) -> tuple[Server, ...]:
        servers = [self.make_server(uid, index) for index in range(count)]
        upgrades = {
            server.server_id: Upgrades(self.start, f"{self._seed}/maintenance/{uid}", number, server.version)
            for number, server in enumerate(server for server in servers if server.is_tee)
            if server.version is not None
        }
        servers = [replace(server, upgrades=upgrades.get(server.server_id)) for server in servers]
        return tuple(sorted(servers, key=lambda server: -server.created_at))

    def make_server(self, uid: int, index: int) -> Server:
        """Make the server with a number of a miner."""
        draw = self._random("server", uid, index)
        model = draw.choice(list(MODELS))
        server_id = make_uuid(self._seed, "server", uid, index)
        created = self.start - draw.uniform(9, 60) * DAY
        is_tee = draw.random() < 0.2
        version = draw.choice(("0.2.9", "0.3.0"))
        return Server(
            server_id=server_id,
            name=f"{model.replace('_', '-')}-{index}",
            ip=f"198.51.{100 + uid % 100}.{index % 250}",
            is_tee=is_tee,
            version=version if is_tee else None,
            created_at=created,
            updated_at=created + DAY if is_tee else None,
            gpus=tuple(
                self._gpu(server_id, model, device, created, draw) for device in range(draw.choice((1, 2, 4, 8, 8)))
            ),
        )

    def _gpu(self, server_id: str, model: str, device: int, created: float, draw: random.Random) -> Gpu:
        registrations = register(created, None, draw)
        if draw.random() < 0.02:
            # A second verification failed. The GPU can still be used.
            since = registrations[-1].since + draw.uniform(1, 5) * DAY
            error = draw.choice(self.gpu_errors)
            registrations.append(replace(registrations[-1], since=since, error=error))
        return Gpu(
            uuid=make_uuid(server_id, device).replace("-", ""),
            model=model,
            device_index=device,
            server_id=server_id,
            seed=draw.getrandbits(63),
            registrations=registrations,
            grow=self.grow,
        )

    def _slots(self, uid: int, hotkey: str, servers: Sequence[Server]) -> Iterator[Slot]:
        for server in servers:
            draw = self._random("slots", server.server_id)
            position = 0
            while position < len(server.gpus):
                left = len(server.gpus) - position
                fitting = {width: self._fitting(server, width) for width in (1, 2, 4, 8) if width <= left}
                width = draw.choice([width for width, chutes in fitting.items() if chutes] or [1])
                gpus = server.gpus[position : position + width]
                position += width
                chutes, fate = fitting[width], draw.random()
                if fate < 0.02:
                    # These GPUs never passed the verification.
                    for gpu in gpus:
                        gpu.registrations[:] = register(server.created_at, draw.choice(self.gpu_errors), draw)
                elif fate > 0.05 and chutes:
                    yield Slot(
                        f"{self._seed}/slot/{uid}/{server.server_id}/{position}",
                        hotkey,
                        gpus,
                        chutes,
                        self.start - PAST,
                        self.gpu_errors,
                        server.upgrades,
                    )

    def _fitting(self, server: Server, width: int) -> list[Chute]:
        """Return the chutes that a group of a server's GPUs can run."""
        model = server.gpus[0].model
        return [chute for chute in self._launchable.get((width, model), ()) if server.is_tee or not chute.tee]

    @cached_property
    def _launchable(self) -> dict[tuple[int, str], list[Chute]]:
        found = defaultdict(list)
        for chute in self.chutes:
            for model in () if chute.disabled else chute.models:
                found[chute.gpu_count, model].append(chute)
        return found

    # Instances

    def grow(self, until: float) -> None:
        """Make the instances and bounties up to a time, unless they exist."""
        if until <= self._grown_until:
            return
        before, self._grown_until = self._grown_until, (until // _GROWTH_STEP + 1) * _GROWTH_STEP
        for miner in self.miners:
            lives = self._lives.setdefault(miner.hotkey, [])
            for slot in miner.slots:
                lives += slot.grow(self._grown_until)
            lives.sort(key=lambda one: (one.created_at, one.instance_id))
        by_chute: dict[str, list[Instance]] = {chute.chute_id: [] for chute in self.chutes}
        for lives in self._lives.values():
            for instance in lives:
                if instance.activated(self._grown_until):
                    by_chute[instance.chute.chute_id].append(instance)
        for chute in self.chutes:
            activated = sorted(by_chute[chute.chute_id], key=lambda one: one.activated_at or 0)
            self._offers[chute.chute_id] = _offers(chute, activated, self._grown_until)
            for instance in activated:
                if instance.end is End.MINER and before < instance.ended_at <= self._grown_until:
                    instance.last_of_chute = not any(
                        other is not instance and other.active(instance.ended_at) for other in activated
                    )

    def all_instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        """Return every instance created up to now, of all miners or one, including deleted ones."""
        self.grow(now)
        lists = self._lives.values() if hotkey is None else [self._lives[hotkey]]
        return [
            instance
            for lives in lists
            for instance in lives[: bisect.bisect_right(lives, now, key=lambda one: one.created_at)]
        ]

    def instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        """Return the instances that exist now, of all miners or one."""
        return [instance for instance in self.all_instances(now, hotkey) if now < instance.ended_at]

    # Scores

    def sums(self, now: float, seconds: float) -> dict[tuple[str, str], Work]:
        """Return the compute of every miner on every chute in the window that ends now, by hotkey and chute id."""
        found = self._sums.get((now, seconds))
        if found is None:
            found = self._sums[now, seconds] = _add_up(self.all_instances(now), now - seconds, now)
        return found

    def work(
        self,
        now: float,
        seconds: float,
        *,
        hotkey: str | None = None,
        per_chute: bool = False,
        cached: bool = True,
    ) -> dict[tuple[str, str], Work]:
        """Return the compute in a window.

        Args:
            now: Unix time.
            seconds: Length of the window.
            hotkey: A miner, or None for all.
            per_chute: Whether each chute has its own entry.
            cached: Whether the window ends at the last refresh of the service's cache, not now.

        Returns:
            Work by hotkey and chute id (empty unless per chute). Miners without compute have no entry.
        """
        sums = self.sums(last(now, CACHE_PERIOD) if cached else now, seconds)
        if hotkey is not None:
            sums = {key: entry for key, entry in sums.items() if key[0] == hotkey}
        return sums if per_chute else _by_miner(sums)

    def scored(self, now: float) -> dict[str, Work]:
        """Return the compute of the past day of each miner that is not blacklisted, which makes the scores."""
        return {
            hotkey: entry
            for (hotkey, _), entry in self.work(now, DAY).items()
            if not self.by_hotkey[hotkey].blacklist_reason
        }

    def shares(self, now: float) -> dict[str, float]:
        """Return each scored miner's share of the compute units of the past day, as last calculated."""
        now = last(now, CACHE_PERIOD)
        shares = self._shares.get(now)
        if shares is None:
            scored = self.scored(now)
            total = math.fsum(entry.units for entry in scored.values())
            shares = self._shares[now] = {
                hotkey: entry.units / total if total else 1 / len(scored) for hotkey, entry in scored.items()
            }
        return shares

    def incentives(self, now: float) -> dict[str, int]:
        """Return the chain's incentive of each seat that has one, 1 to 65535.

        Weights are set at every full hour. The chain turns them into incentives at its next epoch. The service reads
        these with its next sync. A share is rounded down.
        """
        epoch = last(last(now, SYNC_PERIOD), _EPOCH)
        weights = last(epoch - _WEIGHTS_DELAY, HOUR)
        incentives = {hotkey: int(share * U16) for hotkey, share in self.shares(weights).items()}
        return {hotkey: incentive for hotkey, incentive in incentives.items() if incentive}

    def history(self, hotkey: str, now: float) -> list[tuple[float, int, int]] | None:
        """Return a miner's past week as last calculated.

        Returns:
            For each of 169 full hours, oldest first: its Unix time, the GPUs of the distinct chutes that ran, and the
            GPUs of all instances. After a week without activity, the list stays as it is. None without a history.
        """
        at = last(now, CACHE_PERIOD)
        instances = [one for one in self.all_instances(at, hotkey) if one.activated(at)]
        if not instances:
            return None
        at = min(at, last(max(one.ended_at for one in instances) + WEEK, CACHE_PERIOD))
        key = hotkey, at
        if key not in self._histories:
            self._histories[key] = _count_hours(instances, at)
        return self._histories[key]

    def prepare(self, now: float) -> None:
        """Compute ahead of time what the first answers need, which takes seconds in a large world."""
        for seconds in (HOUR, DAY, WEEK):
            self.work(now, seconds)
        self.incentives(now)

    # Jobs

    def _jobs(self, now: float) -> Iterator[JobLife]:
        miners = [miner for miner in self.miners if miner.servers] or list(self.miners)
        for number in range(math.ceil((self.start - _JOBS_KEPT) / JOB_PERIOD), int(now // JOB_PERIOD) + 1):
            life = self._job_lives.get(number)
            if life is None:
                life = self._job_lives[number] = make_job(str(self._seed), number, self.chutes, miners)
            yield life

    def jobs(self, now: float) -> list[Job]:
        """Return the jobs that the API lists: waiting, stuck and finished ones, but not running ones."""
        listed = []
        for life in self._jobs(now):
            job = life.waiting if life.waiting.job_id in self.released_jobs else life.listed(now)
            if job is not None:
                listed.append(job)
        return listed

    def release_job(self, job_id: str, hotkey: str, now: float) -> Job | None:
        """Release an unfinished job of a miner, so that it waits again.

        Returns:
            The job, or None if it is finished or does not belong to the miner.
        """
        for life in self._jobs(now):
            if life.waiting.job_id == job_id and job_id not in self.released_jobs:
                miner = life.claimed_by(now)
                if miner is not None and miner.hotkey == hotkey:
                    self.released_jobs.add(job_id)
                    return life.waiting
        return None


def _offers(chute: Chute, activated: Sequence[Instance], until: float) -> list[Bounty]:
    """Return the bounties of a chute up to a time, and give each to the first instance activated during it.

    There is one at a time, and none for ten minutes after a claim.
    """
    lifetime = DAY if chute.public else HOUR
    offers: list[Bounty] = []
    number = math.ceil(chute.past_begins / chute.bounty_period)
    free_from, position = chute.past_begins, 0
    while (made := (number + chute.phase) * chute.bounty_period) <= until:
        number += 1
        if made < free_from:
            continue
        while position < len(activated) and (activated[position].activated_at or 0) <= made:
            position += 1
        ends = free_from = made + lifetime
        if position < len(activated):
            claimed = activated[position].activated_at or 0
            if claimed < ends:
                activated[position].bounty_boost = bounty_boost(claimed - made)
                ends = claimed
                free_from = claimed + 10 * MINUTE
        offers.append(Bounty(made, ends, made + lifetime))
    return offers


def _add_up(instances: Iterable[Instance], start: float, now: float) -> dict[tuple[str, str], Work]:
    sums: dict[tuple[str, str], list[float]] = {}
    for instance in instances:
        if instance.ended_at <= start or not instance.counts(now):
            continue
        if start <= instance.created_at and instance.ended_at <= now:
            seconds, units = instance.whole_life
        else:
            seconds, units = instance.seconds_within(start, now), instance.units_within(start, now)
        if seconds <= 0:
            continue
        entry = sums.setdefault((instance.hotkey, instance.chute.chute_id), [0, 0, 0.0, 0.0])
        entry[0] += 1
        entry[1] += instance.keeps_bounty(now)
        entry[2] += seconds
        entry[3] += units
    return {key: Work(int(count), int(bounties), *rest) for key, (count, bounties, *rest) in sums.items()}


def _by_miner(sums: dict[tuple[str, str], Work]) -> dict[tuple[str, str], Work]:
    entries: dict[str, list[Work]] = {}
    for (hotkey, _), entry in sums.items():
        entries.setdefault(hotkey, []).append(entry)
    return {
        (hotkey, ""): Work(
            sum(entry.instances for entry in parts),
            sum(entry.bounties for entry in parts),
            math.fsum(entry.seconds for entry in parts),
            math.fsum(entry.units for entry in parts),
        )
        for hotkey, parts in entries.items()
    }


def _count_hours(instances: Iterable[Instance], at: float) -> list[tuple[float, int, int]]:
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
