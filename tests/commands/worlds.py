"""Recorded worlds with all their audit reports, moved to the present."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tests.commands.support import Target, run
from tests.recorded import Miner, recording, seconds, shifted
from tests.support import replay, served
from tests.test_ended import report_index, reports

if TYPE_CHECKING:
    from pathlib import Path


class PresentWorld:
    """A recorded world as if it was recorded now. A test may change its answers.

    Attributes:
        bodies: The answers by name.
        reports: The audit reports by path, the newest first.
        moved: Seconds by which its times are moved.
    """

    def __init__(self, directory: Path) -> None:
        meta = json.loads(recording(directory, "meta"))
        self.miner = Miner(directory, "test_miner")
        self.moved = time.time() - meta["recorded_at"]
        self.bodies = shifted(self.miner.bodies(), self._whole_hours(directory))
        self.reports = shifted(reports(directory), self._whole_hours(directory))
        self._seed = meta["invented_seeds"][self.miner.hotkey]

    def _whole_hours(self, directory: Path) -> float:
        return self.moved

    async def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run ``advise``; returns its exit status and what it wrote."""
        own = {"MINER_SS58": self.miner.hotkey, "MINER_SEED": self._seed}
        async with served(replay(self.bodies, self.reports)) as url:
            code, output, errors = await run(
                Target(url), "advise", *arguments, variables=own | variables
            )
        assert not errors
        return code, output

    async def found(self, *arguments: str) -> dict[str, Any]:
        """Return the advice to the miner as JSON, with what is not known."""
        _, output = await self.run("--json", *arguments)
        summary = json.loads(output)
        (miner,) = summary["miners"]
        return miner | {"gaps": [gap["feed"] for gap in summary["not_known"]]}
