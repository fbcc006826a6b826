"""The form of the rules, of their texts, and of the documents about them."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from grafana.boards import BOARDS
from tests.prometheus.scenario import ALERTS, EXAMPLE, FILES, GROUPS
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RUNBOOKS = ROOT / "docs" / "runbooks"
RECORDINGS: list[dict[str, Any]] = [
    rule for group in GROUPS for rule in group["rules"] if "record" in rule
]
NAMES = sorted({rule["alert"] for rule in ALERTS})
DOCUMENTS = "{{ with $externalLabels.docs_url }}{{ . }}{{ end }}"
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


def minutes(duration: str) -> int:
    return int(duration[:-1]) * {"m": 1, "h": 60, "d": 24 * 60}[duration[-1]]


def test_the_rules_are_well_formed() -> None:
    command = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", *map(str, FILES)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_recordings_are_well_named_and_read() -> None:
    names = {rule["record"] for rule in RECORDINGS}
    readers = [json.dumps(rule) for rule in (*ALERTS, *RECORDINGS)]
    for board in BOARDS:
        for panel in board.panels:
            readers += [query.expr for query in panel.queries]
    for name in names:
        assert re.fullmatch(r"[a-z_]+:chutes_[a-z_]+:[a-z0-9_]+", name)
        # The rule that records it has its name, too.
        recorded = f'"record": "{name}"'
        assert any(name in text.replace(recorded, "") for text in readers), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_absent_becomes_a_number_only_with_a_reason(path: Path) -> None:
    # It finds what makes a number, such as `or on () 0 * up`, `or vector(0)` or `or count(up)`. The
    # line before belongs to it, because the comment with the reason may stand there.
    made = re.compile(
        r"^.*\n.*\bor(?: on \([^)]*\))?\s+(?:#.*\s+)?(?:0 \*|vector\(|count\().*$", re.MULTILINE
    )
    found = made.findall(path.read_text())
    # The example makes no numbers of what is absent.
    assert bool(found) == (path != EXAMPLE)
    assert [text for text in found if "#" not in text] == []


def test_an_alert_has_one_rule_for_each_severity() -> None:
    severities = Counter((rule["alert"], rule["labels"]["severity"]) for rule in ALERTS)
    assert set(severities.values()) == {1}
    assert {severity for _, severity in severities} == {"critical", "warning", "info", "none"}
    assert [name for name, severity in severities if severity == "none"] == ["Watchdog"]


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
def test_every_alert_says_what_is_wrong_what_it_costs_and_what_to_do_first(
    rule: dict[str, Any],
) -> None:
    notes = rule["annotations"]
    assert rule["labels"].keys() == {"severity"}
    assert notes.keys() == {
        *("summary", "description", "threshold", "cost", "runbook_url", "dashboard"),
    }
    assert "First" in notes["description"]
    # Ids identify, and say nothing to a reader; commands may need them.
    text = re.sub(r"`[^`]*`|query \}\}", "", f"{notes['summary']} {notes['description']}")
    assert not re.search(r"\{\{ \$labels\.\w+_id \}\}", text)


ABOUT_EXPORTERS = {
    "ChutesExporterDown",
    "ChutesExporterBlind",
    "ChutesApiDown",
    "ChutesClockOff",
    "ChutesReloadFailed",
}
"""Alerts that name an exporter. A new address restarts no timer of the others."""
AT_ONCE = {"ChutesServerInMaintenance", "ChutesServerMaintenancePending"}
"""Alerts that end at once, because a late text would tell to reboot a server that is back. They
look back an hour instead.
"""


@rules
def test_a_single_good_or_bad_moment_changes_no_alert(rule: dict[str, Any]) -> None:
    # A result by instance would end and begin anew when the exporter gets another address.
    if rule["alert"] not in ABOUT_EXPORTERS:
        assert not re.search(
            r"^\s*(count|max|min|sum|avg) by \([^)]*\binstance\b", rule["expr"], re.MULTILINE
        )
    assert minutes(rule["for"]) >= 2
    if rule["alert"] in AT_ONCE:
        assert "keep_firing_for" not in rule
        assert set(re.findall(r"\[(\w+)\]", rule["expr"])) == {"1h"}
    else:
        assert minutes(rule["keep_firing_for"]) >= 10


@rules
def test_every_alert_leads_to_a_board_that_there_is(rule: dict[str, Any]) -> None:
    address = rule["annotations"]["dashboard"]
    address = address.removeprefix("{{ with $externalLabels.grafana_url }}{{ . }}/d/").removesuffix(
        "{{ end }}"
    )
    path, _, query = address.partition("?")
    assert path.removesuffix("{{ with $labels.hotkey }}") in {board.uid for board in BOARDS}
    assert query in ("", "var-hotkey={{ $labels.hotkey }}", "var-hotkey={{ . }}{{ end }}")
