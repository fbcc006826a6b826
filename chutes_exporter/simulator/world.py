"""The world behind the simulated API: miners, servers, GPUs, chutes, instances and jobs that change
over time.

Everything is a function of the seed and the time. Scores, stats, histories and incentives are
computed from the instances by the service's rules. So all endpoints agree with each other.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from bittensor_core import encode_ss58

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.simulator import service
from chutes_exporter.simulator.chain import Seat, next_seat
from chutes_exporter.simulator.service import (
    Chute,
    End,
    Gpu,
    Instance,
    last_run,
    make_random,
    make_uuid,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    Life = Iterator[float]
    """Something that happens in the world, such as what a group of GPUs runs.

    It yields the Unix time at which it continues. The world then asks for the next one.
    """

TEST_SEED: Final = "0xe1816a6cda3a50d041d5e39be76dbbd9367ebf20377a6b9e9ce12c7808385ba3"
"""The invented seed of the first miner. It has no value."""
_OLD_MODELS: Final = ("4090", "a100")
"""Models of the servers and chutes without TEE."""
_JOB_PERIOD: Final = 20 * MINUTE
"""Seconds from the creation of one job to that of the next."""
_FIRST_JOB_AGE: Final = 3 * DAY
"""Seconds from the creation of the first job to the start."""
Work = dict[tuple[str, str], dict[str, float]]
"""The values of the API's stats, by hotkey and chute id (empty unless per chute)."""


@dataclass(frozen=True)
class Size:
    """The size of a world.

    ``servers`` are those of the first miner. The others have at most ``other_servers``.
    """

    miners: int = 256
    active_miners: int = 32
    chutes: int = 490
    servers: int = 8
    other_servers: int = 10
    source_bytes: int = 1024
    """Size of the readme of each chute."""


