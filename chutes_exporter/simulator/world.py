"""The world behind the simulated API: miners, servers, GPUs, chutes, instances and jobs that change over time.

Everything is a function of the seed and the time. Scores, stats, histories and incentives are computed from the
instances by the service's rules. So all endpoints agree with each other.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from cachetools import LRUCache

from chutes_exporter.api.keys import Hotkey, address_of
from chutes_exporter.simulator.chutes import Chute
from chutes_exporter.simulator.instances import End, Gpu, Instance, Lives, Slot
from chutes_exporter.simulator.times import CACHE_PERIOD, DAY, HOUR, MINUTE, WEEK, last, make_random, make_uuid

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator
    from typing import Final

TEST_SEED: Final = "0xe1816a6cda3a50d041d5e39be76dbbd9367ebf20377a6b9e9ce12c7808385ba3"
"""The invented seed of the first miner. It has no value."""

_JOB_PERIOD: Final = 20 * MINUTE
"""Seconds between two new jobs."""
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
    """A machine of a miner.

    ``version`` is that of a TEE server before its upgrade. ``upgrade`` is the time in which it has an upgrade slot. For
    the first ``pending_for`` seconds, its maintenance is pending.
    """

    server_id: str
    name: str
    ip: str
    is_tee: bool
    version: str | None
    created_at: float
    updated_at: float | None
    gpus: tuple[Gpu, ...]
    upgrade: tuple[float, float] | None = None
    pending_for: float = 0.0

    def maintenance_status(self, now: float) -> str:
        """Return where it is in its maintenance."""
        if self.upgrade is None or not self.maintenance_pending(now):
            return "none"
        return "pending" if now < self.upgrade[0] + self.pending_for else "maintenance"

    def maintenance_pending(self, now: float) -> bool:
        """Return whether it has an upgrade slot."""
        return self.upgrade is not None and self.upgrade[0] <= now < self.upgrade[1]

    def version_at(self, now: float) -> str | None:
        """Return the attested version of a TEE server, None for others."""
        return World.target if self.upgrade is not None and self.upgrade[1] <= now else self.version


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

    @property
    def hotkey(self) -> str:
        """Its address."""
        return self.key.address

    @property
    def gpus(self) -> list[Gpu]:
        """All its GPUs."""
        return [gpu for server in self.servers for gpu in server.gpus]


@dataclass(frozen=True)
class Job:
    """A job as the API lists it at a time.

    Attributes:
        tried_by: The hotkeys that requested its launch token.
        miner: The miner that claimed it. None while it waits.
        finished_at: When it finished. None while it waits, and for a stuck job.
    """

    job_id: str
    chute: Chute
    created_at: float
    tried_by: tuple[str, ...]
    miner: Miner | None = None
    finished_at: float | None = None
    status: str = "pending"

    @property
    def stuck(self) -> bool:
        """Whether its instance is gone, so that the miner that claimed it must release it."""
        return self.finished_at is None and self.miner is not None


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
    accepted_versions: ClassVar[tuple[str, ...]] = ("1.3.1", "1.4.0")
    """The versions that TEE servers can boot with."""
    target: ClassVar[str] = accepted_versions[-1]
    """The version that the servers are upgraded to in the only maintenance window."""
    first_job_miner: ClassVar[int] = 0
    """The UID from which on miners try jobs."""
    window_opened: ClassVar[float] = 15 * HOUR
    """Seconds before the start at which the window opens. It takes 4 days."""

    def __init__(self, *, seed: int = 64, start: float, size: Size | None = None) -> None:
        self.size = size or Size()
        self.start = start
        self.released_jobs: set[str] = set()
        self.lives = Lives()
        self._seed = seed
        self._sums: LRUCache[tuple[float, float, bool], dict[tuple[str, str], Work]] = LRUCache(64)
        self.window = start - self.window_opened, start - self.window_opened + 4 * DAY

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
            manual_boost=draw.choice((0.5, 1.75)) if index % 25 == 7 else None,
            scaled=draw.random() < 0.95,
            disabled=draw.random() < 0.04,
            phase=draw.random(),
            popularity=draw.uniform(0.4, 1.5),
            deploy_period=draw.uniform(4, 25) * DAY,
            bounty_period=draw.uniform(3, 12) * HOUR,
            created_at=self.start - draw.uniform(20, 200) * DAY,
        )

    def bounty_age(self, chute: Chute, now: float) -> float | None:
        """Return the age in seconds of the bounty on offer for a chute, or None."""
        self.grow(now)
        return self.lives.bounty_age(chute, now)

    def active_counts(self, now: float) -> Counter[str]:
        """Return the number of active instances of each chute that has any, by chute id."""
        return Counter(one.chute.chute_id for one in self.instances(now) if one.active(now))

    # Miners

    @cached_property
    def miners(self) -> tuple[Miner, ...]:
        """All miners, by UID. The first has the test seed."""
        return tuple(self._miner(uid) for uid in range(self.size.miners))

    @cached_property
    def by_hotkey(self) -> dict[str, Miner]:
        """All miners, by hotkey."""
        return {miner.hotkey: miner for miner in self.miners}

    def blacklist_reason(self, uid: int) -> str | None:
        """Return why a seat is blacklisted, which only the last one is."""
        return "Spoofed GPUs" if 0 < uid == self.size.miners - 1 else None

    def _miner(self, uid: int) -> Miner:
        draw = self._random("miner", uid)
        seed = hashlib.sha256(f"{self._seed}/hotkey/{uid}".encode()).hexdigest() if uid else TEST_SEED
        coldkey = address_of(hashlib.sha256(f"{self._seed}/coldkey/{uid // 3}".encode()).digest())
        active = uid < self.size.active_miners
        count = self.size.servers if uid == 0 else draw.randint(1, max(1, self.size.other_servers))
        return Miner(
            uid=uid,
            key=Hotkey.from_seed(seed, source="simulator"),
            coldkey=coldkey,
            blacklist_reason=self.blacklist_reason(uid),
            registered_at=round(self.start - (draw.uniform(61, 300) if active else draw.uniform(0.1, 90)) * DAY, 6),
            axon=0 if uid % 5 else int.from_bytes((203, 0, 113, uid % 256)),
            stake=draw.uniform(1, 500) * active,
            servers=self._servers(uid, count) if active else (),
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
            upgrade=(upgraded, upgraded + draw.uniform(0.05, 0.2) * turn) if is_upgraded else None,
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
                max(server.created_at, self.start - 8 * DAY) + draw.uniform(0, 6 * HOUR),
                () if server.upgrade is None else ((*server.upgrade, End.MAINTENANCE),),
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
            for server in miner.servers:
                for slot in self._slots(miner.uid, miner.hotkey, server):
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
        return {hotkey: share / total for hotkey, share in units.items()}

    def incentives(self, now: float) -> dict[str, int]:
        """Return the chain's incentive of each seat that has one, 1 to 65535.

        Weights are set at every full hour.
        """
        incentives = {hotkey: int(65535 * share) for hotkey, share in self.shares(last(now, HOUR)).items()}
        return {hotkey: incentive for hotkey, incentive in incentives.items() if incentive}

    def history(self, hotkey: str, now: float) -> list[tuple[float, int, int]] | None:
        """Return each of 169 full hours of a miner's past week, as last calculated. None without a history.

        An hour has its Unix time, the GPUs of the distinct chutes that ran, and the GPUs of all instances.
        """
        at = last(now, CACHE_PERIOD)
        ran = [one for one in self.all_instances(at, hotkey) if one.activated(at)]
        if not ran:
            return None
        rows = []
        for hour in (last(at, HOUR) - age * HOUR for age in range(168, -1, -1)):
            running = [one for one in ran if one.activated(hour) and hour < one.ended_at]
            unique = sum(chute.gpu_count for chute in {one.chute for one in running})
            rows.append((hour, unique, sum(len(one.gpus) for one in running)))
        return rows

    def prepare(self, now: float) -> None:
        """Compute ahead of time what the first answers need, which takes seconds in a large world."""
        self.work(now, WEEK)
        self.incentives(now)

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
