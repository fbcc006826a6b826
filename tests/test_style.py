"""The project writes plain English: phrases, names and private nouns that were replaced must not come back."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT, named_tests, public_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    "Who cannot be told must not stop",
    "makes of both a monitoring",
    "the names come with a key",
    "Declare whose data it is about",
    "Without a task for each that is known",
    "Seats that go first",
    "Readings by how they came about",
    "Pay of a GPU, best ten",
    "From what could not be read nothing is concluded",
    "Beside Prometheus",
)
RIDDLES = {"told", "mine", "again", "whose"}
"""Names of functions that nobody can guess the meaning of."""
INDIRECT = ("What", "Who", "Whose", "Whoever", "Whatever")
"""Words that a docstring or the name of a test must not start with, because they do not name the subject."""
PRIVATE_NOUNS = {"Source", "FeedKey", "Read", "Run", "Block", "View", "Order"}
"""Names that the eight nouns of docs/architecture.md replaced."""


def plain(text: str) -> str:
    """Return a text in lower case and on one line, without what joins a sentence that goes over several lines."""
    text = re.sub(r"[\"']\s*\n\s*[rf]*[\"']", "", text)
    return re.sub(r"\s*\n[\s#>|]*|\s+", " ", text).lower()


TEXTS = {str(path.relative_to(ROOT)): plain(path.read_text()) for path in public_texts()}
del TEXTS["tests/test_style.py"]


def parsed(folder: str) -> Iterator[tuple[str, ast.AST]]:
    """Return every node of the Python files in a folder, with the file's name."""
    for path in public_texts():
        if path.suffix == ".py" and path.is_relative_to(ROOT / folder):
            for node in ast.walk(ast.parse(path.read_text())):
                yield str(path.relative_to(ROOT)), node


def test_every_part_of_the_repository_has_public_texts() -> None:
    parts = {name.partition("/")[0] for name in TEXTS}
    folders = {"chutes_exporter", "docs", "grafana", "prometheus", "alertmanager", "deploy", "scripts", "tests"}
    assert parts >= folders | {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile"}


@pytest.mark.parametrize("phrase", REPLACED)
def test_a_phrase_that_was_replaced_does_not_come_back(phrase: str) -> None:
    assert [name for name, text in TEXTS.items() if phrase.lower() in text] == []


def test_no_text_contains_the_marks_of_a_merge_conflict() -> None:
    marks = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    assert [path.name for path in public_texts() if marks.search(path.read_text())] == []


def test_a_phrase_is_found_over_the_end_of_a_line() -> None:
    for text in ("One at\nleast is", '"One at "\n    "least is', "# One at\n    # least is", "> One at\n> least is"):
        assert "one at least is" in plain(text)


@pytest.mark.parametrize("folder", ["chutes_exporter", "grafana"])
def test_no_function_has_a_name_that_is_a_riddle(folder: str) -> None:
    found = [
        (name, node.name)
        for name, node in parsed(folder)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.strip("_") in RIDDLES
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["chutes_exporter", "tests"])
def test_no_docstring_starts_with_an_indirect_question(folder: str) -> None:
    # Strings below a constant or an attribute count as docstrings, too.
    texts = [
        (name, node.value.value)
        for name, node in parsed(folder)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    assert texts
    found = [(name, text.partition("\n")[0]) for name, text in texts if text.split(maxsplit=1)[0] in INDIRECT]
    assert found == []


def test_no_test_has_a_name_that_is_an_indirect_question() -> None:
    names = named_tests()
    assert "test_no_test_has_a_name_that_is_an_indirect_question" in names
    starts = tuple(f"test_{word.lower()}_" for word in INDIRECT)
    assert [name for name in names if name.startswith(starts)] == []


def test_the_core_uses_no_nouns_besides_the_eight() -> None:
    classes = [(name, node.name) for name, node in parsed("chutes_exporter") if isinstance(node, ast.ClassDef)]
    aliases = [
        (name, target.id)
        for name, node in parsed("chutes_exporter")
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert [found for found in classes + aliases if found[1] in PRIVATE_NOUNS] == []
