"""Draws the dashboards for the README, `python -m tests.grafana.pictures`: a day of a simulated miner with troubles."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

from grafana.__main__ import DASHBOARDS
from grafana.boards import BOARDS
from grafana.worlds import World
from tests.grafana.display import committed, see
from tests.grafana.picture import WIDTH, draw
from tests.grafana.scenes import ask_everything, scene
from tests.support import ROOT

PICTURES = ROOT / "grafana" / "pictures"
SUMS = "drawn-from.sha256"
STEPS = [number / 6 for number in range(144, 0, -1)]
"""A day in steps of ten minutes."""
RATE_INTERVAL = "40m"
"""As Grafana has it for such steps."""


async def main() -> None:
    """Make the world, ask everything, and draw every board."""
    with tempfile.TemporaryDirectory() as directory:
        async with scene(World.SICK, Path(directory), STEPS) as found:
            answers = await asyncio.to_thread(ask_everything, found, RATE_INTERVAL)
    seen = see(answers)
    PICTURES.mkdir(exist_ok=True)
    sums = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = await browser.new_page(viewport={"width": WIDTH, "height": 900})
        for board in BOARDS:
            picture = await draw(tab, committed(board.uid), seen[board.uid])
            (PICTURES / f"{board.uid}.png").write_bytes(picture)
            source = DASHBOARDS / f"{board.uid}.json"
            sums.append(f"{hashlib.sha256(source.read_bytes()).hexdigest()}  {source.name}\n")
        await browser.close()
    (PICTURES / SUMS).write_text("".join(sums))


if __name__ == "__main__":
    asyncio.run(main())
