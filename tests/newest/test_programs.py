"""What scripts/newest-programs fetches: the tests of `make test-newest` run with these programs."""

from __future__ import annotations

import gzip
import re
import shutil

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.newest

NEWEST = ROOT / ".cache" / "newest" / "usr"
LEAST = {"prometheus": (3, 5), "promtool": (3, 5), "prometheus-alertmanager": (0, 33), "victoria-metrics": (1, 145)}
"""Programs, and the oldest version of their packages that docs/operations.md promises."""


@pytest.mark.parametrize("program", LEAST)
def test_the_tests_run_with_programs_of_the_promised_version(program: str) -> None:
    assert shutil.which(program) == str(NEWEST / "bin" / program)
    changelog = gzip.decompress((NEWEST / "share" / "doc" / program / "changelog.Debian.gz").read_bytes()).decode()
    found = re.search(r"\((\d+)\.(\d+)\.", changelog)
    assert found is not None
    assert (int(found[1]), int(found[2])) >= LEAST[program]
