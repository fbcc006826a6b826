"""A new user's week of history: fetched, turned into blocks by promtool, read back through a real Prometheus."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

from chutes_exporter.simulator import Simulator, World
from tests.commands.support import run
from tests.support import NOON, Clock, Prometheus, series

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_week_of_history_is_there_on_the_first_day(small_world: World, tmp_path: Path) -> None:
    hotkeys = [miner.hotkey for miner in small_world.miners[:2]]
    path = tmp_path / "history.om"
    async with Simulator(small_world, clock=Clock()) as simulator:
        labels = ("--label", "job=chutes", "--label", "instance=localhost:10064")
        miners = [flag for hotkey in hotkeys for flag in ("--hotkey", hotkey)]
        await run(simulator, "backfill", "--output", str(path), *labels, *miners, variables={})
    # In a thread: the program runs for a while.
    await asyncio.to_thread(
        subprocess.run,
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(path), str(tmp_path / "data")],
        check=True,
        capture_output=True,
    )
    with Prometheus(tmp_path, []) as prometheus:
        for hotkey in hotkeys:
            history = small_world.history(hotkey, NOON)
            assert history is not None
            assert len(history) == 169
            for time, unique, total in history[::12]:
                found = {"hotkey": hotkey, "job": "chutes", "instance": "localhost:10064"}
                for name, gpus in (("active", total), ("unique_chute", unique)):
                    query = f'chutes_miner_{name}_gpus{{hotkey="{hotkey}"}} @ {time:.0f}'
                    assert await asyncio.to_thread(prometheus.query, query) == {series("", **found)[1]: gpus}
