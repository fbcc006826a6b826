from __future__ import annotations

import re

import pytest

from tests.support import ROOT, named_tests

ROWS = re.findall(r"^\| (.+) \| (.+) \| (.+) \| (.+) \|$", (ROOT / "docs/security.md").read_text(), re.MULTILINE)[1:]


def test_the_threat_model_has_rows() -> None:
    assert len(ROWS) == (ROOT / "docs/security.md").read_text().count("\n| ") - 1 > 0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1])
def test_every_measure_of_the_threat_model_names_tests_that_exist(row: tuple[str, str, str, str]) -> None:
    names = re.findall(r"`(test_\w+)`", row[3])
    assert names
    assert row[3] == ", ".join(f"`{name}`" for name in names)
    assert set(names) <= named_tests()


def test_the_architecture_names_tests_that_exist() -> None:
    names = re.findall(r"`(test_\w+)`", (ROOT / "docs/architecture.md").read_text())
    assert len(names) > 10
    assert set(names) <= named_tests()


def test_security_md_names_a_private_way_to_report() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert "Report a vulnerability" in text
    assert (ROOT / re.findall(r"\]\((docs/\S+)\)", text)[0]).exists()
