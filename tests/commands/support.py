"""Runs the command against an API."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.api import client
from chutes_exporter.api.client import ChutesClient
from chutes_exporter.chain import node
from chutes_exporter.page.exporter import Exporter
from tests import program
from tests.support import HOTKEY, PATIENCE, SEEDS, TEST_SEED, recorded_day

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.replay import Replay

COMMANDS = "chutes_exporter.commands."
MINE = {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
"""The variables that bring the test key."""


@dataclass(frozen=True)
class Target:
    """An API to run a command against.

    Attributes:
        clock: The clock of the command, if it is not the one of the machine.
    """

    url: str
    clock: Callable[[], float] | None = None


async def run(
    target: Target | Replay,
    *arguments: str,
    stdin: str = "",
    variables: dict[str, str] | None = None,
) -> tuple[int, str, str]:
    """Run a command to its end in a thread; returns its status, its output and its errors.

    Args:
        target: The API that it asks.
        arguments: The command and its flags.
        stdin: Its input.
        variables: More of its environment. Without any, these are the ones of the test key.
    """
    environment = {"CHUTES_EXPORTER_API_TIMEOUT": str(PATIENCE)}
    environment |= MINE if variables is None else variables
    with pytest.MonkeyPatch.context() as patch:
        if target.clock is not None:
            set_clock(patch, target.clock)
        result = await asyncio.to_thread(
            program.run, *arguments, "--api.url", target.url, stdin=stdin, **environment
        )
    return result.returncode, result.stdout, result.stderr


def set_clock(patch: pytest.MonkeyPatch, clock: Callable[[], float]) -> None:
    """Let commands see this clock, so that what they print is exact."""
    for module in [module for name, module in sys.modules.items() if name.startswith(COMMANDS)]:
        for made in (Exporter, ChutesClient):
            if getattr(module, made.__name__, None) is made:
                with_clock = functools.partial(made, clock=clock, monotonic=clock)
                patch.setattr(module, made.__name__, with_clock)
    # How long a request took.
    for module in (client, node):
        patch.setattr(module, "time", SimpleNamespace(monotonic=clock))


def hotkey_file(directory: Path, miner: str = "healthy") -> Path:
    """Write the hotkey file of a miner of the recorded day."""
    path = directory / miner
    address = recorded_day().miners[miner].address
    path.write_text(json.dumps({"ss58Address": address, "secretSeed": SEEDS[miner]}))
    path.chmod(0o600)
    return path
