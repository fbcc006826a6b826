"""The world of the demo: an ordinary miner, with the troubles that somebody wants to see."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.simulator.service import End, make_random
from chutes_exporter.simulator.world import Size, World

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

    from chutes_exporter.simulator.world import Miner, Server, Slot

TROUBLES: Final = {
    "crash-loop": "instances on a new server fail again and again, and one is never verified",
    "dead-server": "a server has just lost all its instances, and gets no new ones",
    "blacklisted": "the miner is blacklisted",
    "upgrade": (
        "a maintenance window ends soon, one server has an old version, and one has not come back"
    ),
    "idle": "a new server has no instances, and an old one without TEE has unverified GPUs",
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
)
"""Model and number of GPUs of each server of the first miner, and its trouble.

The last exists only if it is idle.
"""


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
            for model, count, trouble in _FLEET
        ]
        servers = len(_FLEET) - ("idle" not in troubles)
        super().__init__(seed=seed, start=start, size=replace(size or Size(), servers=servers))
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
        now, (*_, trouble) = self.start, self._fleet[int(server.name.rpartition("-")[2])]
        if trouble == "idle":
            return
        draw = make_random(self._seed, "steady", server.server_id)
        slots = self._slots(miner, server)
        if trouble == "crash-loop":
            # The service refuses the activation on a private chute that has enough instances.
            slots = map(_of_public_chutes, slots)
        for number, slot in enumerate(slots):
            if trouble == "crash-loop" and not number:
                # It is never verified, and purged after the start.
                purged = now + 40 * MINUTE
                yield self._steady(
                    slot, purged - 3.5 * HOUR, math.inf, math.inf, purged, End.PURGED
                )
            elif trouble == "crash-loop":
                yield from self._failing(slot, server)
            else:
                yield from self._earning(slot, draw, is_dead=trouble == "dead-server")

    def _failing(self, slot: Slot, server: Server) -> Iterator[Iterator[float]]:
        """Yield instances for three days.

        One fails 20 minutes after its creation, and the next comes 5 minutes later.
        """
        for minute in range(5, 3 * 24 * 60, 25):
            made = server.created_at + minute * MINUTE
            times = (made, made + 3 * MINUTE, made + 7 * MINUTE, made + 20 * MINUTE)
            yield self._steady(slot, *times, End.FAILURES)

    def _earning(
        self, slot: Slot, draw: random.Random, *, is_dead: bool
    ) -> Iterator[Iterator[float]]:
        """Yield one instance that stays, between those that come and go."""
        now = self.start
        made, stays = now - draw.uniform(5, 30) * HOUR, now + draw.uniform(2, 20) * HOUR
        ended, end, next_at = stays, End.SCALED_DOWN, stays
        if is_dead:
            ended, end, next_at = now - 40 * MINUTE, End.FAILURES, math.inf
        outage = made, next_at, End.SCALED_DOWN
        yield self._life(slot._replace(outages=(*slot.outages, outage)))
        yield self._steady(slot, made, made + 2 * MINUTE, made + 9 * MINUTE, ended, end)

    def _steady(self, slot: Slot, created: float, *times: Any) -> Iterator[float]:
        chute = make_random(slot.seed).choice(slot.chutes)
        return self._staged(slot.launch(created, chute, created, *times))


def _of_public_chutes(slot: Slot) -> Slot:
    return slot._replace(chutes=[chute for chute in slot.chutes if chute.public])
