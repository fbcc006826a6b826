"""A world with what real answers were seen with: repeats, nothing, and text that breaks what is careless."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from chutes_exporter.simulator import World
from chutes_exporter.simulator.times import HOUR

if TYPE_CHECKING:
    from chutes_exporter.simulator.chutes import Chute
    from chutes_exporter.simulator.world import Server

UPDATED_CHUTE = 2
"""The number of the chute that got a new version three hours before the world's start."""
EMPTY_SERVER = 2
"""The number of the first miner's server that has no GPUs."""


class OddWorld(World):
    """Odd names and errors; odd servers; chutes without a name, and one that is being updated.

    Some servers have the same name or address, one has no GPUs, and one is of unknown version.
    """

    chute_names: ClassVar[tuple[str, ...]] = (
        'weights "quoted"\\and\\slashed',
        "modèle-\N{SNOWMAN}-\N{CJK UNIFIED IDEOGRAPH-6A21}\N{GRINNING FACE}",
        *World.chute_names,
    )
    gpu_errors: ClassVar[tuple[str, ...]] = ('attestation said "no"\nat line 2\\end', "GraVal challenge timed out")

    def make_chute(self, index: int) -> Chute:
        """Make a chute; one in seven has null in its name, slug, boost and flags."""
        chute = super().make_chute(index)
        if index % 7 == 3:
            chute = replace(chute, name=None, slug=None, scaled=False, tee=None, disabled=None)
        if index == UPDATED_CHUTE:
            chute = replace(chute, phase=(self.start - 3 * HOUR) / chute.deploy_period % 1)
        return chute

    def make_server(self, uid: int, index: int) -> Server:
        """Make a server; the first miner has one of each oddity."""
        server = super().make_server(uid, index)
        if uid == 0:
            if index == 1:
                server = replace(server, ip=super().make_server(0, 0).ip)
            elif index == EMPTY_SERVER:
                server = replace(server, gpus=())
            elif index in (3, 4):
                server = replace(server, name="rack-7")
            elif index == 5:
                server = replace(server, name='h100 "rack\\7"\nünï', ip="gpu-box.miner.example")
            elif index == 6:
                server = replace(server, is_tee=True, version=None)
        return server

    def blacklist_reason(self, uid: int) -> str | None:
        """Return an odd text for the last seat, and an empty one, which does not blacklist, for the one before it."""
        if super().blacklist_reason(uid):
            return 'abuse: "spoofed" GPUs\nsee \\log'
        return "" if 0 < uid == self.size.miners - 2 else None
