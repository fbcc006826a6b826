"""docs/systemd.md: its commands lead from a clone to the first metric and to ``status``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.commands.status import ACTION_NEEDED, NOTHING_TO_DO
from tests.debian.machine import CLONE, ENVIRONMENT, SETTINGS, SYSTEM, Machine, machine, start_api
from tests.support import HOTKEY, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.debian

TEXT = (ROOT / "docs" / "systemd.md").read_text()
WHEELS = "/root/wheels"


def section(heading: str) -> str:
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def commands(heading: str) -> list[str]:
    """Return the commands of a section, of at most ten lines."""
    (block,) = re.findall(r"```sh\n(.*?)```", section(heading), re.DOTALL)
    assert len(block.splitlines()) <= 10
    return list(block.replace("\\\n", "").splitlines())


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Machine]:
    """A machine with somebody who fills in files: `editor` adds the settings."""
    with machine(tmp_path) as started:
        started.write("/root/settings", SETTINGS.encode())
        started.write("/usr/local/bin/editor", b'#!/bin/sh\ncat /root/settings >> "$1"\n', 0o755)
        yield started


def follow(running: Machine, lines: list[str], program: str) -> list[str]:
    """Run commands on a machine, on which the simulated API starts once the program exists; returns their output."""
    said = []
    for line in lines[:-1]:
        said.append(running.run(line))
        if (
            running.try_to_run("systemctl is-active api").returncode
            and not running.try_to_run(f"test -e {program}").returncode
        ):
            start_api(running, program)
    status = running.try_to_run(lines[-1])
    assert status.returncode in (NOTHING_TO_DO, ACTION_NEEDED), status.stdout + status.stderr
    assert status.stderr == ""
    return [*said, status.stdout]


def test_at_most_ten_lines_lead_to_the_first_metric_and_the_status(running: Machine) -> None:
    build, *rest = commands("The first metric")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    subprocess.run(["/bin/sh", "-ec", build], cwd=ROOT, env=kept, check=True)
    (package,) = (ROOT / "dist").glob("*.deb")
    running.write(f"{CLONE}/dist/{package.name}", package.read_bytes())
    said = follow(running, rest, "/usr/bin/chutes-exporter")
    assert said[-2] == f'chutes_miner_watched{{hotkey="{HOTKEY}"}} 1'
    assert HOTKEY in said[-1]
    assert running.run(f"stat --format='%a %U' {ENVIRONMENT}") == "640 root"
    (check,) = commands("Other commands")
    assert "All checks passed." in running.run(check)


def test_the_exporter_runs_without_the_package(running: Machine, tmp_path: Path) -> None:
    for name in ("chutes_exporter", "deploy"):
        for path in (ROOT / name).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                running.write(f"{CLONE}/{path.relative_to(ROOT)}", path.read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        running.write(f"{CLONE}/{name}", (ROOT / name).read_bytes())
    # The machine has no way out to the package index.
    for wheel in wheels(tmp_path / "wheels"):
        running.write(f"{WHEELS}/{wheel.name}", wheel.read_bytes())
    running.write("/etc/pip.conf", f"[global]\nno-index = true\nfind-links = {WHEELS}\n".encode())
    said = follow(running, commands("Without the package"), "/opt/chutes-exporter/bin/chutes-exporter")
    assert said[-2] == f'chutes_miner_watched{{hotkey="{HOTKEY}"}} 1'
    assert HOTKEY in said[-1]


def wheels(folder: Path) -> list[Path]:
    """Download what `pip install .` needs on a machine."""
    lines = (SYSTEM / "usr" / "lib" / "os-release").read_text()
    assert 'VERSION_ID="13"' in lines
    machine_name = os.uname().machine
    platforms = [f"--platform=manylinux_2_{glibc}_{machine_name}" for glibc in (17, 28, 34)]
    for lock in ("requirements.lock", "requirements-build.lock"):
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
                *("--only-binary=:all:", "--python-version=3.13", *platforms, f"--dest={folder}", "-r", lock),
            ],
            cwd=ROOT,
            check=True,
        )
    return list(folder.iterdir())