@dataclass(frozen=True)
class Server:
    """A machine of a miner.

    Attributes:
        upgrade: Unix times at which its upgrade begins, and at which it has the new version.
            Infinite if it is not upgraded.
        pending_for: Seconds of its upgrade for which its maintenance is pending. Then it is in
            maintenance.
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

    def status(self, now: float) -> str:
        """Return the API's word for its maintenance.

        It is ``none`` outside its upgrade. During it, it is first ``pending``, and then
        ``maintenance``.
        """
        begins_at, ends_at = self.upgrade
        if not begins_at <= now < ends_at:
            return "none"
        return "pending" if now < begins_at + self.pending_for else "maintenance"

    def version_at(self, now: float) -> str | None:
        """Return its version, None without TEE."""
        _, upgraded_at = self.upgrade
        return World.target_version if upgraded_at <= now else self.version


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
        gpus: list[Gpu] = []
        for server in self.servers:
            gpus += server.gpus
        return gpus


@dataclass(frozen=True)
class Job:
    """A job as the API lists it at a time.

    ``tried_by`` are the hotkeys that requested its launch token.
    """

    job_id: str
    chute: Chute
    created_at: float
    tried_by: Sequence[str]
    miner: Miner | None = None
    finished_at: float | None = None
    status: str = "pending"

    @property
    def stuck(self) -> bool:
        return self.finished_at is None and self.miner is not None


class Outage(NamedTuple):
    """A time in which no instance runs on some GPUs, and why it ends the one that runs there."""

    begins_at: float
    ends_at: float
    end: End


class Slot(NamedTuple):
    """A group of GPUs that runs one instance after another.

    Attributes:
        seed: The text that its random numbers and ids of instances depend on.
        chutes: Those of which it runs instances.
        begins_at: Unix time from which on it runs instances.
    """

    seed: str
    hotkey: str
    gpus: tuple[Gpu, ...]
    chutes: Sequence[Chute]
    begins_at: float
    outages: tuple[Outage, ...]

    def launch(self, name: object, chute: Chute, *times: Any) -> Instance:
        """Return a new instance, which ends at the latest when an outage begins.

        ``name`` tells it from the other instances of the slot, and makes its id. ``times`` are the
        fields of Instance from ``created_at`` on.
        """
        instance = Instance(make_uuid(self.seed, name), self.hotkey, chute, self.gpus, *times)
        for outage in self.outages:
            # An earlier outage is over. Only one that begins later ends the instance.
            if instance.created_at < outage.begins_at:
                instance.cut(outage.begins_at, outage.end)
        return instance

    def outage_at(self, now: float) -> Outage | None:
        running = (one for one in self.outages if one.begins_at <= now < one.ends_at)
        return next(running, None)


class World:
    """A simulated subnet.

    Miners launch instances in the order of time, where the service wants them.

    Somebody looks at it from the start on, which is a Unix time. Its instances begin 8 days
    earlier.
    """

    chute_names: ClassVar[tuple[str, ...]] = (
        *(
            "affine/Affine-5DfhG",
            "affine/Affine-5FQXk",
            "deepseek-ai/DeepSeek-V3.2-TEE",
            "affine/Affine-5HmP2",
        ),
        *("acme/support-bot", "affine/Affine-5GcVw", "whisper-large-v3", "affine/Affine-5EtRb"),
        *("mistralai/Mistral-Small-3.2", "affine/Affine-5CyNs"),
    )
    gpu_errors: ClassVar[Sequence[str]] = (
        "GraVal challenge timed out",
        "Device memory is 23.6 GiB, expected 24.0 GiB",
    )
    accepted_versions: ClassVar[tuple[str, ...]] = ("1.3.1", "1.4.0")
    """The versions that TEE servers can boot with.

    In the maintenance window, they are upgraded to the last.
    """
    target_version: ClassVar[str] = accepted_versions[-1]
    unmeasured_hosts: ClassVar[frozenset[tuple[str, str, int]]] = frozenset()
    """Version, model and number of GPUs of hosts that cannot boot with an accepted version."""
    miners_without_jobs: ClassVar[int] = 0
    """Number of miners with servers, from the first one on, that try no jobs."""
    window_age: ClassVar[float] = 15 * HOUR
    """Seconds before the start at which the window opens. It takes 4 days."""
    cooldown: ClassVar[float] = 0.0
    """Seconds for which the service lists a chute of which a miner lost an active instance.

    It was 2 hours until May 2026. Then the service dropped the rule.
    """

    def __init__(self, *, seed: int = 64, start: float, size: Size | None = None) -> None:
        self.size = size or Size()
        self.start = start
        # The ids of stuck jobs that their miners have released.
        self.released_jobs: set[str] = set()
        # When the only maintenance window opens, and when it closes.
        window_opens = start - self.window_age
        self.window = (window_opens, window_opens + 4 * DAY)
        self._seed = seed
        # Cached, because several answers at one time need the stats of the same window.
        self.work = lru_cache(64)(self._work)
        # A heap of lives: when each continues, a number that orders equal times, and the life.
        self._events: list[tuple[float, int, Life]] = []
        self._order = itertools.count()
        # All instances by hotkey, and by chute those that are there or ended a short time ago, on
        # which the service's decisions depend.
        self._instances: defaultdict[str, list[Instance]] = defaultdict(list)
        self._recent: defaultdict[Chute, list[Instance]] = defaultdict(list)
        self.chutes = [self.make_chute(index) for index in range(self.size.chutes)]
        self.miners = [self._miner(uid) for uid in range(self.size.miners)]
        self.by_hotkey = {miner.hotkey: miner for miner in self.miners}
        for miner in self.miners:
            for server in miner.servers:
                for life in self._lives(miner, server):
                    self._continue(life)
        self._continue(self._registrations())

    def make_chute(self, index: int) -> Chute:
        """Make the chute with a number. What its number does not decide is drawn at random.

        Of 40, 35 are private and one has no TEE. A few need dear GPUs, or more than one.
        """
        draw = make_random(self._seed, "chute", index)
        # When all names are taken, they come again with a number.
        repetition, name_index = divmod(index, len(self.chute_names))
        name = self.chute_names[name_index]
        if repetition:
            name += f"-v{repetition}"
        has_tee = index % 40 != 5
        is_public = index % 10 == 2 or not has_tee
        gpu_count = draw.choice((1, 1, 1, 2, 4)) if is_public and has_tee else 1
        models: tuple[str, ...] = ("pro_6000",)
        if index % 30 == 2:
            # Few servers can hold it, so there is nearly always a bounty.
            models, gpu_count = ("h200",), 8
        elif index % 40 == 4:
            models = ("h200",)
        elif index % 20 == 4:
            models = ("b200", "h200")
        elif not has_tee:
            models = _OLD_MODELS
        return Chute(
            chute_id=make_uuid(self._seed, "chute", index),
            name=name,
            slug=f"chutes-{index}",
            seed=f"{self._seed}/chute/{index}",
            gpu_count=gpu_count,
            models=models,
            public=is_public,
            tee=has_tee,
            manual_boost=draw.choice((0.5, 1.75)) if index % 25 == 7 else None,
            scaled=draw.random() < 0.95,
            disabled=draw.random() < 0.04,
            phase=draw.random(),
            popularity=draw.uniform(0.4, 1.5),
            deploy_period=draw.uniform(4, 25) * DAY,
            bounty_period=draw.uniform(3, 12) * HOUR,
            max_instances=20 if is_public else 4,
            bounty_lifetime=DAY if is_public else 2 * HOUR,
        )

    def blacklist_reason(self, uid: int) -> str | None:
        return "Spoofed GPUs" if 0 < uid == self.size.miners - 1 else None

    def _miner(self, uid: int) -> Miner:
        """Make the miner of a seat at the start. The first one has the test key.

        Three miners share a coldkey. Only active ones have servers.
        """
        draw = make_random(self._seed, "miner", uid)
        if uid == 0:
            seed, server_count = TEST_SEED, self.size.servers
        else:
            seed = hashlib.sha256(f"{self._seed}/hotkey/{uid}".encode()).hexdigest()
            server_count = draw.randint(1, max(1, self.size.other_servers))
        coldkey = hashlib.sha256(f"{self._seed}/coldkey/{uid // 3}".encode()).digest()
        is_active = uid < self.size.active_miners
        # Without servers, it earns nothing, and loses its seat within three weeks.
        age_days = draw.uniform(61, 300) if is_active else draw.uniform(0.1, 19)
        return Miner(
            uid=uid,
            key=Hotkey.from_seed(seed, source="simulator"),
            coldkey=encode_ss58(coldkey),
            blacklist_reason=self.blacklist_reason(uid),
            # Answers have times in microseconds.
            registered_at=round(self.start - age_days * DAY, 6),
            stake=draw.uniform(1, 500) if is_active else 0.0,
            servers=self._servers(uid, server_count) if is_active else (),
        )

    def _registrations(self) -> Life:
        """Let newcomers register, one after another. Each takes the seat that the chain chooses.

        Within 512 hours, as many newcomers register as there are seats.
        """
        numbers = itertools.count()
        while True:
            number = next(numbers)
            # The first one comes when three quarters of the time between two are over.
            now = self.start + (0.75 + number) * 512 * HOUR / len(self.miners)
            yield now
            uid = next_seat(self.start, self.seats(now), now)
            del self.by_hotkey[self.miners[uid].hotkey]
            seed = hashlib.sha256(f"{self._seed}/newcomer/{number}".encode())
            newcomer = Miner(
                uid=uid,
                key=Hotkey.from_seed(seed.hexdigest(), source="simulator"),
                coldkey=encode_ss58(seed.digest()),
                blacklist_reason=None,
                registered_at=now,
                stake=0.0,
                servers=(),
            )
            self.miners[uid] = newcomer
            self.by_hotkey[newcomer.hotkey] = newcomer

    def _servers(self, uid: int, count: int) -> tuple[Server, ...]:
        servers = [self.make_server(uid, index) for index in range(count)]
        return tuple(sorted(servers, key=lambda server: -server.created_at))

    def make_server(self, uid: int, index: int) -> Server:
        """Make a server.

        One in seven is old and has no TEE, and some GPUs of these are unverified. Most of the
        others are upgraded in the maintenance window, those of a miner one after another. In
        another order, the same draws would make another world.
        """
        draw = make_random(self._seed, "server", uid, index)
        is_tee = index % 7 != 4
        models = (*18 * ("pro_6000",), "h200", "b200") if is_tee else _OLD_MODELS
        model = draw.choice(models)
        created = self.start - draw.uniform(9, 60) * DAY
        error = draw.choice(self.gpu_errors)
        server_count = self.size.other_servers if uid else self.size.servers
        # Seconds for the upgrade of each server, so that those of a miner fit into the window of 4
        # days.
        turn = min(12 * HOUR, 4 * DAY / server_count)
        upgrade_begins = self.window[0] + (index + draw.uniform(0, 0.2)) * turn
        if not is_tee:
            errors = [error if draw.random() < 0.4 else None for _ in range(2)]
            return self.build_server(uid, index, model, errors, created, None)
        misses_window = draw.random() >= 0.9
        # One in six has a version that cannot boot any more.
        version = draw.choice(("1.3.1",) * 5 + ("1.3.0",))
        gpu_count = draw.choice((4, 8, 8))
        server = self.build_server(uid, index, model, [None] * gpu_count, created, version)
        # The API shows this time once a server's record was changed, here a day later.
        server = replace(server, updated_at=created + DAY)
        if misses_window:
            return server
        upgrade_ends = upgrade_begins + draw.uniform(0.05, 0.2) * turn
        return replace(server, upgrade=(upgrade_begins, upgrade_ends))

    def build_server(
        self,
        uid: int,
        index: int,
        model: str,
        errors: Sequence[str | None],
        created: float,
        version: str | None,
    ) -> Server:
        """Build a server with one GPU for each error. A GPU with None is verified.

        Without a version, it has no TEE. ``created`` is a Unix time.
        """
        server_id = make_uuid(self._seed, "server", uid, index)
        gpus = []
        for device_index, error in enumerate(errors):
            gpu = Gpu(
                # The API writes the ids of GPUs without hyphens.
                uuid=make_uuid(server_id, device_index).replace("-", ""),
                gpu_identifier=model,
                device_index=device_index,
                server_id=server_id,
                verified_at=None if error else created,
                error=error,
            )
            gpus.append(gpu)
        return Server(
            server_id=server_id,
            name=f"{model.replace('_', '-')}-{index}",
            ip=f"198.51.{100 + uid % 100}.{index % 250}",
            is_tee=version is not None,
            version=version,
            created_at=created,
            updated_at=None,
            gpus=tuple(gpus),
        )

    def _lives(self, miner: Miner, server: Server) -> Iterator[Life]:
        """Yield a life for each group of GPUs of a server."""
        for slot in self._slots(miner, server):
            yield self._life(slot)

    def _slots(self, miner: Miner, server: Server) -> Iterator[Slot]:
        """Divide the verified GPUs of a server into groups of the size that a chute needs, until no
        chute fits the GPUs that are left.
        """
        draw = make_random(self._seed, "slots", server.server_id)
        gpus_left = [gpu for gpu in server.gpus if gpu.verified_at is not None]
        chutes = self._chutes_for(gpus_left, is_tee=server.is_tee)
        earliest = max(server.created_at, self.start - 8 * DAY)
        while fitting := [chute for chute in chutes if chute.gpu_count <= len(gpus_left)]:
            gpu_count = draw.choice(fitting).gpu_count
            yield Slot(
                seed=f"{self._seed}/slot/{miner.uid}/{server.server_id}/{len(gpus_left)}",
                hotkey=miner.hotkey,
                gpus=tuple(gpus_left[:gpu_count]),
                chutes=[chute for chute in fitting if chute.gpu_count == gpu_count],
                begins_at=earliest + draw.uniform(0, 6 * HOUR),
                outages=(Outage(*server.upgrade, End.MAINTENANCE),),
            )
            del gpus_left[:gpu_count]

    def _chutes_for(self, gpus: Sequence[Gpu], *, is_tee: bool) -> list[Chute]:
        """Return the enabled chutes that can run on some GPUs of a server with or without TEE."""
        models = {gpu.gpu_identifier for gpu in gpus}
        chutes = []
        for chute in self.chutes:
            has_same_tee = bool(chute.tee) == is_tee
            runs_on_models = bool(models.intersection(chute.models))
            if has_same_tee and runs_on_models and not chute.disabled:
                chutes.append(chute)
        return chutes

    def add(self, instance: Instance) -> None:
        """Add an instance to those of its miner, and to the recent ones of its chute."""
        self._instances[instance.hotkey].append(instance)
        # The service decides by the instances that are there, or have ended since the last bounty
        # was made. A bounty is made at least every 12 hours.
        oldest_end = instance.created_at - 12 * HOUR
        recent = [one for one in self._recent[instance.chute] if one.ended_at > oldest_end]
        self._recent[instance.chute] = [*recent, instance]

    def grow(self, until: float) -> None:
        """Make everything that happens up to a time.

        The first time, it takes seconds in a large world.
        """
        while self._events and self._events[0][0] <= until:
            _, _, life = heapq.heappop(self._events)
            self._continue(life)

    def all_instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        """Return every instance created up to now, of all miners or one, including deleted ones."""
        self.grow(now)
        if hotkey is None:
            instances = itertools.chain.from_iterable(self._instances.values())
        else:
            instances = itertools.chain(self._instances[hotkey])
        # The world may have grown beyond this time.
        return [instance for instance in instances if instance.created_at <= now]

    def instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        return [instance for instance in self.all_instances(now, hotkey) if now < instance.ended_at]

    def counts(self, now: float) -> tuple[Counter[Chute], Counter[Chute]]:
        """Return how many instances of each chute exist, and how many are active."""
        existing = self.instances(now)
        active = [instance for instance in existing if instance.active(now)]
        return Counter(one.chute for one in existing), Counter(one.chute for one in active)

    def bounty_age(self, chute: Chute, now: float) -> float | None:
        """Return the age in seconds of the bounty on offer for a chute, None without one.

        A bounty is made once in a period. An active instance ends it.
        """
        period_number = math.floor(now / chute.bounty_period - chute.phase)
        made_at = (period_number + chute.phase) * chute.bounty_period
        if chute.disabled or now >= made_at + chute.bounty_lifetime:
            return None
        for instance in self._recent[chute]:
            # It was active at some time since the bounty was made.
            if instance.activated_at <= now and made_at < instance.ended_at:
                return None
        return now - made_at

    def target(self, chute: Chute, now: float) -> int:
        """Return how many active instances the autoscaler has last wanted of a chute.

        A private chute gets its first instance for a bounty, and then one more at a time. A public
        one gets at least two, and at most five more at a time.
        """
        if chute.disabled:
            return 0
        run = last_run(now, service.SOFT_PERIOD)
        active = sum(one.active(run) for one in self._recent[chute])
        load = chute.utilization(run)
        if not chute.public:
            if active:
                wants_more = load >= service.SCALING_THRESHOLD
            else:
                wants_more = self.bounty_age(chute, run) is not None
            return min(chute.max_instances, active + 1 if wants_more else active)
        # A public chute with little load gets one less.
        more = -1 if load < 0.3 else 0
        if active and load > service.SCALING_THRESHOLD:
            # One more for each tenth of load above the threshold, also for a part of one.
            more = min(5, math.ceil(10 * (load - service.SCALING_THRESHOLD)))
        return min(chute.max_instances, max(2, active + more))

    def _wants(self, chute: Chute, now: float) -> bool:
        """Return whether fewer instances are active or starting than the autoscaler has last
        wanted.
        """
        existing = sum(now < one.ended_at for one in self._recent[chute])
        # The target is at most max_instances, and takes longer to find.
        return existing < chute.max_instances and existing < self.target(chute, now)

    def _continue(self, life: Life) -> None:
        """Continue a life, until it yields the time at which it continues again.

        It is over if it ends, or if that time is infinite.
        """
        time = next(life, math.inf)
        if time < math.inf:
            heapq.heappush(self._events, (time, next(self._order), life))

    def _staged(self, instance: Instance) -> Life:
        """Run one instance whose times are known."""
        yield instance.created_at
        self.add(instance)

    def _life(self, slot: Slot) -> Life:
        """Run one instance after another on the GPUs of a slot, each of a chute that wants more."""
        now, draw, numbers = slot.begins_at, make_random(slot.seed), itertools.count(1)
        while True:
            yield now
            outage = slot.outage_at(now)
            if outage is not None:
                now = outage.ends_at + MINUTE
                continue
            # The miner looks at a few chutes, and launches the first that wants more instances.
            tried = draw.sample(slot.chutes, min(4, len(slot.chutes)))
            chute = next((one for one in tried if self._wants(one, now)), None)
            if chute is None:
                now += draw.uniform(5, 90) * MINUTE
                continue
            instance = slot.launch(next(numbers), chute, now)
            activated_at = _choose_times(instance, draw)
            self.add(instance)
            if activated_at < math.inf:
                # Until then, another instance may take the bounty.
                yield activated_at
                factors = chute.factors(activated_at, self.bounty_age(chute, activated_at))
                instance.bounty_boost = factors.get("bounty_boost", 1.0)
                instance.activated_at = activated_at
            pause = draw.uniform(1, 10) * MINUTE
            if draw.random() < 0.2:
                # One pause in five takes hours.
                pause = draw.expovariate(1 / (5 * HOUR))
            now = instance.ended_at + pause

    def _work(self, until: float, seconds: float, *, per_chute: bool = False) -> Work:
        """Return what instances did in a window of seconds that ends at a Unix time.

        Only those that count for the score at its end are in it.
        """
        begins = until - seconds
        groups: defaultdict[tuple[str, str], list[Instance]] = defaultdict(list)
        for instance in self.all_instances(until):
            if instance.counts(until) and instance.seconds_within(begins, until):
                chute_id = instance.chute_id if per_chute else ""
                groups[instance.hotkey, chute_id].append(instance)
        return {ids: _work_of(group, begins, until) for ids, group in groups.items()}

    def shares(self, now: float) -> dict[str, float]:
        """Return the share of the past day's compute units of each miner that has some, has a seat
        and is not blacklisted.
        """
        scored = {miner.hotkey for miner in self.miners if not miner.blacklist_reason}
        work = self.work(last_run(now, service.CACHE_PERIOD), DAY)
        # Not by chute, so each miner has one entry.
        units = {
            hotkey: stats["compute_units"]
            for (hotkey, _), stats in work.items()
            if hotkey in scored
        }
        all_units = math.fsum(units.values())
        return {hotkey: own_units / all_units for hotkey, own_units in units.items()}

    def seats(self, now: float) -> list[Seat]:
        """Return the seats by UID. Their incentive is that of the last full hour, because the
        validator sets its weights once an hour.
        """
        shares = self.shares(last_run(now, HOUR))
        seats = []
        for miner in self.miners:
            # The chain has a whole number for each share, and 65535 for all of it.
            incentive = int(65535 * shares.get(miner.hotkey, 0.0))
            seats.append(Seat(miner.hotkey, miner.registered_at, incentive))
        return seats

    def jobs(self, now: float) -> list[Job]:
        """Return the jobs that the API lists: waiting, stuck and finished ones, but not running
        ones.
        """
        with_servers = [miner for miner in self.miners if miner.servers]
        # If no other miner has servers, all miners try jobs.
        miners = with_servers[self.miners_without_jobs :] or self.miners
        # The number of a job is that of its period since 1970.
        first_number = math.ceil((self.start - _FIRST_JOB_AGE) / _JOB_PERIOD)
        newest_number = int(now // _JOB_PERIOD)
        jobs = []
        for number in range(first_number, newest_number + 1):
            job = self._job(number, miners, now)
            if job is not None:
                jobs.append(job)
        return jobs

    def _job(self, number: int, miners: Sequence[Miner], now: float) -> Job | None:
        """Return a job as the API lists it, None while it runs.

        A few miners request its launch token, and the first of them claims it in the end.
        """
        draw = make_random(self._seed, "job", number)
        job_id = make_uuid(self._seed, "job", number)
        created_at = number * _JOB_PERIOD
        claimed_at = created_at + draw.uniform(2 * MINUTE, 3 * HOUR)
        ended_at = claimed_at + draw.uniform(5 * MINUTE, 6 * HOUR)
        tried_by = draw.sample(miners, min(draw.randint(1, 4), len(miners)))
        claimed_by = tried_by[0]
        hotkeys = [miner.hotkey for miner in tried_by]
        job = Job(job_id, draw.choice(self.chutes), created_at, hotkeys)
        is_stuck = draw.random() < 0.06
        (status,) = draw.choices(
            ("complete", "partial_failure", "error", "billing_termination"), (75, 8, 14, 3)
        )
        if now < claimed_at:
            # The miner that will claim it requests its token only then.
            return replace(job, tried_by=hotkeys[1:])
        if now < ended_at:
            return None
        if not is_stuck:
            return replace(job, miner=claimed_by, finished_at=ended_at, status=status)
        # A stuck job never ends. Once its miner has released it, it waits again without a miner.
        is_released = job_id in self.released_jobs
        return job if is_released else replace(job, miner=claimed_by)


def _work_of(group: Sequence[Instance], begins: float, until: float) -> dict[str, float]:
    """Return the API's stats of some instances in a window between two Unix times."""
    return {
        "total_instances": len(group),
        "bounty_count": sum(one.has_bounty(until) for one in group),
        "compute_seconds": math.fsum(one.seconds_within(begins, until) for one in group),
        "compute_units": math.fsum(one.units_within(begins, until) for one in group),
    }


