"""docs/containers.md: its commands lead from a clone to the first metric."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.commands.status import ACTION_NEEDED
from chutes_exporter.config import Address
from chutes_exporter.simulator import Simulator, Size, World
from chutes_exporter.simulator.world import TEST_SEED
from tests.containers.documents import clone, commands, lines, programs
from tests.containers.podman import podman
from tests.support import HOTKEY, shell

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.containers


async def test_at_most_ten_lines_lead_to_the_first_metric_and_the_status(tmp_path: Path) -> None:
    found = commands("containers.md", "The first metric")
    assert len(found) <= len(lines("containers.md", "The first metric")) <= 10
    (network,) = json.loads(podman("network", "inspect", "podman"))
    gateway = network["subnets"][0]["gateway"]
    world = World(start=time.time(), size=Size(miners=6, active_miners=3, chutes=10))
    async with Simulator(world, listen=Address("", 0)) as simulator:
        port = simulator.url.rpartition(":")[2]
        settings = f"MINER_SS58={HOTKEY}\nMINER_SEED={TEST_SEED}\nCHUTES_EXPORTER_API_URL=http://{gateway}:{port}\n"
        environment = programs(tmp_path / "bin", settings)
        directory = clone(tmp_path / "clone")
        try:
            said = [await asyncio.to_thread(shell, command, environment, directory) for command in found[:-1]]
            needed = f"{found[-1]} || test $? = {ACTION_NEEDED}"
            status = await asyncio.to_thread(shell, needed, environment, directory)
        finally:
            await asyncio.to_thread(podman, "rm", "--force", "--ignore", "--volumes", "--time=10", "chutes-exporter")
    assert "All checks passed." in said[-2]
    assert f'chutes_miner_watched{{hotkey="{HOTKEY}"}} 1' in said[-1]
    assert status.startswith(HOTKEY)
