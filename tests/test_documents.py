"""The documents: their links lead to files and headings, the metrics and tests that they name
exist, and no example serves a key to everybody.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from deploy.reference import ALL_METRICS
from tests.prometheus.rule_files import GROUPS
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def prose(text: str) -> str:
    """Return a Markdown text without its code blocks."""
    return re.sub(r"^(```+).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of a Markdown text, as GitHub makes them from headings, and those written
    as HTML.
    """
    found: set[str] = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found


def is_broken(source: Path, target: str) -> bool:
    """Return whether a link of a document leads nowhere."""
    name, _, anchor = target.partition("#")
    # A link without a name leads to a heading of the document itself.
    path = (source.parent / name).resolve() if name else source
    if not path.exists() or not path.is_relative_to(ROOT):
        return True
    return bool(anchor) and anchor not in anchors(path.read_text())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    without_code = re.sub(r"`[^`\n]*`", "", prose(document.read_text()))
    # The target stands in "](...)". Those outside the repository have a scheme, such as "https:".
    targets = re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", without_code)
    assert [target for target in targets if is_broken(document, target)] == []


def test_every_document_that_another_text_names_exists() -> None:
    """Help texts, alerts and comments in configuration name documents."""
    # "docs/start.md#heading", alone or at the end of an address of this repository, but not the
    # "docs" of another folder.
    mention = r"(?:(?<![\w/])|(?<=chutes-exporter/blob/main/))docs/[\w/-]+\.md(?:#[\w-]+)?"
    files = list(DOCUMENTS)
    for folder in ("chutes_exporter", "deploy", "prometheus"):
        for pattern in ("*.py", "*.y*ml", "*.tpl", "*.txt"):
            files += (ROOT / folder).rglob(pattern)
    mentions = {found for path in files for found in re.findall(mention, path.read_text())}
    assert mentions
    assert [found for found in mentions if is_broken(ROOT / "README.md", found)] == []


def test_every_series_that_a_document_names_exists() -> None:
    known = {metric.name for metric in ALL_METRICS}
    known |= {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
    # Labels have such names, too.
    with_labels = {ROOT / "docs/queries.md", ROOT / "docs/metrics.md"}
    named = set()
    for path in {ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - with_labels:
        # `chutes_thing` or `chutes_thing{...}`, and `hotkey:chutes_thing:sum`.
        named |= set(re.findall(r"`(chutes_[a-z_0-9]+)[`{]", path.read_text()))
        named |= set(re.findall(r"`(\w+:chutes_\w+:\w+)[`{]", path.read_text()))
    assert "chutes_miner_score_ratio" in named
    assert named - known == set()


def test_the_invariants_for_contributors_name_tests_that_exist() -> None:
    # `tests/test_file.py`, or `tests/test_file.py::test_name`.
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", (ROOT / "AGENTS.md").read_text())
    assert named
    for path, test in named:
        # A file without the name of a test must have one at least.
        definition = re.compile(rf"^(async )?def {test or 'test_'}", re.MULTILINE)
        assert definition.search((ROOT / path).read_text()), (path, test)


def test_every_example_with_a_key_listens_on_this_machine_only() -> None:
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    # A command may go on in the next line.
    blocks = [
        block.replace("\\\n", " ") for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    ]
    # Without another command, flags follow at once, and it serves.
    serving = re.findall(
        r"^\S*chutes-exporter (?:serve )?-.*--hotkey-file.*", "\n".join(blocks), re.MULTILINE
    )
    assert serving
    for example in serving:
        assert " --web.listen-address 127.0.0.1:10064 " in example
