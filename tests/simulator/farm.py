"""A simulated subnet without chance: nothing happens on it unless a test says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.simulator.service import MODELS, Chute, End, Gpu, Instance, make_uuid
from chutes_exporter.simulator.world import Job, Miner, Server, Size, World

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

L40S = list(MODELS).index("l40s")
"""The number of the public chute for this model."""
PRIVATE = len(MODELS)
"""The number of the private chute. Those before it are public, one for each model of GPU."""
ELSEWHERE = len(MODELS) + 1
"""The number of the chute that earns nearly everything, for a miner that nobody watches."""


@dataclass(frozen=True)
class Machine:
    """A server to be made. Its last ``idle`` GPUs have no instance."""

    model: str
    gpus: int = 8
    idle: int = 0


class Farm(World):
    """Miners whose instances are all older than a day, and earn the same at any time.

    The fleets are the machines of each watched miner, by UID. One more miner earns nearly
    everything. A job is stuck with each of the hotkeys in ``stuck``. ``room`` are the instances
    that the autoscaler wants more of the public chute of a model.
    """

    def __init__(
        self,
        start: float,
        fleets: Iterable[Sequence[Machine]],
        room: Mapping[str, int] | None = None,
    ) -> None:
        self._fleets, self._room = tuple(fleets), room or {}
        # The chutes are a public one for each model, the private one and the one elsewhere.
        size = Size(20, active_miners=len(self._fleets) + 1, chutes=len(MODELS) + 2)
        super().__init__(start=start, size=size)
        # The number of launched instances, which makes their ids.
        self._count = 0
        self.stuck: list[str] = []
        # The miners that nobody watches come after these, and have no fleet.
        for miner, machines in zip(self.miners, self._fleets, strict=False):
            for machine, server in zip(machines, miner.servers, strict=True):
                public_chute = list(MODELS).index(machine.model)
                for gpu in server.gpus[: machine.gpus - machine.idle]:
                    self.launch(miner, (gpu,), public_chute, start - 3 * DAY)
        other = self.miners[len(self._fleets)]
        for server in other.servers:
            self.launch(other, server.gpus, ELSEWHERE, start - 3 * DAY)

    def _lives(self, miner: Miner, server: Server) -> Iterator[Iterator[float]]:  # noqa: ARG002 - the test launches
        return iter(())

    def make_chute(self, index: int) -> Chute:
        """Make the chute with a number. Its multiplier never changes: its load stays too low for
        urgency, and no bounty or new version comes in the time of a test.
        """
        model = list(MODELS)[index] if index < PRIVATE else "b200"
        return replace(
            super().make_chute(index),
            name={PRIVATE: "private-model", ELSEWHERE: "elsewhere"}.get(index, f"{model}-model"),
            gpu_count=8 if index == ELSEWHERE else 1,
            models=(model,),
            public=index != PRIVATE,
            tee=True,
            manual_boost=20 if index == ELSEWHERE else None,
            scaled=index < PRIVATE and model in self._room,
            disabled=False,
            phase=0.5,
            popularity=0.5,
            deploy_period=100_000 * DAY,
            bounty_period=100_000 * DAY,
        )

    def target(self, chute: Chute, now: float) -> int:
        """Return how many active instances the autoscaler wants of a chute."""
        if not chute.scaled:
            return super().target(chute, now)
        _, active = self.counts(now)
        (model,) = chute.models
        return active[chute] + self._room[model]

    def blacklist_reason(self, uid: int) -> str | None:  # noqa: ARG002 - nobody is
        """Return nothing."""
        return None

    def _servers(self, uid: int, count: int) -> tuple[Server, ...]:  # noqa: ARG002 - the fleet says how many
        """Return the servers of a watched miner's fleet, or those of the miner elsewhere."""
        machines: Sequence[Machine] = [Machine("b200")] * 10
        if uid < len(self._fleets):
            machines = self._fleets[uid]
        created, version = self.start - 30 * DAY, self.target_version
        servers = []
        for index, machine in enumerate(machines):
            no_errors = [None] * machine.gpus
            server = self.build_server(uid, index, machine.model, no_errors, created, version)
            servers.append(server)
        return tuple(servers)

    def jobs(self, now: float) -> list[Job]:  # noqa: ARG002 - they stand still
        """Return the stuck jobs."""
        jobs = []
        for number, hotkey in enumerate(self.stuck):
            # The empty list says that no hotkey tried the job.
            job_id, miner = make_uuid("job", number), self.by_hotkey[hotkey]
            jobs.append(Job(job_id, self.chutes[PRIVATE], self.start - HOUR, (), miner))
        return jobs

    # Changes that tests make

    def launch(
        self,
        miner: Miner,
        gpus: Sequence[Gpu],
        chute: int,
        created: float,
        *,
        verified: float = 90,
        activated: float = 600,
    ) -> None:
        """Launch an instance that does not end by itself, of the chute with a number.

        Its creation is a Unix time. It is verified and activated so many seconds later, or never if
        they are infinite.
        """
        self._count += 1
        self.add(
            Instance(
                instance_id=make_uuid("instance", self._count),
                hotkey=miner.hotkey,
                chute=self.chutes[chute],
                gpus=tuple(gpus),
                created_at=created,
                verified_at=created + verified,
                activated_at=created + activated,
            )
        )

    def end(self, instances: Iterable[Instance], now: float) -> None:
        """Let instances end by failed requests, at a Unix time."""
        for instance in instances:
            instance.ended_at, instance.end = now, End.FAILURES

    def on(self, miner: Miner, server: int, now: float) -> list[Instance]:
        """Return the instances on the server with a number."""
        gpus = set(miner.servers[server].gpus)
        return [one for one in self.instances(now, miner.hotkey) if gpus & set(one.gpus)]

    def deregister(self, miner: Miner) -> None:
        """Take the seat of a miner. Its instances stay."""
        self.miners.remove(miner)
        del self.by_hotkey[miner.hotkey]
