"""The form of the rules, of their texts, and of the documents about them."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

from grafana.boards import BOARDS
from tests.prometheus.rule_files import ALERTS, FILES
from tests.support import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks"
NAMES = sorted({rule["alert"] for rule in ALERTS})
DOCUMENTS = "{{ $externalLabels.docs_url }}"
COMMANDS = ("kubectl ", "chutes-miner ", "chutes-exporter ", "btcli ", "timedatectl", "sudo ")
rules = pytest.mark.parametrize(
    "rule",
    [rule for rule in ALERTS if rule["alert"] != "Watchdog"],
    ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}",
)


def sections() -> dict[str, tuple[str, str]]:
    """Return the file and the text of each section of the runbooks."""
    section = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    found: dict[str, tuple[str, str]] = {}
    for path in RUNBOOKS.glob("*.md"):
        for title, text in section.findall(path.read_text()):
            assert title not in found
            found[title] = path.name, text
    return found


def test_the_rules_are_well_formed() -> None:
    command = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", *map(str, FILES)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_runbook_section_with_commands_and_a_row_of_the_table() -> None:
    table = (ROOT / "docs" / "alerts.md").read_text()
    found = sections()
    assert sorted(found) == NAMES
    for name, (file, text) in found.items():
        parts = re.findall(r"^\*\*(.+?)\*\*:", text, re.MULTILINE)
        assert [part for part in parts if part != "Caution"] == ["Means", "Check", "Do"]
        blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        lines = "\n".join(blocks).splitlines()
        assert any(line.startswith(COMMANDS) for line in lines)
        assert f'<a id="{name}"></a>[{name}](runbooks/{file}#{name.lower()})' in table
    for rule in ALERTS:
        notes, file = rule["annotations"], found[rule["alert"]][0]
        # The path is one of the repository, or an address with the setting.
        assert notes["runbook_url"] == f"{DOCUMENTS}docs/runbooks/{file}#{rule['alert'].lower()}"
        assert f"| {rule['labels']['severity']} | {notes['threshold']} |" in table


@rules
def test_every_alert_leads_to_a_board_that_there_is(rule: dict[str, Any]) -> None:
    address = rule["annotations"]["dashboard"]
    address = address.removeprefix("{{ with $externalLabels.grafana_url }}{{ . }}/d/").removesuffix(
        "{{ end }}"
    )
    path, _, query = address.partition("?")
    assert path.removesuffix(" {{- with $labels.hotkey }}") in {board.uid for board in BOARDS}
    assert query in ("", "var-hotkey={{ $labels.hotkey }}", "var-hotkey={{ . }}{{ end }}")
