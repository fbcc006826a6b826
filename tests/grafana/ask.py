"""Makes a world and asks everything in it: `python -m tests.grafana.ask WORLD DIRECTORY` writes `answers.pickle`."""

from __future__ import annotations

import asyncio
import pickle
import sys
from pathlib import Path

from grafana.worlds import World
from tests.grafana.scenes import ask_everything, scene


async def main(kind: World, directory: Path) -> None:
    """Write the answers of a world."""
    async with scene(kind, directory) as found:
        answers = await ask_everything(found.prometheus, found.answers)
    (directory / "answers.pickle").write_bytes(pickle.dumps(answers))


if __name__ == "__main__":
    asyncio.run(main(World[sys.argv[1]], Path(sys.argv[2])))
