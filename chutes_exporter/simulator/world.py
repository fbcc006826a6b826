"""The world behind the simulated API: miners, servers, GPUs, chutes, instances and jobs that move with time.

Everything is a function of the seed and the time: the same world asked about the same moment gives the same answer,
however often and in whichever order it is asked. Instances come from a random process for each slot (a group of GPUs
of one server); windows and scores are summed from the instances' lives, so that all endpoints agree with each other.
"""

from __future__ import annotations

import hashlib
import math
import random
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from chutes_exporter.api.keys import Hotkey, address_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TEST_SEED = "0xe1816a6cda3a50d041d5e39be76dbbd9367ebf20377a6b9e9ce12c7808385ba3"
"""The invented, worthless seed of the first miner."""

HOUR = 3600.0
DAY = 24 * HOUR
WEEK = 7 * DAY
_PAST = 8 * DAY
_VERIFICATION_BLOCK = 6 * HOUR

_GPU_MODELS = {  # identifier: name, GiB, multiplier of one GPU
    "4090": ("NVIDIA GeForce RTX 4090", 24, 1.0),
    "5090": ("NVIDIA GeForce RTX 5090", 32, 1.6),
    "a100": ("NVIDIA A100-SXM4-80GB", 80, 2.1),
    "l40s": ("NVIDIA L40S", 48, 1.3),
    "h100_sxm": ("NVIDIA H100 80GB HBM3", 80, 4.1),
    "h200": ("NVIDIA H200", 141, 5.0),
    "b200": ("NVIDIA B200", 180, 10.0),
}
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
    'weights "quoted"\\and\\slashed',
    "modèle-\N{SNOWMAN}-\N{CJK UNIFIED IDEOGRAPH-6A21}\N{GRINNING FACE}",
)
_GPU_ERRORS = ("GraVal challenge timed out", 'attestation said "no"\nat line 2\\end')
_INSTANCE_ERRORS = ("Envdump mismatch", "inspecto hash mismatch", 'log: "exit 1"\n\ttraceback \N{CROSS MARK}')


@dataclass(frozen=True)
class Size:
    """How large a world is.

    Attributes:
        miners: Seats on the subnet.
        active_miners: Miners that bring servers.
        chutes: Chutes of the platform.
        servers: Servers of the first miner; the others have up to a half of that.
        source_bytes: Bytes of code that each chute carries.
    """

    miners: int = 256
    active_miners: int = 100
    chutes: int = 300
    servers: int = 14
    source_bytes: int = 4096


@dataclass(frozen=True)
class Chute:
    """A workload."""

    chute_id: str
    name: str
    slug: str
    version: str
    gpu_count: int
    models: tuple[str, ...]
    base_multiplier: float
    phase: float
    popularity: float
    tee: bool
    preemptible: bool
    bounty_period: float
    disabled: bool

    def utilization(self, now: float) -> float:
        """Return the used share of the capacity, following the day; it may exceed 1."""
        day = 0.5 + 0.5 * math.sin(2 * math.pi * (now / DAY + self.phase))
        return round(self.popularity * (0.35 + 0.75 * day), 6)

    def boost(self, now: float) -> float:
        """Return the urgency boost: more than 1 while demand is higher than capacity likes."""
        return 1.5 if self.utilization(now) > 0.75 else 1.0

    def bounty(self, now: float) -> float | None:
        """Return the bounty on offer, or None: there is one in the last tenth of every period."""
        passed = (now / self.bounty_period + self.phase) % 1
        return round(100 * passed) if passed > 0.9 else None


