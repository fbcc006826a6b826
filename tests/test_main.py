from __future__ import annotations

import subprocess
import sys

from tests.support import PATIENCE


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "chutes_exporter", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert result.stdout.startswith("chutes-exporter 0.")
