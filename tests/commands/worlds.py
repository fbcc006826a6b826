"""Recorded worlds with all their audit reports, moved to the present."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tests.commands.support import Target, run
from tests.exporters import served
from tests.recorded import Miner, recorded_api, recording, report_bodies, rows, shifted, stream

if TYPE_CHECKING:
    from pathlib import Path


class PresentWorld:
    """A recorded world as if it was recorded now. A test may change its answers.

    Attributes:
        bodies: The answers by name.
        reports: The audit reports by path, the newest first.
    """

    def __init__(self, directory: Path) -> None:
        meta = json.loads(recording(directory, "meta"))
        self.miner = Miner(directory)
        moved = time.time() - meta["recorded_at"]
        self.bodies = shifted(self.miner.bodies(), moved)
        self.reports = shifted(report_bodies(directory), moved)

    async def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run ``advise``; returns its exit status and what it wrote."""
        async with served(recorded_api(self.bodies, self.reports)) as url:
            code, output, errors = await run(
                Target(url), "advise", *arguments, variables=self.miner.variables | variables
            )
        assert not errors
        return code, output

    async def found(self, *arguments: str) -> dict[str, Any]:
        """Return the advice to the miner as JSON, with what is not known."""
        _, output = await self.run("--json", *arguments)
        summary = json.loads(output)
        miner: dict[str, Any] = summary["miners"][0]
        return miner | {"gaps": [gap["subject"] for gap in summary["not_known"]]}

    def want(self, chute_id: str, room: int, **fields: Any) -> None:
        """Let the service want so many more instances of a chute, none of which starts yet.

        ``fields`` are other values of the chute's record.
        """
        utilization = json.loads(self.bodies["utilization"])
        for row in utilization:
            if row["chute_id"] == chute_id:
                # A private chute without an active instance could only be launched with a bounty.
                active = max(1, row["active_instance_count"])
                row["active_instance_count"] = row["total_instance_count"] = active
                row["scale_allowance"] = room
                row["target_count"] = active + room
        self.bodies["utilization"] = json.dumps(utilization).encode()
        self.change("chutes", chute_id, **fields)

    def change(self, name: str, chute_id: str, **fields: Any) -> None:
        """Change the records of a chute in a stream."""
        records = rows(self.bodies[name])
        for record in records:
            if record["chute_id"] == chute_id:
                record.update(fields)
        self.bodies[name] = stream(records)

    def forget_report(self, number: int) -> None:
        """Take away the report of an hour, 0 for the newest."""
        path = list(self.reports)[number]
        listed = [entry for entry in json.loads(self.bodies["audit"]) if entry["path"] != path]
        self.bodies["audit"] = json.dumps(listed).encode()
