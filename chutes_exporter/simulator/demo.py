"""The world of the demo: an ordinary miner, with the troubles that somebody wants to see."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.simulator.service import End, make_random
from chutes_exporter.simulator.world import Size, Slot, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chutes_exporter.simulator.service import Chute, Gpu
    from chutes_exporter.simulator.world import Miner, Server

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
_FLEET: Final = (
    ("h200", 4, ""),
    ("pro_6000", 8, ""),
    ("pro_6000", 8, "upgrade"),
    ("pro_6000", 4, "upgrade"),
    ("pro_6000", 4, "dead-server"),
    ("pro_6000", 4, "crash-loop"),
    ("pro_6000", 4, "idle"),
    ("4090", 2, "idle"),
    ("pro_6000", 4, "failing-chute"),
    ("pro_6000", 4, "bleed"),
    ("pro_6000", 4, "thrashing"),
    ("pro_6000", 2, "start-in-vain"),
)
"""Model and number of GPUs of each server of the first miner, and its trouble."""
_ALWAYS_THERE: Final = 7
"""So many servers exist without their trouble, too."""
_LOOP_DAYS: Final = 3
"""A loop goes on for so many days after the start."""


class _Loop(NamedTuple):
    """Instances that end again and again, and why.

    All times are in minutes: from one creation to the next, and from the creation on.
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
    first_job_miner = 1

    def __init__(
        self,
        *,
        seed: int = 75,
        start: float,
        troubles: Sequence[str] = DEFAULT_TROUBLES,
        size: Size | None = None,
    ) -> None:
        self._fleet = [
            (model, count, trouble if trouble in troubles else "")
            for index, (model, count, trouble) in enumerate(_FLEET)
            if index < _ALWAYS_THERE or trouble in troubles
        ]
        self._fails = "failing-chute" in troubles
        size = replace(size or Size(), servers=len(self._fleet))
        super().__init__(seed=seed, start=start, size=size)
        # Without a score, it would lose its seat within three days.
        self.miners[0].registered_at = start - 16 * DAY
        self.miners[0].blacklist_reason = "Spoofed GPUs" if "blacklisted" in troubles else None

    def make_server(self, uid: int, index: int) -> Server:
        """Make a server, for the first miner the one of the fleet with its trouble."""
        if uid:
            return super().make_server(uid, index)
        model, count, trouble = self._fleet[index]
        is_tee = model != "4090"
        age = (30 - index) * DAY
        if is_tee and trouble in ("crash-loop", "idle"):
            age = 3 * HOUR
        created = self.start - age
        errors = [None if is_tee else self.gpu_errors[0]] * count
        version = self.target_version if is_tee else None
        if trouble == "upgrade":
            # The second has not come back.
            version = "1.3.1" if index == 3 else "1.3.0"
        server = self.build_server(uid, index, model, errors, created, version)
        if version == "1.3.1":
            return replace(server, upgrade=(self.start - 4 * HOUR, math.inf))
        return server

    def _lives(self, miner: Miner, server: Server) -> Iterator[Iterator[float]]:
        """Yield lives like World.

        On the first miner's servers, they are steady or follow the server's trouble.
        """
        if miner.uid:
            yield from super()._lives(miner, server)
            return
        # The name ends with the index.
        *_, trouble = self._fleet[int(server.name.rpartition("-")[2])]
        slots = self._slots(miner, server)
        if trouble == "idle":
            return
        if trouble == "start-in-vain":
            yield from map(self._start_in_vain, slots)
        elif trouble == "failing-chute":
            for gpu in server.gpus:
                yield from self._loop(server, self._failing_slot(miner, gpu), _LOOPS[trouble])
        elif trouble in _LOOPS:
            yield from self._public_loops(server, map(_of_public_chutes, slots), trouble)
        else:
            yield from self._steady_server(server, slots, is_dead=trouble == "dead-server")

    def _public_loops(
        self, server: Server, slots: Iterator[Slot], trouble: str
    ) -> Iterator[Iterator[float]]:
        """Yield lives of public chutes that end again and again.

        The service refuses the activation on a private chute that has enough instances.
        """
        if trouble == "crash-loop":
            # The first is never verified, and purged after the start.
            purged = self.start + 40 * MINUTE
            times = purged - 3.5 * HOUR, math.inf, math.inf, purged, End.PURGED
            yield self._steady(next(slots), *times)
        for slot in slots:
            yield from self._loop(server, slot, _LOOPS[trouble])

    def _loop(self, server: Server, slot: Slot, loop: _Loop) -> Iterator[Iterator[float]]:
        """Yield a life for each instance of a loop."""
        created = max(server.created_at, self.start - _LOOP_DAYS * DAY) + 5 * MINUTE
        while created < self.start + _LOOP_DAYS * DAY:
            minutes = loop.verified, loop.activated, loop.ended
            times = (created + after * MINUTE for after in minutes)
            yield self._steady(slot, created, *times, loop.end)
            created += loop.period * MINUTE

    @cached_property
    def _failing_chute(self) -> Chute:
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
        seed, begins = f"{self._seed}/failing/{gpu.uuid}", gpu.verified_at or self.start
        return Slot(seed, miner.hotkey, (gpu,), [self._failing_chute], begins, ())

    def _wants(self, chute: Chute, now: float) -> bool:
        # No instance of it would stay, with anybody.
        is_failing = self._fails and chute is self._failing_chute
        return not is_failing and super()._wants(chute, now)

    def _start_in_vain(self, slot: Slot) -> Iterator[float]:
        """Run instances of private chutes that have as many active instances as ever wanted.

        Each is verified, waits for 3 hours, and is purged. Yield the times at which it continues.
        """
        now = self.start - 30 * MINUTE
        while True:
            yield now
            full = [chute for chute in slot.chutes if self._is_full(chute, now)]
            # Without any, the least used chute is the likeliest to be full soon.
            chute = min(full or slot.chutes, key=lambda one: one.utilization(now))
            verified = now + 2 * MINUTE
            times = verified, math.inf, verified + 3 * HOUR, End.PURGED
            self.add(slot.launch(now, chute, now, *times))
            now += 3 * HOUR + 5 * MINUTE

    def _is_full(self, chute: Chute, now: float) -> bool:
        active = sum(one.active(now) for one in self._recent[chute])
        return not chute.public and 0 < active >= self.target(chute, now)

    def _steady_server(
        self, server: Server, slots: Iterator[Slot], *, is_dead: bool
    ) -> Iterator[Iterator[float]]:
        """Yield lives of one instance each that stays, between those that come and go.

        On a dead server, it failed before the start, and nothing came after it.
        """
        now, draw = self.start, make_random(self._seed, "steady", server.server_id)
        for slot in slots:
            made, stays = now - draw.uniform(5, 30) * HOUR, now + draw.uniform(2, 20) * HOUR
            until, ended, end = stays, stays, End.SCALED_DOWN
            if is_dead:
                until, ended, end = math.inf, now - 40 * MINUTE, End.FAILURES
            outage = made, until, End.SCALED_DOWN
            yield self._life(slot._replace(outages=(*slot.outages, outage)))
            yield self._steady(slot, made, made + 2 * MINUTE, made + 9 * MINUTE, ended, end)

    def _steady(self, slot: Slot, created: float, *times: Any) -> Iterator[float]:
        chute = make_random(slot.seed).choice(slot.chutes)
        return self._staged(slot.launch(created, chute, created, *times))


def _of_public_chutes(slot: Slot) -> Slot:
    return slot._replace(chutes=[chute for chute in slot.chutes if chute.public])
