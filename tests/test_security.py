from __future__ import annotations

import re

import pytest

from tests.support import ROOT, named_tests, public_texts

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


def test_the_invariants_for_contributors_name_tests_that_exist() -> None:
    rows = re.findall(r"^\| (.+) \| (`.+`) \|$", (ROOT / "AGENTS.md").read_text(), re.MULTILINE)
    assert len(rows) == (ROOT / "AGENTS.md").read_text().count("\n| ") - 1 > 10
    for _, cell in rows:
        for name in cell.strip("`").split("`, `"):
            path, _, test = name.partition("::")
            assert re.search(rf"^(async )?def {test or 'test_'}", (ROOT / path).read_text(), re.MULTILINE), name


def test_security_md_names_a_private_way_to_report() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    assert "Report a vulnerability" in text
    assert (ROOT / re.findall(r"\]\((docs/\S+)\)", text)[0]).exists()


def served_with_a_key() -> list[tuple[str, str]]:
    """Return the examples in documents that serve a miner's private data, each with its document."""
    return [
        (path.name, command)
        for path in public_texts()
        if path.suffix == ".md"
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
        for command in block.replace("\\\n", " ").splitlines()
        if re.match(r"\S*chutes-exporter (serve )?-", command) and "--hotkey-file" in command
    ]


def test_every_example_with_a_key_listens_on_this_machine_only() -> None:
    examples = served_with_a_key()
    assert len(examples) >= 2
    assert [example for example in examples if " --web.listen-address 127.0.0.1:10064 " not in example[1]] == []
    assert (
        "\nCHUTES_EXPORTER_WEB_LISTEN_ADDRESS=127.0.0.1:10064\n"
        in (ROOT / "deploy" / "systemd" / "environment").read_text()
    )
