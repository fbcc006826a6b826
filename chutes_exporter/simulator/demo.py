"""The world of the demo: an ordinary miner that has just added two servers, which are its troubles."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from chutes_exporter.simulator.instances import LONGEST_UNVERIFIED, End, Slot
from chutes_exporter.simulator.times import AUTOSCALER_PERIOD, HOUR, MINUTE, next_run
from chutes_exporter.simulator.world import Size, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chutes_exporter.simulator.chutes import Chute
    from chutes_exporter.simulator.instances import Gpu, Instance
    from chutes_exporter.simulator.world import Server

_FLEET: Final = (
    ("h200", 8),
    ("h100_sxm", 8),
    ("a100", 8),
    ("a100", 8),
    ("l40s", 8),
    ("h100_sxm", 4),
    ("5090", 8),
    ("4090", 8),
    ("a100", 4),
    ("4090", 2),
)
"""Model and number of GPUs of each server of the first miner."""
_LAUNCHING: Final = 8
"""The server whose first instance is not verified in time."""
_IDLE: Final = 9
"""The server that has no instance."""
_ADDED_BEFORE: Final = 3 * HOUR
"""Seconds before the start at which these two servers were added."""
_LAUNCHED_BEFORE: Final = LONGEST_UNVERIFIED - 40 * MINUTE
"""Seconds before the start of that instance's creation. It is purged 40 minutes after the start, or soon after."""


def _name(index: int) -> str:
    return f"{_FLEET[index][0].replace('_', '-')}-{index}"


class _LaunchingSlot(Slot):
    """A slot whose first instance is created at its start, and is never verified."""

    def __init__(self, seed: str, hotkey: str, gpus: tuple[Gpu, ...], chutes: Sequence[Chute], start: float) -> None:
        super().__init__(seed, hotkey, gpus, chutes, start, World.gpu_errors)
        self._next = start

    def _launch(self, created: float) -> Instance:
        instance = super()._launch(created)
        if self._count > 1:
            return instance
        purge = next_run(created + LONGEST_UNVERIFIED, AUTOSCALER_PERIOD)
        return replace(instance, verified_at=None, activated_at=None, disabled_at=None, ended_at=purge, end=End.PURGED)


class DemoWorld(World):
    """A world whose first miner is in the middle of the ranking, and needs something done at once.

    Args:
        seed: Seed of everything but the first miner's hardware.
        start: Unix time at which the demo starts.
    """

    def __init__(self, *, seed: int = 64, start: float) -> None:
        super().__init__(seed=seed, start=start, size=Size(servers=len(_FLEET)))

    def make_server(self, uid: int, index: int) -> Server:
        """Make the server with a number of a miner."""
        server = super().make_server(uid, index)
        if uid:
            return server
        model, count = _FLEET[index]
        created = self.start - _ADDED_BEFORE if index in (_LAUNCHING, _IDLE) else server.created_at
        draw = self._random("demo", index)
        return replace(
            server,
            name=_name(index),
            is_tee=index == 0,
            version="0.3.0" if index == 0 else None,
            created_at=created,
            updated_at=None,
            gpus=tuple(self._gpu(server.server_id, model, device, created, draw) for device in range(count)),
        )

    def _slots(self, uid: int, hotkey: str, servers: Sequence[Server]) -> Iterator[Slot]:
        if uid:
            yield from super()._slots(uid, hotkey, servers)
            return
        before = self.start - _ADDED_BEFORE
        yield from super()._slots(uid, hotkey, [server for server in servers if server.created_at < before])
        (launching,) = (server for server in servers if server.name == _name(_LAUNCHING))
        chutes = [chute for chute in self._fitting(launching, len(launching.gpus)) if chute.public]
        yield _LaunchingSlot(f"{self._seed}/demo", hotkey, launching.gpus, chutes, self.start - _LAUNCHED_BEFORE)
