"""Runs the command against a simulated API."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import pytest

from chutes_exporter import cli
from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY
from tests.test_cli import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    with (
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
        pytest.MonkeyPatch.context() as patch,
        _descriptor(1, output),
        _descriptor(2, errors),
    ):
        for name in os.environ.keys() - variables.keys():
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        for name in ("stdout", "stderr"):
            # The command replaces them.
            patch.setattr(sys, name, getattr(sys, name))
        status = 0
        try:
            cli.main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        output.seek(0)
        errors.seek(0)
        return status, output.read().decode(), errors.read().decode()


@contextlib.contextmanager
def _descriptor(number: int, file: IO[bytes]) -> Iterator[None]:
    """Let a file take the place of a descriptor."""
    kept = os.dup(number)
    try:
        os.dup2(file.fileno(), number)
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


def another_key(path: Path, simulator: Simulator) -> str:
    """Put another miner's key into a hotkey file."""
    miner = simulator.world.miners[1]
    # As the simulated world makes it.
    seed = hashlib.sha256(b"64/hotkey/1").hexdigest()
    path.write_text(json.dumps({"ss58Address": miner.hotkey, "secretSeed": seed}))
    path.chmod(0o644)
    return miner.hotkey
