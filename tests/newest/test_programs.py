"""scripts/newest-programs, and what it fetches: the tests of `make test-newest` run with these programs."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.newest

NEWEST = ROOT / ".cache" / "newest" / "usr"
PROGRAMS = {
    "prometheus": "prometheus",
    "promtool": "promtool",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "victoria-metrics": "victoria-metrics",
    "vmagent": "victoria-metrics",
    "vmalert": "victoria-metrics",
}
"""Programs, and the packages that they are in."""
LEAST = {"prometheus": (3, 5), "promtool": (3, 5), "prometheus-alertmanager": (0, 33), "victoria-metrics": (1, 145)}
"""The oldest version of each package that docs/operations.md promises."""


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_tests_run_with_the_newer_program(program: str) -> None:
    assert shutil.which(program) == str(NEWEST / "bin" / program)
    subprocess.run([program, "--version"], capture_output=True, check=True, timeout=60)


@pytest.mark.parametrize("package", LEAST)
def test_the_version_is_at_least_the_promised_one(package: str) -> None:
    changelog = gzip.decompress((NEWEST / "share" / "doc" / package / "changelog.Debian.gz").read_bytes()).decode()
    found = re.search(r"\((\d+)\.(\d+)\.", changelog)
    assert found is not None
    assert (int(found[1]), int(found[2])) >= LEAST[package]


def test_fetching_programs_works_where_the_system_is_read_only(tmp_path: Path) -> None:
    script = Path(shutil.copy(ROOT / "scripts" / "newest-programs", tmp_path))
    # Only the folder stays writable.
    read_only = 'mount --bind "$1" "$1" && mount -o remount,bind,ro / && ! touch /probe 2>&1 && cd "$1" && exec "$2"'
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    result = subprocess.run(
        [*unshare, "sh", "-c", read_only, "sh", str(tmp_path), str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Read-only file system" in result.stdout
    assert os.access(tmp_path / ".cache" / "newest" / "usr" / "bin" / "prometheus", os.X_OK)
