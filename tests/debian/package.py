"""Debian packages: how tests build them, and look into them."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from typing import TYPE_CHECKING

from deploy.release import run_script

if TYPE_CHECKING:
    from pathlib import Path


def build(output: Path) -> Path:
    """Run scripts/deb for this machine's architecture; returns the package."""
    run_script("scripts/deb", output)
    (package,) = output.glob("*.deb")
    return package


def field(package: Path, name: str) -> str:
    """Return a field of a package's control file."""
    result = subprocess.run(["dpkg-deb", "--field", package, name], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def files(package: Path) -> tarfile.TarFile:
    """Return the files that a package installs."""
    result = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True)
    return tarfile.open(fileobj=BytesIO(result.stdout))
