"""Runs the command against a simulated API."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chutes_exporter.simulator import Size, World
from chutes_exporter.simulator.world import TEST_SEED
from tests import test_cli
from tests.chain.support import EXPECTED, FakeNode, number, recorded_block
from tests.recorded import answers
from tests.simulator.odd import OddWorld
from tests.support import HOTKEY, PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from chutes_exporter.simulator import Simulator

MINE = {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
"""The variables that bring the test key."""


@dataclass(frozen=True)
class Target:
    """An API to run a command against."""

    url: str


async def run(
    simulator: Simulator | Target,
    *arguments: str,
    stdin: str = "",
    variables: dict[str, str] | None = None,
) -> tuple[int, str, str]:
    """Run a command to its end in a thread; returns its status, its output and its errors.

    Args:
        simulator: The API that it asks.
        arguments: The command and its flags.
        stdin: Its input.
        variables: More of its environment. Without any, these are the ones of the test key.
    """
    environment = {"CHUTES_EXPORTER_API_TIMEOUT": str(PATIENCE)}
    environment |= MINE if variables is None else variables
    result = await asyncio.to_thread(
        test_cli.run, *arguments, "--api.url", simulator.url, stdin=stdin, **environment
    )
    return result.returncode, result.stdout, result.stderr


EMISSION = sum(seat["alpha_per_day_rao"] for seat in EXPECTED["seats"].values()) / 1e9
ALPHA_USD = EXPECTED["subnet"]["price_rao_per_alpha"] / 1e9 * json.loads(answers()["fmv"])["tao"]
"""What all miners are paid by the recorded block, and the price of an alpha."""


@contextlib.asynccontextmanager
async def chain_flag(now: float | None = None) -> AsyncIterator[str]:
    """Yield the flag with a node that has just finalized the recorded block.

    ``now`` is the Unix time of the API, by default the present.
    """
    # A node that is behind is refused, so the block gets this time, which has 8 bytes.
    block = recorded_block(milliseconds=number(1000 * (now or time.time()), 8))
    async with FakeNode(block).serve() as url:
        yield f"--chain.url={url}"


def world_of_today() -> World:
    """Return a small world for the clock that the command sees. One that began long ago takes long
    to get there.
    """
    return OddWorld(start=time.time(), size=Size(miners=12, active_miners=6, chutes=30))


def another_key(path: Path, simulator: Simulator, number: int = 1) -> str:
    """Put another miner's key into a hotkey file, and return its hotkey.

    ``number`` is the place of the miner in the world, of which 0 is the miner of the test key.
    """
    miner = simulator.world.miners[number]
    # As the simulated world makes it.
    seed = hashlib.sha256(f"64/hotkey/{number}".encode()).hexdigest()
    path.write_text(json.dumps({"ss58Address": miner.hotkey, "secretSeed": seed}))
    # Others can read it, so each reading of the file also causes a warning.
    path.chmod(0o644)
    return miner.hotkey
