from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT


def build(output: Path, **variables: str) -> Path:
    """Run scripts/deb, for this machine's architecture if ``ARCH`` is not given; returns the package."""
    environment = {**os.environ, "VENV": str(Path(sys.prefix).relative_to(ROOT)), "OUTPUT": str(output), **variables}
    subprocess.run(["scripts/deb"], cwd=ROOT, env=environment, check=True)
    (package,) = output.glob("*.deb")
    return package


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout."""
    return build(tmp_path_factory.mktemp("package"))
