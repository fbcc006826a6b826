"""The form of the rules, of their texts, and of the documents about them."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from grafana.boards import BOARDS
from tests.prometheus.scenario import ALERTS, FILES, GROUPS
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RUNBOOKS = ROOT / "docs" / "runbooks"
RECORDINGS: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"] if "record" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})
COMMANDS = ("kubectl ", "chutes-miner ", "chutes-exporter ", "btcli ", "timedatectl", "sudo ")


def sections() -> dict[str, tuple[str, str]]:
    """Return the file and the text of each section of the runbooks."""
    found: dict[str, tuple[str, str]] = {}
    for path in RUNBOOKS.glob("*.md"):
        for title, text in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", path.read_text(), re.MULTILINE | re.DOTALL):
            assert title not in found
            found[title] = path.name, text
    return found


def minutes(duration: str) -> int:
    return int(duration[:-1]) * {"m": 1, "h": 60, "d": 24 * 60}[duration[-1]]


def test_the_rules_are_well_formed() -> None:
    result = subprocess.run(
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", *map(str, FILES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_there_are_at_most_30_recordings_and_no_expression_is_longer_than_15_lines() -> None:
    assert len(RECORDINGS) <= 30
    lengths = [len(rule["expr"].strip().split("\n")) for rule in (*RECORDINGS, *ALERTS)]
    # One stands beside each of the routing's inhibitions.
    assert sorted(lengths)[-2] <= 15
    assert sum(length <= 5 for length in lengths) > len(lengths) / 2


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_absent_becomes_a_number_only_with_a_reason(path: Path) -> None:
    made = re.compile(r"^.*\n.*\bor(?: on \([^)]*\))?\s+(?:#.*\s+)?(?:0 \*|vector\(|count\().*$", re.MULTILINE)
    found = made.findall(path.read_text())
    assert found
    assert [text for text in found if "#" not in text] == []


def test_an_alert_has_one_rule_for_each_severity() -> None:
    severities = defaultdict(list)
    for rule in ALERTS:
        severities[rule["alert"]].append(rule["labels"]["severity"])
    assert all(len(set(found)) == len(found) for found in severities.values())
    assert {severity for found in severities.values() for severity in found} == {"critical", "warning", "info", "none"}
    assert severities["Watchdog"] == ["none"]


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_runbook_section_with_commands(name: str) -> None:
    file, text = sections()[name]
    for rule in ALERTS:
        if rule["alert"] == name:
            assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{file}#{name.lower()}")
    assert re.findall(r"^\*\*(.+?)\*\*:", text, re.MULTILINE) == ["Means", "Check", "Do"]
    commands = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert any(line.startswith(COMMANDS) for line in commands)


def test_the_runbooks_have_no_section_without_an_alert() -> None:
    assert sorted(sections()) == NAMES


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_every_alert_says_what_is_wrong_what_it_costs_and_what_to_do_first(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert rule["labels"].keys() == {"severity"}
    if rule["alert"] == "Watchdog":
        return
    assert notes.keys() == {"summary", "description", "threshold", "cost", "runbook_url", "dashboard"}
    # The summary starts with its subject: a short name of the miner, the API or the exporter.
    assert re.match(r"\{\{ (printf|with \$labels.hotkey)|Chutes (API|exporter)", notes["summary"])
    first = re.search(
        r"First(: |, on its machine: |, where the exporter runs: )(`chutes-exporter)?", notes["description"]
    )
    assert first is not None
    assert ("runs" in first[1]) == bool(first[2])
    # Ids identify, and say nothing to a reader; commands may need them.
    prose = re.sub(r"`[^`]*`|\{\{ else \}\}.*?\{\{ end \}\}|query \}\}", "", notes["summary"] + notes["description"])
    assert not re.search(r"\{\{ \$labels\.\w+_id \}\}", prose)


ABOUT_EXPORTERS = {"ChutesExporterDown", "ChutesApiDown", "ChutesClockOff", "ChutesReloadFailed"}
"""Alerts that name an exporter. A new address restarts no timer of the others."""


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_a_single_good_or_bad_moment_changes_no_alert(rule: dict[str, Any]) -> None:
    if rule["alert"] not in ABOUT_EXPORTERS:
        assert not re.search(r"^\s*(count|max|min|sum|avg) by \([^)]*\binstance\b", rule["expr"], re.MULTILINE)
    if rule["alert"] != "Watchdog":
        assert minutes(rule["for"]) >= 2
        assert minutes(rule["keep_firing_for"]) >= 10


@pytest.mark.parametrize("rule", RECORDINGS, ids=lambda rule: rule["record"])
def test_recorded_values_are_named_level_metric_operations(rule: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z_]+:chutes_[a-z_]+:[a-z0-9_]+", rule["record"])


def test_every_alert_leads_to_a_board_that_there_is() -> None:
    boards = {board.uid for board in BOARDS}
    for rule in ALERTS:
        if rule["alert"] != "Watchdog":
            address = rule["annotations"]["dashboard"]
            address = address.removeprefix("{{ with $externalLabels.grafana_url }}{{ . }}/d/").removesuffix("{{ end }}")
            path, _, query = address.partition("?")
            assert path.removesuffix("{{ with $labels.hotkey }}") in boards
            assert query in ("", "var-hotkey={{ $labels.hotkey }}", "var-hotkey={{ . }}{{ end }}")


def test_the_table_of_alerts_leads_to_every_section() -> None:
    table = (ROOT / "docs" / "alerts.md").read_text()
    for name in NAMES:
        file, _ = sections()[name]
        assert f'<a id="{name}"></a>[{name}](runbooks/{file}#{name.lower()})' in table
    for rule in ALERTS:
        assert f"| {rule['labels']['severity']} | {rule['annotations']['threshold']} |" in table
