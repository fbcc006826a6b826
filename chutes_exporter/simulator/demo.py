"""The world of the demo: an ordinary miner, with the troubles that somebody wants to see."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.simulator.service import End, make_random
from chutes_exporter.simulator.world import Outage, Size, Slot, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chutes_exporter.simulator.service import Chute, Gpu
    from chutes_exporter.simulator.world import Life, Miner, Server

TROUBLES: Final = {
    "crash-loop": "instances on a new server fail again and again, and one is never verified",
    "dead-server": "a server has just lost all its instances, and gets no new ones",
    "blacklisted": "the miner is blacklisted",
    "upgrade": (
        "a maintenance window ends soon, one server has an old version, and one has not come back"
    ),
    "idle": "a new server has no instances, and an old one without TEE has unverified GPUs",
    "failing-chute": "a chute fails on this miner's server, and runs nowhere else",
    "bleed": "instances on a server fail shortly before their first hour ends",
    "thrashing": "instances on a server are scaled down after minutes, and the next come late",
    "start-in-vain": "instances start of private chutes that have enough active ones",
}
"""The troubles of the first miner, with what happens."""
DEFAULT_TROUBLES: Final = ("crash-loop", "idle")


class DemoServer(NamedTuple):
    """A server of the first miner, with the model and number of its GPUs.

    Its trouble is one of TROUBLES, or empty.
    """

    model: str
    gpus: int
    trouble: str


FLEET: Final = (
    DemoServer("h200", 4, ""),
    DemoServer("pro_6000", 8, ""),
    DemoServer("pro_6000", 8, "upgrade"),
    DemoServer("pro_6000", 4, "upgrade"),
    DemoServer("pro_6000", 4, "dead-server"),
    DemoServer("pro_6000", 4, "crash-loop"),
    DemoServer("pro_6000", 4, "idle"),
    DemoServer("4090", 2, "idle"),
    DemoServer("pro_6000", 4, "failing-chute"),
    DemoServer("pro_6000", 4, "bleed"),
    DemoServer("pro_6000", 4, "thrashing"),
    DemoServer("pro_6000", 2, "start-in-vain"),
)
_ALWAYS_THERE: Final = 7
"""The number of servers, from the first one on, that exist without their trouble, too. So do all
that have none.
"""
_LOOP_DAYS: Final = 3
"""Days before the start at which a loop begins, and after it at which it ends."""


class _Loop(NamedTuple):
    """Instances that end again and again, and why.

    All times are in minutes. The period is that from one creation to the next. The others begin
    with the creation.
    """

    period: float
    verified: float
    activated: float
    ended: float
    end: End


_LOOPS: Final = {
    "crash-loop": _Loop(25, 3, 7, 20, End.FAILURES),
    # Its starts fail: no instance is ever active.
    "failing-chute": _Loop(25, 3, math.inf, 20, End.FAILURES),
    "bleed": _Loop(65, 2, 7, 62, End.FAILURES),
    "thrashing": _Loop(30, 1, 2, 10, End.SCALED_DOWN),
}


class DemoWorld(World):
    """A world whose first miner is in the middle of the ranking.

    All its GPUs earn, except for its troubles.
    """

    window_age = 4 * DAY - 6 * HOUR  # so that it ends 6 hours after the start
    miners_without_jobs = 1  # so that no job is stuck with the first miner

    def __init__(
        self,
        *,
        seed: int = 75,
        start: float,
        troubles: Sequence[str] = DEFAULT_TROUBLES,
        size: Size | None = None,
        fleet: Sequence[DemoServer] = FLEET,
    ) -> None:
        self._fleet: list[DemoServer] = []
        for index, server in enumerate(fleet):
            if not server.trouble or server.trouble in troubles:
                self._fleet.append(server)
            elif index < _ALWAYS_THERE:
                self._fleet.append(server._replace(trouble=""))
        self._has_failing_chute = "failing-chute" in troubles
        size = replace(size or Size(), servers=len(self._fleet))
        super().__init__(seed=seed, start=start, size=size)
        # At this age, the first miner loses its seat within three days if it is blacklisted,
        # because then it has no score.
        self.miners[0].registered_at = start - 16 * DAY
        self.miners[0].blacklist_reason = "Spoofed GPUs" if "blacklisted" in troubles else None

    def make_server(self, uid: int, index: int) -> Server:
        """Make a server, for the first miner the one of the fleet with its trouble."""
        if uid:
            return super().make_server(uid, index)
        model, gpu_count, trouble = self._fleet[index]
        is_tee = model != "4090"
        age = (30 - index) * DAY
        # These troubles are of a new server. The old one without TEE has unverified GPUs.
        if is_tee and trouble in ("crash-loop", "idle"):
            age = 3 * HOUR
        version = self.target_version if is_tee else None
        # Of the two servers to upgrade in FLEET, the one with index 3 has begun it, and has not
        # come back. The other one has a version that cannot boot any more.
        has_not_come_back = trouble == "upgrade" and index == 3
        if trouble == "upgrade":
            version = "1.3.1" if has_not_come_back else "1.3.0"
        error = None if is_tee else self.gpu_errors[0]
        server = self.build_server(
            uid, index, model, [error] * gpu_count, self.start - age, version
        )
        if has_not_come_back:
            return replace(server, upgrade=(self.start - 4 * HOUR, math.inf))
        return server

    def _lives(self, miner: Miner, server: Server) -> Iterator[Life]:
        """Yield the lives on a server. Those of the first miner's servers are steady, or follow the
        server's trouble.
        """
        if miner.uid:
            yield from super()._lives(miner, server)
            return
        # The name of a server ends with its index.
        index = int(server.name.rpartition("-")[2])
        trouble = self._fleet[index].trouble
        slots = self._slots(miner, server)
        if trouble == "idle":
            return
        if trouble == "start-in-vain":
            for slot in slots:
                yield self._start_in_vain(slot)
        elif trouble == "failing-chute":
            for gpu in server.gpus:
                yield from self._loop(server, self._failing_slot(miner, gpu), _LOOPS[trouble])
        elif trouble in _LOOPS:
            # These instances become active whatever their chute's target is. The service would
            # refuse that for a private chute that has enough of them.
            public_slots = map(_with_public_chutes, slots)
            yield from self._public_loops(server, public_slots, trouble)
        else:
            yield from self._steady_server(server, slots, is_dead=trouble == "dead-server")

    def _public_loops(self, server: Server, slots: Iterator[Slot], trouble: str) -> Iterator[Life]:
        """Yield the lives of instances that end again and again, in a loop for each slot."""
        if trouble == "crash-loop":
            # On the first slot, a single instance is never verified. The service purges it after
            # 3.5 hours, which is 40 minutes after the start of the world. The loops run on the
            # other slots.
            purged = self.start + 40 * MINUTE
            created = purged - 3.5 * HOUR
            yield self._single(next(slots), created, math.inf, math.inf, purged, End.PURGED)
        for slot in slots:
            yield from self._loop(server, slot, _LOOPS[trouble])

    def _loop(self, server: Server, slot: Slot, loop: _Loop) -> Iterator[Life]:
        """Yield a life for each instance of a loop."""
        created = max(server.created_at, self.start - _LOOP_DAYS * DAY) + 5 * MINUTE
        while created < self.start + _LOOP_DAYS * DAY:
            verified = created + loop.verified * MINUTE
            activated = created + loop.activated * MINUTE
            ended = created + loop.ended * MINUTE
            yield self._single(slot, created, verified, activated, ended, loop.end)
            created += loop.period * MINUTE

    @cached_property
    def _failing_chute(self) -> Chute:
        """The first public chute that runs on a single GPU of the first miner's servers."""
        return next(
            chute
            for chute in self.chutes
            if chute.public
            and chute.tee
            and not chute.disabled
            and chute.gpu_count == 1
            and "pro_6000" in chute.models
        )

    def _failing_slot(self, miner: Miner, gpu: Gpu) -> Slot:
        """Return the slot of a GPU on which only the failing chute runs.

        Its server is never upgraded, so it has no outages.
        """
        return Slot(
            seed=f"{self._seed}/failing/{gpu.uuid}",
            hotkey=miner.hotkey,
            gpus=(gpu,),
            chutes=[self._failing_chute],
            # All GPUs with TEE are verified, so the start is never used.
            begins_at=gpu.verified_at or self.start,
            outages=(),
        )

    def _wants(self, chute: Chute, now: float) -> bool:
        # The failing chute fails with every miner, so that it runs nowhere else.
        is_failing = self._has_failing_chute and chute is self._failing_chute
        return not is_failing and super()._wants(chute, now)

    def _start_in_vain(self, slot: Slot) -> Life:
        """Run instances of private chutes that have as many active instances as are wanted.

        Each one is verified, waits in vain for 3 hours to become active, and is purged.
        """
        # The first one is starting when the world starts.
        now = self.start - 30 * MINUTE
        while True:
            yield now
            full_chutes = [chute for chute in slot.chutes if self._is_full(chute, now)]
            # Without any, the least used chute is the likeliest to be full soon.
            chute = min(full_chutes or slot.chutes, key=lambda one: one.utilization(now))
            verified = now + 2 * MINUTE
            purged = verified + 3 * HOUR
            self.add(slot.launch(now, chute, now, verified, math.inf, purged, End.PURGED))
            now += 3 * HOUR + 5 * MINUTE

    def _is_full(self, chute: Chute, now: float) -> bool:
        """Return whether a private chute has some active instances, and wants no more."""
        active = sum(one.active(now) for one in self._recent[chute])
        return not chute.public and active > 0 and active >= self.target(chute, now)

    def _steady_server(
        self, server: Server, slots: Iterator[Slot], *, is_dead: bool
    ) -> Iterator[Life]:
        """Yield two lives for each slot: an instance that stays for hours around the start, and the
        others, which come and go before and after it.

        On a dead server, the instance failed before the start, and nothing comes after it.
        """
        draw = make_random(self._seed, "steady", server.server_id)
        for slot in slots:
            created = self.start - draw.uniform(5, 30) * HOUR
            stays_until = self.start + draw.uniform(2, 20) * HOUR
            if is_dead:
                ended, end = self.start - 40 * MINUTE, End.FAILURES
                others_from = math.inf
            else:
                ended, end = stays_until, End.SCALED_DOWN
                others_from = stays_until
            # It holds the GPUs, which is an outage for the others.
            outage = Outage(created, others_from, End.SCALED_DOWN)
            yield self._life(slot._replace(outages=(*slot.outages, outage)))
            verified, activated = created + 2 * MINUTE, created + 9 * MINUTE
            yield self._single(slot, created, verified, activated, ended, end)

    def _single(
        self,
        slot: Slot,
        created: float,
        verified: float,
        activated: float,
        ended: float,
        end: End,
    ) -> Life:
        """Run a single instance on a slot, with these Unix times, and why it ends."""
        # All single instances of a slot are of the same chute.
        chute = make_random(slot.seed).choice(slot.chutes)
        # The first argument is its name in the slot: the time of its creation.
        instance = slot.launch(created, chute, created, verified, activated, ended, end)
        return self._staged(instance)


def _with_public_chutes(slot: Slot) -> Slot:
    return slot._replace(chutes=[chute for chute in slot.chutes if chute.public])
