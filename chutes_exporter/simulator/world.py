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
from chutes_exporter.simulator.chain import next_seat
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

TEST_SEED: Final = "0xe1816a6cda3a50d041d5e39be76dbbd9367ebf20377a6b9e9ce12c7808385ba3"
"""The invented seed of the first miner. It has no value."""
_OLD_MODELS: Final = ("4090", "a100")
"""Models of the servers and chutes without TEE."""
_JOB_PERIOD: Final = 20 * MINUTE
"""Seconds from the creation of one job to that of the next."""
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

    During its upgrade, maintenance is pending at first. Then it has the new version.
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
        """Return the status of its maintenance. It has an upgrade slot unless this is none."""
        begins, ends = self.upgrade
        if not begins <= now < ends:
            return "none"
        return "pending" if now < begins + self.pending_for else "maintenance"

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
        found: list[Gpu] = []
        for server in self.servers:
            found += server.gpus
        return found


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


class Slot(NamedTuple):
    """A group of GPUs that runs one instance after another.

    None runs in its outages, which end it for a reason.
    """

    seed: str
    hotkey: str
    gpus: tuple[Gpu, ...]
    chutes: Sequence[Chute]
    begins_at: float
    outages: tuple[tuple[float, float, End], ...]

    def launch(self, name: object, chute: Chute, *times: Any) -> Instance:
        """Launch an instance. Outages end it."""
        instance = Instance(make_uuid(self.seed, name), self.hotkey, chute, self.gpus, *times)
        for begins, _, end in self.outages:
            if instance.created_at < begins:
                instance.cut(begins, end)
        return instance


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
    first_job_miner: ClassVar[int] = 0
    """The first miner that tries jobs."""
    window_age: ClassVar[float] = 15 * HOUR
    """Seconds before the start at which the window opens. It takes 4 days."""
    cooldown: ClassVar[float] = 0.0
    """Seconds for which the service lists a chute of which a miner lost an active instance.

    It was 2 hours until May 2026. Then the service dropped the rule.
    """

    def __init__(self, *, seed: int = 64, start: float, size: Size | None = None) -> None:
        self.size = size or Size()
        self.start = start
        self.released_jobs: set[str] = set()
        # The only maintenance window.
        self.window = (start - self.window_age, start - self.window_age + 4 * DAY)
        self._seed = seed
        self.work = lru_cache(64)(self._work)
        self._events: list[tuple[float, int, Iterator[float]]] = []
        self._order = itertools.count()
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
        """Make a chute.

        Of 40, 35 are private and one has no TEE. A few need dear GPUs, or more than one.
        """
        draw = make_random(self._seed, "chute", index)
        repeat, name = divmod(index, len(self.chute_names))
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
            name=self.chute_names[name] + (f"-v{repeat}" if repeat else ""),
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
        """Make the miner of a seat at the start.

        Three miners share a coldkey. Only active ones have servers.
        """
        draw = make_random(self._seed, "miner", uid)
        seed, count = TEST_SEED, self.size.servers
        if uid:
            seed = hashlib.sha256(f"{self._seed}/hotkey/{uid}".encode()).hexdigest()
            count = draw.randint(1, max(1, self.size.other_servers))
        active = uid < self.size.active_miners
        age = draw.uniform(61, 300) if active else draw.uniform(0.1, 19)
        return Miner(
            uid=uid,
            key=Hotkey.from_seed(seed, source="simulator"),
            coldkey=encode_ss58(
                hashlib.sha256(f"{self._seed}/coldkey/{uid // 3}".encode()).digest()
            ),
            blacklist_reason=self.blacklist_reason(uid),
            registered_at=round(self.start - age * DAY, 6),
            stake=draw.uniform(1, 500) * active,
            servers=self._servers(uid, count) if active else (),
        )

    def _registrations(self) -> Iterator[float]:
        """Yield the times at which a newcomer takes the seat that the chain chooses.

        In 512 hours, that is each one.
        """
        numbers = itertools.count()
        while True:
            number = next(numbers)
            yield (now := self.start + (0.75 + number) * 512 * HOUR / len(self.miners))
            uid = next_seat(self.start, self.seats(now), now)
            seed = hashlib.sha256(f"{self._seed}/newcomer/{number}".encode())
            del self.by_hotkey[self.miners[uid].hotkey]
            key = Hotkey.from_seed(seed.hexdigest(), source="simulator")
            miner = Miner(uid, key, encode_ss58(seed.digest()), None, now, 0.0, ())
            self.miners[uid] = self.by_hotkey[miner.hotkey] = miner

    def _servers(self, uid: int, count: int) -> tuple[Server, ...]:
        servers = [self.make_server(uid, index) for index in range(count)]
        return tuple(sorted(servers, key=lambda server: -server.created_at))

    def make_server(self, uid: int, index: int) -> Server:
        """Make a server.

        One in seven is old and has no TEE, and some GPUs of these are unverified.
        """
        draw = make_random(self._seed, "server", uid, index)
        is_tee = index % 7 != 4
        model = draw.choice((*18 * ("pro_6000",), "h200", "b200") if is_tee else _OLD_MODELS)
        created = self.start - draw.uniform(9, 60) * DAY
        error = draw.choice(self.gpu_errors)
        # The servers of a miner are upgraded one after another. Some miss the window.
        turn = min(12 * HOUR, 4 * DAY / (self.size.other_servers if uid else self.size.servers))
        upgraded = self.window[0] + (index + draw.uniform(0, 0.2)) * turn
        errors: list[str | None]
        is_upgraded, updated_at, version = False, None, None
        if is_tee:
            is_upgraded, updated_at = draw.random() < 0.9, created + DAY
            version = draw.choice(("1.3.1",) * 5 + ("1.3.0",))
            errors = [None] * draw.choice((4, 8, 8))
        else:
            errors = [error if draw.random() < 0.4 else None for _ in range(2)]
        upgrade = (math.inf, math.inf)
        if is_upgraded:
            upgrade = (upgraded, upgraded + draw.uniform(0.05, 0.2) * turn)
        server = self.build_server(uid, index, model, errors, created, version)
        return replace(server, updated_at=updated_at, upgrade=upgrade)

    def build_server(
        self,
        uid: int,
        index: int,
        model: str,
        errors: Sequence[str | None],
        created: float,
        version: str | None,
    ) -> Server:
        """Build a server with one GPU for each error, or for None.

        Without a version, it has no TEE.
        """
        server_id = make_uuid(self._seed, "server", uid, index)
        gpus = tuple(
            Gpu(
                make_uuid(server_id, device).replace("-", ""),
                model,
                device,
                server_id,
                None if error else created,
                error,
            )
            for device, error in enumerate(errors)
        )
        name, ip = f"{model.replace('_', '-')}-{index}", f"198.51.{100 + uid % 100}.{index % 250}"
        return Server(server_id, name, ip, version is not None, version, created, None, gpus)

    def _lives(self, miner: Miner, server: Server) -> Iterator[Iterator[float]]:
        """Yield what happens on a server: each life yields the times at which it continues."""
        return map(self._life, self._slots(miner, server))

    def _slots(self, miner: Miner, server: Server) -> Iterator[Slot]:
        """Divide the verified GPUs of a server into groups, until no chute of the server fits the
        rest.
        """
        draw = make_random(self._seed, "slots", server.server_id)
        gpus = [gpu for gpu in server.gpus if gpu.verified_at is not None]
        chutes = self._chutes_for(gpus, is_tee=server.is_tee)
        while fitting := [chute for chute in chutes if chute.gpu_count <= len(gpus)]:
            width = draw.choice(fitting).gpu_count
            yield Slot(
                f"{self._seed}/slot/{miner.uid}/{server.server_id}/{len(gpus)}",
                miner.hotkey,
                tuple(gpus[:width]),
                [chute for chute in fitting if chute.gpu_count == width],
                max(server.created_at, self.start - 8 * DAY) + draw.uniform(0, 6 * HOUR),
                ((*server.upgrade, End.MAINTENANCE),),
            )
            del gpus[:width]

    def _chutes_for(self, gpus: Sequence[Gpu], *, is_tee: bool) -> list[Chute]:
        """Return the chutes that run on the models of some GPUs of a server."""
        models = {gpu.gpu_identifier for gpu in gpus}
        enabled = [chute for chute in self.chutes if not chute.disabled]
        of_kind = [chute for chute in enabled if bool(chute.tee) == is_tee]
        return [chute for chute in of_kind if models.intersection(chute.models)]

    def add(self, instance: Instance) -> None:
        self._instances[instance.hotkey].append(instance)
        # The service decides by the instances since the oldest bounty, which is 12 hours old.
        recent = self._recent[instance.chute]
        recent[:] = [
            *(one for one in recent if one.ended_at > instance.created_at - 12 * HOUR),
            instance,
        ]

    def grow(self, until: float) -> None:
        """Make everything that happens up to a time.

        The first time, it takes seconds in a large world.
        """
        while self._events and self._events[0][0] <= until:
            self._continue(heapq.heappop(self._events)[2])

    def all_instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        """Return every instance created up to now, of all miners or one, including deleted ones."""
        self.grow(now)
        found = self._instances.values() if hotkey is None else [self._instances[hotkey]]
        return [one for one in itertools.chain.from_iterable(found) if one.created_at <= now]

    def instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        return [instance for instance in self.all_instances(now, hotkey) if now < instance.ended_at]

    def counts(self, now: float) -> tuple[Counter[Chute], Counter[Chute]]:
        """Return how many instances of each chute exist, and how many are active."""
        found = self.instances(now)
        return Counter(one.chute for one in found), Counter(
            one.chute for one in found if one.active(now)
        )

    def bounty_age(self, chute: Chute, now: float) -> float | None:
        """Return the age in seconds of the bounty on offer for a chute, or None.

        An active instance ends a bounty.
        """
        period = math.floor(now / chute.bounty_period - chute.phase)
        made = (period + chute.phase) * chute.bounty_period
        if chute.disabled or now >= made + chute.bounty_lifetime:
            return None
        served = any(one.activated_at <= now and made < one.ended_at for one in self._recent[chute])
        return None if served else now - made

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
            wants_more = load >= service.SCALING_THRESHOLD
            if not active:
                wants_more = self.bounty_age(chute, run) is not None
            return min(chute.max_instances, active + wants_more)
        step = -1 if load < 0.3 else 0
        if active and load > service.SCALING_THRESHOLD:
            # One more for each tenth of load above the threshold, also for a part of one.
            step = min(5, math.ceil(10 * (load - service.SCALING_THRESHOLD)))
        return min(chute.max_instances, max(2, active + step))

    def _wants(self, chute: Chute, now: float) -> bool:
        """Return whether fewer instances are active or starting than the autoscaler has last
        wanted.
        """
        existing = sum(now < one.ended_at for one in self._recent[chute])
        # The target, which takes long to find, is at most this number.
        return existing < chute.max_instances and existing < self.target(chute, now)

    def _continue(self, life: Iterator[float]) -> None:
        """Continue a life, until it yields the time at which it continues again."""
        if (time := next(life, math.inf)) < math.inf:
            heapq.heappush(self._events, (time, next(self._order), life))

    def _staged(self, instance: Instance) -> Iterator[float]:
        """Run one instance whose times are known.

        It is a life: it yields the time at which it continues.
        """
        yield instance.created_at
        self.add(instance)

    def _life(self, slot: Slot) -> Iterator[float]:
        """Run one instance after another, each of a chute that wants more.

        Yield the times at which it continues.
        """
        now, draw, ids = slot.begins_at, make_random(slot.seed), itertools.count(1)
        while True:
            yield now
            outage_end = next(
                (ends for begins, ends, _ in slot.outages if begins <= now < ends), None
            )
            if outage_end is not None:
                now = outage_end + MINUTE
                continue
            tried = draw.sample(slot.chutes, min(4, len(slot.chutes)))
            chute = next((one for one in tried if self._wants(one, now)), None)
            if chute is None:
                now += draw.uniform(5, 90) * MINUTE
                continue
            instance = slot.launch(next(ids), chute, now)
            activation = _choose_times(instance, draw)
            self.add(instance)
            if activation < math.inf:
                yield activation
                factors = chute.factors(activation, self.bounty_age(chute, activation))
                instance.bounty_boost = factors.get("bounty_boost", 1.0)
                instance.activated_at = activation
            pause = draw.uniform(1, 10) * MINUTE
            if draw.random() < 0.2:
                # One pause in five takes hours.
                pause = draw.expovariate(1 / (5 * HOUR))
            now = instance.ended_at + pause

    def _work(self, until: float, seconds: float, *, per_chute: bool = False) -> Work:
        """Return what the instances that count at the end of a window did in it."""
        begins = until - seconds
        groups: defaultdict[tuple[str, str], list[Instance]] = defaultdict(list)
        for one in self.all_instances(until):
            if one.counts(until) and one.seconds_within(begins, until):
                groups[one.hotkey, one.chute_id if per_chute else ""].append(one)
        return {name: _work_of(group, begins, until) for name, group in groups.items()}

    def shares(self, now: float) -> dict[str, float]:
        """Return the share of the past day's compute of each miner that has a seat and is not
        blacklisted.
        """
        seats = {miner.hotkey for miner in self.miners if not miner.blacklist_reason}
        work = self.work(last_run(now, service.CACHE_PERIOD), DAY).items()
        units = {hotkey: entry["compute_units"] for (hotkey, _), entry in work if hotkey in seats}
        total = math.fsum(units.values())
        return {hotkey: share / total for hotkey, share in units.items()}

    def seats(self, now: float) -> list[tuple[str, float, int]]:
        """Return each seat's hotkey, time of registration, and incentive up to 65535, set at the
        last full hour.
        """
        shares = self.shares(last_run(now, HOUR))
        return [
            (one.hotkey, one.registered_at, int(65535 * shares.get(one.hotkey, 0.0)))
            for one in self.miners
        ]

    def jobs(self, now: float) -> list[Job]:
        """Return the jobs that the API lists: waiting, stuck and finished ones, but not running
        ones.
        """
        with_servers = [miner for miner in self.miners if miner.servers]
        miners = with_servers[self.first_job_miner :] or self.miners
        jobs = []
        first = math.ceil((self.start - 3 * DAY) / _JOB_PERIOD)
        for number in range(first, int(now // _JOB_PERIOD) + 1):
            job = self._job(number, miners, now)
            if job is not None:
                jobs.append(job)
        return jobs

    def _job(self, number: int, miners: Sequence[Miner], now: float) -> Job | None:
        """Return a job as the API lists it, None while it runs."""
        draw = make_random(self._seed, "job", number)
        job_id = make_uuid(self._seed, "job", number)
        created = number * _JOB_PERIOD
        claimed = created + draw.uniform(2 * MINUTE, 3 * HOUR)
        over = claimed + draw.uniform(5 * MINUTE, 6 * HOUR)
        tried = draw.sample(miners, min(draw.randint(1, 4), len(miners)))
        hotkeys = [miner.hotkey for miner in tried]
        job = Job(job_id, draw.choice(self.chutes), created, hotkeys)
        is_stuck = draw.random() < 0.06
        (status,) = draw.choices(
            ("complete", "partial_failure", "error", "billing_termination"), (75, 8, 14, 3)
        )
        if now < claimed:
            return replace(job, tried_by=hotkeys[1:])
        if now < over:
            return None
        if not is_stuck:
            return replace(job, miner=tried[0], finished_at=over, status=status)
        # Its miner has not finished it, and can release it.
        return job if job_id in self.released_jobs else replace(job, miner=tried[0])


def _work_of(group: Sequence[Instance], begins: float, until: float) -> dict[str, float]:
    """Return the API's stats of some instances in a window."""
    return {
        "total_instances": len(group),
        "bounty_count": sum(one.has_bounty(until) for one in group),
        "compute_seconds": math.fsum(one.seconds_within(begins, until) for one in group),
        "compute_units": math.fsum(one.units_within(begins, until) for one in group),
    }


def _choose_times(instance: Instance, draw: random.Random) -> float:
    """Choose when an instance is verified, and its end, the earliest cut.

    Return its activation, or infinity.
    """
    created, chute = instance.created_at, instance.chute
    verified = created + draw.uniform(1, 5) * MINUTE
    fate = draw.random()
    if fate >= 0.02:
        instance.verified_at = verified
    if fate < 0.04:
        # The longest times that the service waits for an activation.
        purged = min(created + 3.5 * HOUR, instance.verified_at + 3 * HOUR)
        instance.cut(last_run(purged, service.SOFT_PERIOD) + service.SOFT_PERIOD, End.PURGED)
        instance.cut(created + draw.uniform(0.4, 5) * HOUR, End.MINER)
    activated = verified + draw.uniform(2, 40) * MINUTE
    if fate < 0.04 or activated >= instance.ended_at:
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
    # A rolling update replaces it some time after a new version.
    deployed = chute.deployed_at(created) + chute.deploy_period
    instance.cut(max(deployed + draw.uniform(0.02, 6) * HOUR, activated + MINUTE), End.UPDATED)
    return activated
