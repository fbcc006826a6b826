"""docs/containers.md: its commands lead from a clone to the first metric."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.commands.status import ACTION_NEEDED
from chutes_exporter.config import Address
from chutes_exporter.simulator import Simulator, Size, World
from chutes_exporter.simulator.world import TEST_SEED
from tests.containers.podman import podman
from tests.support import HOTKEY, ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.containers

TEXT = (ROOT / "docs" / "containers.md").read_text()


def commands(heading: str) -> list[str]:
    """Return the commands of a section of the document."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [
        line
        for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
        for line in block.replace("\\\n", "").splitlines()
    ]


def programs(directory: Path, settings: str) -> dict[str, str]:
    """Make `docker` stand for podman and `editor` for somebody who fills in a file; returns the environment."""
    directory.mkdir()
    (directory / "settings").write_text(settings)
    for name, text in (("docker", 'exec podman "$@"'), ("editor", f'cat "{directory}/settings" > "$1"')):
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}


def shell(command: str, environment: dict[str, str], directory: Path) -> str:
    result = subprocess.run(
        ["/bin/sh", "-ec", command],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def clone(directory: Path) -> Path:
    """Make a folder with what the commands read of a user's clone."""
    (directory / "deploy").mkdir(parents=True)
    for name in ("Dockerfile", ".dockerignore", "Makefile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, directory)
    for path in ROOT.glob("requirements*.lock"):
        shutil.copy2(path, directory)
    for name in ("chutes_exporter", "scripts"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    return directory


async def test_at_most_ten_lines_lead_to_the_first_metric_and_the_status(tmp_path: Path) -> None:
    found = commands("The first metric")
    lines = TEXT.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert len(found) <= len(lines) <= 10
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
