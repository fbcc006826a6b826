"""The workflows of the forge: linted, and calling only what exists. docs/dev/release.md says what
never ran.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT

FOLDER = ROOT / ".github" / "workflows"
BIN = Path(sys.executable).parent
WORKFLOWS: dict[str, Any] = {
    path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.iterdir())
}
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


def test_only_the_jobs_that_publish_may_write() -> None:
    writing = {}
    for name, workflow in WORKFLOWS.items():
        assert "secrets" not in (FOLDER / name).read_text()
        for key, job in workflow["jobs"].items():
            assert "uses" in job or job["timeout-minutes"] <= 60, key
            rights = {right for right, level in job["permissions"].items() if level == "write"}
            if rights:
                writing[f"{name}/{key}"] = rights
    signed = {"id-token", "attestations"}
    assert writing == {
        "release.yml/image": {"packages", *signed},
        "release.yml/chart": {"packages", *signed},
        "release.yml/pypi": {"id-token"},
        "release.yml/github": {"contents", *signed},
    }


def test_workflows_call_only_targets_that_exist_and_all_that_the_local_ci_calls() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "".join(path.read_text() for path in FOLDER.iterdir())
    called = set(re.findall(r"\b(?:make|target:) ([a-z-]+)", text))
    for listed in re.findall(r"target: \[(.+)\]", text):
        called.update(listed.split(", "))
    assert called <= targets
    # The local CI tests other versions of Python with a target of its own.
    called_locally = set(re.findall(r"\bmake (\S+)", (ROOT / ".ci" / "run").read_text()))
    assert called_locally - {"test-python"} <= called


def test_an_upload_to_pypi_comes_after_the_tests_the_image_and_the_chart() -> None:
    release = WORKFLOWS["release.yml"]["jobs"]
    needs = {key: set(release[key].get("needs", ())) for key in release}
    assert needs["image"] == {"tests", "build"}
    assert needs["chart"] == {"image"}
    assert needs["pypi"] == {"image", "chart"}
    assert needs["github"] == {"pypi"}


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
