"""What documents say about the code, the rules, the boards and the service is so."""

from __future__ import annotations

import re
from typing import Any

import yaml

from chutes_exporter.rules.losses import END_REASONS
from deploy.reference import ALL_METRICS
from grafana.boards import BOARDS
from tests.grafana.answers import filled_in
from tests.grafana.display import committed, panels
from tests.support import HOTKEY, ROOT, RULES

DOCS = ROOT / "docs"
PANELS: list[dict[str, Any]] = [panel for board in BOARDS for panel in panels(committed(board.uid))]


def text_of(document: str) -> str:
    """Return a document with each run of white space as one blank."""
    return " ".join((DOCS / document).read_text().split())


def test_every_series_of_money_is_recorded_and_read() -> None:
    # The rows of its tables begin with a series.
    named = re.findall(r"(?m)^\| `([\w:]+)` \|", (DOCS / "money.md").read_text())
    rules = []
    for group in yaml.safe_load((RULES / "recordings.yml").read_text())["groups"]:
        rules += group["rules"]
    readers = " ".join(rule["expr"] for rule in rules)
    readers += (RULES / "alerts.yml").read_text() + str(PANELS)
    assert named
    known = {rule["record"] for rule in rules} | {metric.name for metric in ALL_METRICS}
    assert set(named) <= known
    assert [series for series in named if series not in readers] == []


def test_every_metric_that_a_document_names_exists() -> None:
    known = {metric.name for metric in ALL_METRICS}
    generated = {DOCS / "metrics.md", DOCS / "queries.md"}
    documents = {ROOT / "README.md", *DOCS.rglob("*.md")} - generated
    named = set()
    for path in documents:
        # `chutes_thing` or `chutes_thing{...}`.
        for name in re.findall(r"`(chutes_[a-z_0-9]+)[`{]", path.read_text()):
            named.add((path.name, name))
    assert ("earnings.md", "chutes_miner_score_ratio") in named
    for document, name in named:
        assert name in known, document


def test_the_only_panel_whose_colours_tell_reasons_apart_is_named() -> None:
    titles = set()
    for panel in PANELS:
        overrides = panel["fieldConfig"].get("overrides", ())
        # In a graph, only a colour is set for each series by its name.
        names = {override["matcher"]["options"] for override in overrides}
        if names >= {*END_REASONS}:
            titles.add(panel["title"])
    assert titles == {"Ended per hour by reason"}
    assert "Only in *Ended per hour by reason*, colours tell reasons apart." in text_of(
        "dashboards.md"
    )


def test_a_panel_without_data_says_what_it_needs_or_names_the_exporter_board() -> None:
    shown = [panel for panel in PANELS if panel.get("targets")]
    texts = {panel["fieldConfig"]["defaults"]["noValue"] for panel in shown}
    needs = re.compile("need|none|no |set |not loaded|dcgm|Exporter board", re.IGNORECASE)
    assert "see the Exporter board" in texts
    assert [text for text in texts if not needs.search(text)] == []
    assert "says what it needs, or names the Exporter board" in text_of("dashboards.md")


def test_only_kubernetes_lets_other_machines_reach_the_exporter() -> None:
    environment = (ROOT / "deploy" / "systemd" / "environment").read_text()
    assert "LISTEN_ADDRESS=127.0.0.1:10064" in environment
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    values = yaml.safe_load((ROOT / "deploy/helm/chutes-exporter/values.yaml").read_text())
    (namespace,) = values["networkPolicy"]["namespaces"]
    exception = f"except on Kubernetes, where the pods of the namespace `{namespace}` reach it"
    assert f"it listens on this machine only, {exception}" in text_of("start.md")


def test_every_reason_for_an_end_is_explained() -> None:
    (table,) = re.findall(r"\| reason \|.*?\n\n", (DOCS / "earnings.md").read_text(), re.DOTALL)
    # A row may explain several reasons in its first cell.
    first_cells = " ".join(re.findall(r"(?m)^\| (`.*?) \|", table))
    assert sorted(re.findall(r"`(\w+)`", first_cells)) == sorted(END_REASONS)


def test_victoria_metrics_takes_the_queries_for_all_miners_of_the_subnet() -> None:
    text = text_of("operations.md")
    limits = re.findall(r"-search\.maxQueryLen=(\d+)KiB", text)
    expressions = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]

    def longest(miners: int) -> int:
        """Return the length of the longest query for so many miners."""
        return max(len(filled_in(expression, miners * [HOTKEY])) for expression in expressions)

    # The document names the flag twice. The default is 16 KiB. A subnet has 256 seats.
    assert limits == ["128", "128"]
    assert 16 * 1024 < longest(256) < 128 * 1024
    assert "For more than 75 miners" in text
    assert longest(75) < 16 * 1024 < longest(90)
