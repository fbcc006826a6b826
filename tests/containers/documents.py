"""The documented commands of containers, and a clone in which they run."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def lines(document: str, heading: str) -> list[str]:
    """Return the lines of code of a section of a document in docs/."""
    section = (ROOT / "docs" / document).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]


def commands(document: str, heading: str) -> list[str]:
    """Return the commands of a section. A command may have several lines."""
    return "\n".join(lines(document, heading)).replace("\\\n", "").splitlines()


def programs(directory: Path, settings: str, docker: str = 'exec podman "$@"') -> dict[str, str]:
    """Make `docker` stand for another program and `editor` for somebody who fills in a file.

    Args:
        directory: A new folder for them.
        settings: The text that this person writes.
        docker: What `docker` does, in the shell's language.

    Returns:
        The environment in which they are found.
    """
    directory.mkdir()
    (directory / "settings").write_text(settings)
    for name, text in (("docker", docker), ("editor", f'cat "{directory}/settings" > "$1"')):
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}


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