def _choose_times(instance: Instance, draw: random.Random) -> float:
    """Set at random when a new instance is verified, when it ends, and why. The earliest of its
    possible ends happens.

    Return the time of its activation, which is infinite if it is never activated.
    """
    created, chute = instance.created_at, instance.chute
    verified = created + draw.uniform(1, 5) * MINUTE
    # Of 100 instances, 2 are never verified, and 2 more never activated.
    fate = draw.random()
    if fate >= 0.02:
        instance.verified_at = verified
    is_never_activated = fate < 0.04
    if is_never_activated:
        # The longest times that the service waits for an activation. Then, its next run purges it.
        purged = min(created + 3.5 * HOUR, instance.verified_at + 3 * HOUR)
        instance.cut(last_run(purged, service.SOFT_PERIOD) + service.SOFT_PERIOD, End.PURGED)
        # Some miners delete it before that.
        instance.cut(created + draw.uniform(0.4, 5) * HOUR, End.MINER)
    activated = verified + draw.uniform(2, 40) * MINUTE
    # An outage may end the instance before its activation.
    if is_never_activated or activated >= instance.ended_at:
        return math.inf
    if draw.random() < 0.05:
        # It is deleted before its score is secured.
        instance.cut(
            activated + draw.uniform(MINUTE, service.SECURED_AFTER - MINUTE),
            draw.choice((End.MINER, End.FAILURES)),
        )
    else:
        unused = End.SCALED_DOWN if chute.public else End.IDLE
        end = draw.choices((End.MINER, End.FAILURES, unused), (20, 10, 70))[0]
        # The service scales down no instance that has been active for less than 63 minutes.
        instance.cut(activated + 63 * MINUTE + draw.expovariate(1 / (40 * HOUR)), end)
    # A rolling update replaces it some time after the next version, but only when it is active.
    next_deployed = chute.deployed_at(created) + chute.deploy_period
    replaced = max(next_deployed + draw.uniform(0.02, 6) * HOUR, activated + MINUTE)
    instance.cut(replaced, End.UPDATED)
    return activated
