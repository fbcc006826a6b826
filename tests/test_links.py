"""The documents: their links lead to files, headings and tests that exist, and no example serves a
key to everybody.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
TEXTS = [
    *DOCUMENTS,
    *(
        path
        for folder in ("chutes_exporter", "deploy", "prometheus")
        for path in (ROOT / folder).rglob("*.[pty]*")
    ),
]
"""Texts that name documents: documents, help texts, alerts and comments in configuration."""
# "docs/start.md#heading", alone or at the end of an address of this repository, but not the "docs"
# of another folder.
MENTION = re.compile(r"(?:(?<![\w/])|(?<=chutes-exporter/blob/main/))docs/[\w/-]+\.md(?:#[\w-]+)?")


def prose(text: str) -> str:
    """Return a Markdown text without its code blocks."""
    return re.sub(r"^(```+).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of a Markdown text, as GitHub makes them from headings, and those written
    as HTML.
    """
    found: set[str] = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        # A heading that stands there already gets a number.
        anchor, repeated = slug, 0
        while anchor in found:
            repeated += 1
            anchor = f"{slug}-{repeated}"
        found.add(anchor)
    return found


def links(text: str) -> list[str]:
    """Return the relative links of a Markdown text, pictures included."""
    without_code = re.sub(r"`[^`\n]*`", "", prose(text))
    # The target stands in "](...)".
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code)
    # Others have a scheme, such as "https:".
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def broken(source: Path, target: str) -> str:
    """Return why a link of a document leads nowhere, or nothing."""
    name, _, anchor = target.partition("#")
    # A link without a name leads to a heading of the document itself.
    path = (source.parent / name).resolve() if name else source
    if not path.exists():
        return f"{target}: no such file"
    if not path.is_relative_to(ROOT):
        return f"{target}: outside the repository"
    if anchor and anchor not in anchors(path.read_text()):
        return f"{target}: no such heading"
    return ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target in links(document.read_text()):
        assert broken(document, target) == ""


def test_every_document_that_another_text_names_exists() -> None:
    mentions: set[str] = set()
    for path in TEXTS:
        # Compiled modules and recordings are no text.
        if path.suffix not in (".pyc", ".xz"):
            mentions.update(MENTION.findall(path.read_text()))
    assert mentions
    for mention in mentions:
        assert broken(ROOT / "README.md", mention) == ""


def test_the_invariants_for_contributors_name_tests_that_exist() -> None:
    # `tests/test_file.py`, or `tests/test_file.py::test_name`.
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", (ROOT / "AGENTS.md").read_text())
    assert named
    for path, test in named:
        # A file without the name of a test must have one at least.
        definition = re.compile(rf"^(async )?def {test or 'test_'}", re.MULTILINE)
        assert definition.search((ROOT / path).read_text()), (path, test)


def test_every_example_with_a_key_listens_on_this_machine_only() -> None:
    commands: list[str] = []
    for path in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL):
            # A command may go on in the next line.
            commands += block.replace("\\\n", " ").splitlines()
    with_key = [command for command in commands if "--hotkey-file" in command]
    # Without a command, flags follow at once, and it serves.
    serving = re.compile(r"\S*chutes-exporter (serve )?-")
    examples = [command for command in with_key if serving.match(command)]
    assert examples
    for example in examples:
        assert " --web.listen-address 127.0.0.1:10064 " in example
