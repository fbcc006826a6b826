"""The workflows of the forge: linted, and calling only what exists. docs/dev/release.md says what
never ran.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

FOLDER = ROOT / ".github" / "workflows"
BIN = Path(sys.executable).parent
PLATFORMS = {"linux/amd64": "x86_64-unknown-linux-gnu", "linux/arm64": "aarch64-unknown-linux-gnu"}
"""Platforms of the image, and uv's names of them."""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment on the project, with the others beside it on PATH."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        [*command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "command",
    [
        # It also wants every action pinned by its commit, and no credentials left in a checkout.
        (
            "zizmor",
            "--offline",
            "--no-progress",
            "--strict-collection",
            "--persona=auditor",
            ".github",
        ),
        ("actionlint", *(str(path) for path in FOLDER.iterdir())),
    ],
    ids=lambda command: command[0],
)
def test_the_linters_find_nothing(command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.release
@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_locked_package_has_a_wheel_for_each_python_and_the_platforms_of_the_image(
    platform: str, tmp_path: Path
) -> None:
    pythons = re.findall(
        r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert pythons
    options = "--dry-run --only-binary :all: --require-hashes -r requirements.lock"
    place = f"--target {tmp_path} --python-platform {PLATFORMS[platform]}"
    for python in pythons:
        command = f"uv pip install {options} {place} --python-version {python}"
        result = run(*command.split())
        assert result.returncode == 0, result.stderr
    assert f"platforms: {','.join(PLATFORMS)}\n" in (FOLDER / "release.yml").read_text()
