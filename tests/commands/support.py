"""Runs the command against a simulated API."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY
from tests.test_cli import environment

if TYPE_CHECKING:
    from chutes_exporter.simulator import Simulator

MINE = {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
"""The variables that bring the test key."""


async def run(
    simulator: Simulator, *arguments: str, stdin: str = "", variables: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run a command to its end; returns its status, its output and its errors."""
    command = Path(sys.executable).parent / "chutes-exporter"
    process = await asyncio.create_subprocess_exec(
        command,
        *arguments,
        "--api.url",
        simulator.url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**(MINE if variables is None else variables)),
    )
    output, errors = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()
