"""The project writes plain English: phrases and private nouns that were replaced must not come back."""

from __future__ import annotations

import ast
import subprocess

import pytest

from tests.support import ROOT

REPLACED = (
    "With honest freshness",
    "What is none gets",
    "likes it best",
    "Who was right lately",
    "so many seconds without a byte",
    "Answer so many scrapes at once",
    "One at least is needed",
    "Least level that is logged",
    "Memory is taken by what is kept",
    "a tile without a number says why",
    "Who cannot be told",
    "makes of both a monitoring",
    "the names come with a key",
    "Declare whose data it is about",
    "Without a task for each that is known",
    "Seats that go first",
    "Readings by how they came about",
    "Pay of a GPU, best ten",
    "Beside Prometheus",
)
PRIVATE_NOUNS = {"Source", "FeedKey", "Read", "Run", "Block", "View", "Order"}
THIS = "tests/test_style.py"


def tracked(*patterns: str) -> list[str]:
    """Return the files of the repository, or of the package without it."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *patterns],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.splitlines() if name != THIS and (ROOT / name).exists()]


@pytest.mark.parametrize("phrase", REPLACED)
def test_a_phrase_that_was_replaced_does_not_come_back(phrase: str) -> None:
    texts = tracked("*.md", "*.py", "*.yml", "*.yaml", "*.toml", "Makefile", "scripts", "deploy", "grafana/dashboards")
    found = [name for name in texts if phrase.lower() in (ROOT / name).read_text(errors="replace").lower()]
    assert found == []


def test_the_core_uses_no_nouns_besides_the_eight() -> None:
    found = [
        (name, node.name)
        for name in tracked("chutes_exporter/*.py")
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.ClassDef) and node.name in PRIVATE_NOUNS
    ]
    assert found == []
