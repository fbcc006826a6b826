from __future__ import annotations

import subprocess
import sys


def test_the_package_runs_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "chutes_exporter", "--version"], capture_output=True, text=True, check=True, timeout=300
    )
    assert result.stdout.startswith("chutes-exporter 0.")
