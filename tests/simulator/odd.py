"""A world with what real answers were seen with: repeats, nothing, and text that breaks what is
careless.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.simulator import World
from chutes_exporter.simulator.service import End, Instance, make_uuid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chutes_exporter.simulator.service import Chute, Gpu
    from chutes_exporter.simulator.world import Miner, Server


class OddWorld(World):
    """A world with odd names, errors and servers, and with chutes without a name.

    Some servers have the same name or address, one has no GPUs, and one is of unknown version. The
    service still has cooldowns, and long ones. The first miner has an instance in each state, idle
    GPUs, and an old server without TEE with an unverified GPU.
    """

    chute_names: ClassVar[tuple[str, ...]] = (
        'weights "quoted"\\and\\slashed',
        "modèle-\N{SNOWMAN}-\N{CJK UNIFIED IDEOGRAPH-6A21}\N{GRINNING FACE}",
        *World.chute_names,
    )
    cooldown: ClassVar[float] = DAY
    gpu_errors: ClassVar[tuple[str, ...]] = (
        'attestation said "no"\nat line 2\\end',
        "GraVal challenge timed out",
    )

    def make_chute(self, index: int) -> Chute:
        """Make a chute; one in seven has null in its name, slug, boost and flags."""
        chute = super().make_chute(index)
        if index % 7 == 3:
            chute = replace(chute, name=None, slug=None, scaled=False, tee=None, disabled=None)
        if index == 1:
            # Its version came half an hour before the start.
            chute = replace(chute, phase=(self.start - HOUR / 2) / chute.deploy_period % 1)
        return chute

    def make_server(self, uid: int, index: int) -> Server:
        """Make a server; the first miner has one of each oddity."""
        server = super().make_server(uid, index)
        if uid != 0 or index == 0:
            return server
        oddities: dict[int, dict[str, Any]] = {
            1: {"ip": super().make_server(0, 0).ip},
            2: {"gpus": ()},
            3: {"name": "rack-7"},
            4: {"name": "rack-7"},
            5: {"name": 'h100 "rack\\7"\nünï', "ip": "gpu-box.miner.example"},
            6: {"is_tee": True, "version": None},
        }
        return replace(server, **oddities.get(index, {}))

    def blacklist_reason(self, uid: int) -> str | None:
        """Return an odd text for the last seat, and an empty one, which does not blacklist, for the
        one before it.
        """
        if super().blacklist_reason(uid):
            return 'abuse: "spoofed" GPUs\nsee \\log'
        # In a world of two miners, the one before the last is the first, which gets no odd text.
        is_one_before_last = uid == self.size.miners - 2
        if is_one_before_last and uid > 0:
            return ""
        return None

    def _lives(self, miner: Miner, server: Server) -> Iterator[Iterator[float]]:
        """Stage an instance in each state on the two racks of the first miner."""
        if miner.uid != 0 or server.name != "rack-7":
            yield from super()._lives(miner, server)
            return
        if server.is_tee:
            starting, disabled, outdated, *_ = server.gpus
            yield self._stage(miner.hotkey, starting, 0, age=2 * HOUR)
            # It is older than the newest version of chute 1.
            yield self._stage(miner.hotkey, outdated, 1, age=5 * HOUR, active_for=4 * HOUR)
            yield self._stage(
                miner.hotkey, disabled, 7, age=2 * HOUR, active_for=HOUR, disabled_for=HOUR / 2
            )
        else:
            # Which GPUs of an old server have an error is random otherwise.
            verified, unverified = server.gpus
            verified.error, verified.verified_at = None, server.created_at
            unverified.error, unverified.verified_at = self.gpu_errors[0], None
            # Chute 5 has no TEE either.
            yield self._stage(miner.hotkey, verified, 5, age=5 * HOUR, active_for=4 * HOUR)

    def _stage(
        self,
        hotkey: str,
        gpu: Gpu,
        chute: int,
        *,
        age: float,
        active_for: float = 0,
        disabled_for: float = 0,
    ) -> Iterator[float]:
        """Let an instance exist at the start, and in the hour after it.

        ``age``, ``active_for`` and ``disabled_for`` are the seconds from its creation, activation
        and disabling to the start. With 0, it is not activated or disabled.
        """
        created = self.start - age
        verified = created + 150
        ended, end = self.start + DAY, End.SCALED_DOWN
        if not active_for or disabled_for:
            # The service purges an instance that is not active 3 hours after its verification.
            ended, end = verified + 3 * HOUR, End.PURGED
        activated = self.start - active_for if active_for else math.inf
        disabled = self.start - disabled_for if disabled_for else math.inf
        times = (created, verified, activated, ended, end, disabled)
        return self._staged(
            Instance(make_uuid("staged", gpu.uuid), hotkey, self.chutes[chute], (gpu,), *times)
        )