@dataclass(frozen=True)
class Gpu:
    """A GPU of a server."""

    uuid: str
    model: str
    device_index: int
    server_id: str
    created_at: float
    seed: int

    def error(self, now: float) -> str | None:
        """Return why its verification fails now, or None."""
        draw = random.Random(f"{self.seed}/{now // _VERIFICATION_BLOCK}")
        return draw.choice(_GPU_ERRORS) if draw.random() < 0.04 else None

    def verified_at(self, now: float) -> float | None:
        """Return when it was last verified, or None while it is not."""
        if self.error(now) is not None:
            return None
        return max(self.created_at + 600, now // _VERIFICATION_BLOCK * _VERIFICATION_BLOCK)


@dataclass(frozen=True)
class Server:
    """A machine of a miner."""

    server_id: str
    name: str
    ip: str
    is_tee: bool
    version: str | None
    created_at: float
    gpus: tuple[Gpu, ...]
    seed: int

    def maintenance_pending(self, now: float) -> bool:
        """Return whether it waits for maintenance: one server in twenty, changing every six hours."""
        return random.Random(f"{self.seed}/{now // _VERIFICATION_BLOCK}").random() < 0.05


@dataclass(frozen=True)
class Instance:
    """A chute on some GPUs, from its creation to its end.

    Attributes:
        activated_at: None for one that never becomes active, because its verification fails.
        ended_at: When it is gone from the API.
    """

    instance_id: str
    hotkey: str
    chute: Chute
    gpus: tuple[Gpu, ...]
    created_at: float
    verified_at: float | None
    activated_at: float | None
    ended_at: float
    multiplier: float
    bounty: bool
    error: str | None

    def active(self, now: float) -> bool:
        """Return whether it serves."""
        return self.activated_at is not None and self.activated_at <= now < self.ended_at

    def seconds_within(self, start: float, end: float) -> float:
        """Return the seconds for which it was active between two times."""
        if self.activated_at is None:
            return 0.0
        return max(0.0, min(end, self.ended_at) - max(start, self.activated_at))


class _Slot:
    """A group of GPUs that runs one instance after another, its past and future made as far as it is asked for."""

    def __init__(self, seed: str, hotkey: str, gpus: tuple[Gpu, ...], chutes: Sequence[Chute], start: float) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._hotkey = hotkey
        self._gpus = gpus
        self._chutes = chutes
        self._next = start - self._random.expovariate(1 / (6 * HOUR))
        self._made: list[Instance] = []

    def instances(self, now: float) -> Sequence[Instance]:
        """Return every instance created up to now, those that ended included."""
        while self._next <= now:
            self._made.append(self._make(self._next))
        return [instance for instance in self._made if instance.created_at <= now]

    def _make(self, created: float) -> Instance:
        draw = self._random
        chute = draw.choice(self._chutes)
        verified = created + draw.uniform(60, 300)
        error = draw.choice(_INSTANCE_ERRORS) if draw.random() < 0.06 else None
        if error is None:
            activated: float | None = verified + draw.uniform(120, 900)
            ended = verified + 900 + draw.expovariate(1 / (30 * HOUR))
        else:
            activated = None
            ended = created + draw.uniform(1200, 5400)
        # Now and then nothing comes for a while: the GPUs idle.
        gap = draw.expovariate(1 / (8 * HOUR)) if draw.random() < 0.35 else draw.uniform(30, 600)
        self._next = ended + gap
        return Instance(
            instance_id=_uuid(f"{self._seed}/{len(self._made)}"),
            hotkey=self._hotkey,
            chute=chute,
            gpus=self._gpus[: chute.gpu_count],
            created_at=created,
            verified_at=None if error else verified,
            activated_at=activated,
            ended_at=ended,
            multiplier=chute.base_multiplier * chute.boost(created),
            bounty=chute.bounty(created) is not None,
            error=error,
        )


@dataclass
class Miner:
    """A seat on the subnet, and whoever holds it."""

    uid: int
    key: Hotkey
    coldkey: str
    blacklist_reason: str | None
    servers: tuple[Server, ...]
    slots: tuple[_Slot, ...] = field(repr=False)

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
    """A job that waits for an instance."""

    job_id: str
    chute: Chute
    created_at: float
    tried_by: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """What somebody computed in a window.

    Attributes:
        instances: Instances that were active in it.
        bounties: Those of them that earned a bounty.
        seconds: Seconds for which they were active.
        units: Those seconds weighted by compute multiplier.
    """

    instances: int
    bounties: int
    seconds: float
    units: float


class World:
    """A simulated platform.

    Args:
        seed: Makes another world for each value.
        start: Unix time around which the world is built: its past reaches a week further back.
        size: How large it is.
    """

    def __init__(self, *, seed: int = 64, start: float, size: Size | None = None) -> None:
        self.size = size or Size()
        self._seed = seed
        self._start = start
        self.released_jobs: set[str] = set()

    def _random(self, *parts: object) -> random.Random:
        return random.Random("/".join(map(str, (self._seed, *parts))))

    @cached_property
    def chutes(self) -> tuple[Chute, ...]:
        """All chutes."""
        return tuple(self._chute(index) for index in range(self.size.chutes))

    def _chute(self, index: int) -> Chute:
        draw = self._random("chute", index)
        stem = _CHUTE_NAMES[index % len(_CHUTE_NAMES)]
        repeat = index // len(_CHUTE_NAMES)
        gpu_count = draw.choice((1, 1, 1, 2, 4, 8))
        models = tuple(draw.sample(list(_GPU_MODELS), 3))
        return Chute(
            chute_id=_uuid(f"{self._seed}/chute/{index}"),
            name=f"{stem}-v{repeat}" if repeat else stem,
            slug=f"chutes-{index}",
            version=_uuid(f"{self._seed}/version/{index}"),
            gpu_count=gpu_count,
            models=models,
            base_multiplier=round(gpu_count * max(_GPU_MODELS[model][2] for model in models), 6),
            phase=draw.random(),
            popularity=draw.uniform(0.1, 1.3),
            tee=draw.random() < 0.1,
            preemptible=draw.random() < 0.7,
            bounty_period=draw.uniform(4, 30) * HOUR,
            disabled=draw.random() < 0.08,
        )

    @cached_property
    def miners(self) -> tuple[Miner, ...]:
        """All miners, by UID. The first has the test seed, all kinds of servers, and the odd names."""
        return tuple(self._miner(uid) for uid in range(self.size.miners))

    @cached_property
    def by_hotkey(self) -> dict[str, Miner]:
        """All miners, by hotkey."""
        return {miner.hotkey: miner for miner in self.miners}

    def _miner(self, uid: int) -> Miner:
        draw = self._random("miner", uid)
        seed = TEST_SEED if uid == 0 else hashlib.sha256(f"{self._seed}/hotkey/{uid}".encode()).hexdigest()
        key = Hotkey.from_seed(seed, source="simulator")
        coldkey = address_of(hashlib.sha256(f"{self._seed}/coldkey/{uid // 3}".encode()).digest())
        count = self.size.servers if uid == 0 else draw.randint(1, max(1, self.size.servers // 2))
        servers = tuple(self._server(uid, index) for index in range(count)) if uid < self.size.active_miners else ()
        last = self.size.miners - 1
        return Miner(
            uid=uid,
            key=key,
            coldkey=coldkey,
            blacklist_reason='abuse: "spoofed" GPUs\nsee \\log' if uid == last and uid > 0 else None,
            servers=servers,
            slots=tuple(self._slots(uid, key.address, servers)),
        )

    def _server(self, uid: int, index: int) -> Server:
        draw = self._random("server", uid, index)
        model = draw.choice(list(_GPU_MODELS))
        server_id = _uuid(f"{self._seed}/server/{uid}/{index}")
        name = f"{model}-{index}"
        ip = f"198.51.{100 + uid % 100}.{index % 250}"
        gpu_count = draw.choice((1, 2, 4, 8, 8))
        if uid == 0:
            name, ip, gpu_count = self._oddity(index, name, ip, gpu_count)
        created = self._start - draw.uniform(9, 60) * DAY
        return Server(
            server_id=server_id,
            name=name,
            ip=ip,
            is_tee=draw.random() < 0.2,
            version=draw.choice((None, "0.3.1", "0.4.0")),
            created_at=created,
            gpus=tuple(
                Gpu(
                    uuid=f"GPU-{_uuid(f'{server_id}/{device}')}",
                    model=model,
                    device_index=device,
                    server_id=server_id,
                    created_at=created,
                    seed=draw.getrandbits(32),
                )
                for device in range(gpu_count)
            ),
            seed=draw.getrandbits(32),
        )

    @staticmethod
    def _oddity(index: int, name: str, ip: str, gpu_count: int) -> tuple[str, str, int]:
        """Give the first miner's servers what real ones were seen with: repeats, nothing, and odd text."""
        if index == 1:
            ip = "198.51.100.0"  # also the first server's
        elif index == 2:
            gpu_count = 0
        elif index in (3, 4):
            name = "rack-7"
        elif index == 5:
            name = 'h100 "rack\\7"\nünï'
        return name, ip, gpu_count

    def _slots(self, uid: int, hotkey: str, servers: Sequence[Server]) -> Iterator[_Slot]:
        for server in servers:
            draw = self._random("slots", server.server_id)
            position = 0
            while position < len(server.gpus):
                width = draw.choice([w for w in (1, 2, 4, 8) if position + w <= len(server.gpus)])
                gpus = server.gpus[position : position + width]
                position += width
                fitting = [chute for chute in self.chutes if chute.gpu_count == width]
                idle_forever = draw.random() < 0.08
                if fitting and not idle_forever:
                    slot = f"{self._seed}/slot/{uid}/{server.server_id}/{position}"
                    yield _Slot(slot, hotkey, gpus, fitting, self._start - _PAST)

    def all_instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        """Return every instance created up to now, of all miners or one, those that ended included."""
        miners = self.miners if hotkey is None else [self.by_hotkey[hotkey]]
        return [instance for miner in miners for slot in miner.slots for instance in slot.instances(now)]

    def instances(self, now: float, hotkey: str | None = None) -> list[Instance]:
        """Return the instances that exist now, of all miners or one."""
        return [instance for instance in self.all_instances(now, hotkey) if now < instance.ended_at]

    def failures(self, instance: Instance, now: float) -> int:
        """Return an instance's consecutive failures: some for the failing, now and then one for the healthy."""
        if instance.error is not None:
            return min(3, int((now - instance.created_at) / 900))
        draw = random.Random(f"{instance.instance_id}/{now // 1800}")
        return 1 if draw.random() < 0.03 else 0

    def work(
        self, now: float, seconds: float, *, hotkey: str | None = None, per_chute: bool = False
    ) -> dict[tuple[str, str], Work]:
        """Return what was computed in the window that ends now.

        Args:
            now: Unix time.
            seconds: Length of the window.
            hotkey: Only this miner's.
            per_chute: Whether each chute has an entry of its own.

        Returns:
            Work by hotkey and chute id (empty, unless per chute). Who computed nothing has no entry.
        """
        sums: dict[tuple[str, str], list[float]] = {}
        for instance in self.all_instances(now, hotkey):
            active = instance.seconds_within(now - seconds, now)
            if active <= 0:
                continue
            entry = sums.setdefault((instance.hotkey, instance.chute.chute_id if per_chute else ""), [0, 0, 0, 0])
            entry[0] += 1
            entry[1] += instance.bounty
            entry[2] += active
            entry[3] += active * instance.multiplier
        return {
            key: Work(int(count), int(bounties), active, units)
            for key, (count, bounties, active, units) in sums.items()
        }

    def shares(self, now: float) -> dict[str, float]:
        """Return each scored miner's share: of the compute units of the past day."""
        work = self.work(now, DAY)
        total = sum(entry.units for entry in work.values())
        return {hotkey: entry.units / total for (hotkey, _), entry in work.items()} if total else {}

    def jobs(self, now: float) -> list[Job]:
        """Return the jobs that wait: one comes every ten minutes and waits for up to an hour."""
        waiting = []
        for number in range(int((now - HOUR) // 600), int(now // 600) + 1):
            draw = self._random("job", number)
            created = number * 600.0
            ends = created + draw.uniform(60, HOUR)
            job = Job(
                job_id=_uuid(f"{self._seed}/job/{number}"),
                chute=draw.choice(self.chutes),
                created_at=created,
                tried_by=tuple(
                    miner.hotkey for miner in draw.sample(self.miners, min(draw.randint(0, 2), len(self.miners)))
                ),
            )
            if created <= now < ends and job.job_id not in self.released_jobs:
                waiting.append(job)
        return waiting


def _uuid(text: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, text))


def gpu_details(model: str) -> tuple[str, int]:
    """Return the full name and the memory in GiB of a model of GPU."""
    name, memory, _ = _GPU_MODELS[model]
    return name, memory
