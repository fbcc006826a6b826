"""Runs the command against a simulated API."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from chutes_exporter import cli
from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY
from tests.test_cli import environment

if TYPE_CHECKING:
    from pathlib import Path

    from chutes_exporter.simulator import Simulator

MINE = {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
"""The variables that bring the test key."""


@dataclass(frozen=True)
class Target:
    """An API to run a command against."""

    url: str


async def run(
    simulator: Simulator | Target, *arguments: str, stdin: str = "", variables: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run a command to its end in a thread; returns its status, its output and its errors.

    Starting a process for each command would take half of the tests' time.
    """
    complete = environment(**(MINE if variables is None else variables))
    return await asyncio.to_thread(_run, [*arguments, "--api.url", simulator.url], stdin, complete)


def _run(arguments: list[str], stdin: str, variables: dict[str, str]) -> tuple[int, str, str]:
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        for name in os.environ.keys() - variables.keys():
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        status = 0
        try:
            cli.main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
    texts = []
    for stream in (output, errors):
        stream.seek(0)
        texts.append(stream.read())
    return status, texts[0], texts[1]


def another_key(path: Path, simulator: Simulator) -> str:
    """Put another miner's key into a hotkey file."""
    miner = simulator.world.miners[1]
    # As the simulated world makes it.
    seed = hashlib.sha256(b"64/hotkey/1").hexdigest()
    path.write_text(json.dumps({"ss58Address": miner.hotkey, "secretSeed": seed}))
    path.chmod(0o644)
    return miner.hotkey
