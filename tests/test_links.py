"""The links between documents: every relative link of a Markdown file leads to a file and to a heading that exist."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support import ROOT, public_texts

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = [path for path in public_texts() if path.suffix == ".md"]
MENTION = re.compile(r"(?:(?<![\w/])|(?<=chutes-exporter/blob/main/))docs/[\w/-]+\.md(?:#[\w-]+)?")
"""A document that other texts name, such as a help text or a comment."""


def prose(text: str) -> str:
    """Return a Markdown text without its code blocks."""
    return re.sub(r"^(```+).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of a Markdown text, as GitHub makes them from headings, and those written as HTML."""
    found: set[str] = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        repeated = 0
        while (anchor := f"{slug}-{repeated}" if repeated else slug) in found:
            repeated += 1
        found.add(anchor)
    return found


def links(text: str) -> list[str]:
    """Return the relative links of a Markdown text, pictures included."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text)))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def broken(source: Path, target: str) -> str:
    """Return why a link of a document leads nowhere, or nothing."""
    name, _, anchor = target.partition("#")
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
    found = [reason for target in links(document.read_text()) if (reason := broken(document, target))]
    assert found == []


def test_every_document_that_another_text_names_exists() -> None:
    found = [
        (str(path.relative_to(ROOT)), reason)
        for path in public_texts()
        if path.name != "test_links.py"
        for mention in MENTION.findall(path.read_text())
        if (reason := broken(ROOT / "README.md", mention))
    ]
    assert found == []


def test_the_readme_leads_to_every_document() -> None:
    readme = ROOT / "README.md"
    linked = {(readme.parent / target).resolve() for target in links(readme.read_text())}
    assert {path for path in DOCUMENTS if path.parent in (ROOT, ROOT / "docs")} - linked == {readme}


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("docs/none.md", "no such file"),
        ("docs/http.md#none", "no such heading"),
        ("#none", "no such heading"),
        ("..", "outside the repository"),
        ("docs/http.md#limits", ""),
        ("docs/alerts.md#Watchdog", ""),
        ("#documents", ""),
        ("docs", ""),
    ],
)
def test_a_link_that_leads_nowhere_is_found(target: str, reason: str) -> None:
    assert broken(ROOT / "README.md", target).endswith(reason)
    assert bool(broken(ROOT / "README.md", target)) is bool(reason)


def test_anchors_are_those_of_github() -> None:
    text = "# One miner: `/probe`\n\n```sh\n# no heading\n```\n\n## Limits\n\n## Limits\n\n## The miners' k3s\n"
    assert anchors(text) == {"one-miner-probe", "limits", "limits-1", "the-miners-k3s"}
