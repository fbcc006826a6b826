"""The world of the demo: an ordinary miner, with the troubles that somebody wants to see."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from chutes_exporter.duration import DAY, HOUR, MINUTE
from chutes_exporter.simulator.instances import End
from chutes_exporter.simulator.world import LONGEST_START, Size, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chutes_exporter.simulator.world import Server, Slot

TROUBLES: Final = {
    "crash-loop": "instances on a new server fail again and again, and one is never verified",
    "dead-server": "a server has just lost all its instances, and gets no new ones",
    "blacklisted": "the miner is blacklisted",
    "upgrade": "a maintenance window ends soon, one server has an old version, and one has not come back",
    "idle": "a new server has no instances, and an old one without TEE has unverified GPUs",
}
"""The troubles of the first miner, with what happens."""
DEFAULT_TROUBLES: Final = ("crash-loop", "idle")
_FLEET: Final = (("h200", 4), *(("pro_6000", 8),) * 2, *(("pro_6000", 4),) * 4, ("4090", 2))
"""Model and number of GPUs of each server of the first miner. The last one exists only if it is idle."""
_OLD, _UPGRADING, _DEAD, _CRASHING, _IDLE, _WITHOUT_TEE = 2, 3, 4, 5, 6, 7
"""Indexes of the servers with troubles."""


class DemoWorld(World):
    """A world whose first miner is in the middle of the ranking. All its GPUs earn, except for its troubles."""

    # The window ends 6 hours after the start.
    window_opened = 4 * DAY - 6 * HOUR
    first_job_miner = 1

    def __init__(
        self,
        *,
        seed: int = 64,
        start: float,
        troubles: Sequence[str] = DEFAULT_TROUBLES,
        size: Size | None = None,
    ) -> None:
        self._troubles = frozenset(troubles)
        servers = len(_FLEET) if "idle" in troubles else len(_FLEET) - 1
        super().__init__(seed=seed, start=start, size=replace(size or Size(), servers=servers))

    def blacklist_reason(self, uid: int) -> str | None:
        return "Spoofed GPUs" if uid == 0 and "blacklisted" in self._troubles else super().blacklist_reason(uid)

    def make_server(self, uid: int, index: int) -> Server:
        server = super().make_server(uid, index)
        if uid:
            return server
        model, count = _FLEET[index]
        is_new = (index == _CRASHING and "crash-loop" in self._troubles) or (
            index == _IDLE and "idle" in self._troubles
        )
        is_tee = index != _WITHOUT_TEE
        created = self.start - (3 * HOUR if is_new else (30 - index) * DAY)
        error = None if is_tee else self.gpu_errors[0]
        server = replace(
            server,
            name=f"{model.replace('_', '-')}-{index}",
            is_tee=is_tee,
            version=self.target_version if is_tee else None,
            created_at=created,
            updated_at=None,
            gpus=tuple(self._gpu(server.server_id, model, device, created, error) for device in range(count)),
            upgrade=(math.inf, math.inf),
        )
        if "upgrade" in self._troubles and index == _OLD:
            return replace(server, version="1.3.0")
        if "upgrade" in self._troubles and index == _UPGRADING:
            return replace(server, version="1.3.1", upgrade=(self.start - 4 * HOUR, math.inf))
        return server

    def _slots(self, uid: int, hotkey: str, server: Server) -> Iterator[Slot]:
        index = int(server.name.rpartition("-")[2])
        if uid:
            yield from super()._slots(uid, hotkey, server)
        elif index == _CRASHING and "crash-loop" in self._troubles:
            for number, slot in enumerate(super()._slots(uid, hotkey, server)):
                # The first one is never verified. It is purged 40 minutes after the start.
                begins = server.created_at + 5 * MINUTE if number else self.start + 40 * MINUTE - LONGEST_START
                yield replace(slot, begins_at=begins, crashes=True, stuck=not number)
        elif index != _IDLE or "idle" not in self._troubles:
            dies = index == _DEAD and "dead-server" in self._troubles
            draw = self._random("steady", server.server_id)
            for slot in super()._slots(uid, hotkey, server):
                steady = self.start - draw.uniform(5, 30) * HOUR
                outages = *slot.outages, (steady, steady, End.SCALED_DOWN)
                if dies:
                    outages = *outages, (self.start - 40 * MINUTE, math.inf, End.FAILURES)
                yield replace(slot, steady=(steady, self.start + 2 * HOUR), outages=outages)
