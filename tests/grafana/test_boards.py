"""The dashboards as they are committed: what they are made of, and the rules that they keep."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.fleet.gpus import GPU_STATES
from chutes_exporter.rules.instances import INSTANCE_STATES
from chutes_exporter.rules.losses import END_REASONS, OUTCOMES
from deploy.reference import ALL_METRICS
from grafana import states
from grafana.__main__ import DASHBOARDS
from grafana.alerts import FIRST_STEP_OF
from grafana.boards import BOARDS
from grafana.dashboard import BOARD_ORDER, dashboard_json
from tests.grafana.display import PANELS, committed
from tests.grafana.promql import implicit_joins, metrics, selectors
from tests.prometheus.rule_files import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from grafana.dashboard import Board

ALL = {board.uid: committed(board.uid) for board in BOARDS}
CATALOGUE = {metric.name: metric for metric in ALL_METRICS}
GIVEN_BY_OTHERS = {
    *("up", "ALERTS", "ALERTS_FOR_STATE", "scrape_duration_seconds"),
    *("process_cpu_seconds_total", "process_resident_memory_bytes"),
    *("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS"),
}
"""Metrics of Prometheus, of its client library and of NVIDIA's exporter."""
RULES = {
    rule.get("record") or f"{rule['alert']} ({rule['labels']['severity']})": rule
    for group in GROUPS
    for rule in group["rules"]
}
RECORDED = {name for name, rule in RULES.items() if "record" in rule}


def each_query() -> Iterator[tuple[str, str]]:
    """Every query of panels, annotations and variables, with where it stands."""
    for uid, panel in PANELS:
        for target in panel["targets"]:
            yield f"{uid}: {panel['title']} {target['refId']}", target["expr"]
    for uid, dashboard in ALL.items():
        for annotation in dashboard["annotations"]["list"]:
            yield f"{uid}: annotation {annotation['name']}", annotation["expr"]
        # The first variable is the data source, which asks nothing.
        _, *variables = dashboard["templating"]["list"]
        for variable in variables:
            # Such as `label_values(QUERY, label)` or `query_result(QUERY)`.
            found = re.fullmatch(r"\w+\((.+?)(, \w+)?\)", variable["query"]["query"])
            assert found is not None
            yield f"{uid}: variable {variable['name']}", found[1]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_the_committed_dashboards_are_those_that_the_code_makes(board: Board) -> None:
    assert (DASHBOARDS / f"{board.uid}.json").read_bytes() == dashboard_json(board).encode(), (
        "run `make generate`"
    )
    assert {path.stem for path in DASHBOARDS.iterdir()} == ALL.keys() == BOARD_ORDER.keys()


def test_every_selector_is_of_the_chosen_exporters_and_of_the_chosen_miners() -> None:
    for where, query in each_query():
        # These two boards also show miners and exporters that are not chosen.
        about_miners = not where.startswith(("chutes-subnet", "chutes-exporter"))
        for selector in selectors(query):
            name = selector.name or ""
            # A variable offers what can be chosen, and NVIDIA's exporter knows no miners.
            if "variable" in where or name.startswith("DCGM"):
                continue
            place = (where, selector.prettify())
            chosen = {one.name: one.value for one in selector.matchers.matchers}
            # The exporters of one miner are merged, so that a query does not select a job or an
            # exporter. Where exporters are the subject, it does. All are chosen, which is `.+`.
            is_apart = where.startswith("chutes-exporter") and name not in {"ALERTS", *RECORDED}
            apart = {"job": ".+", "instance": ".+"} if is_apart else {}
            assert {one: chosen[one] for one in ("job", "instance") if one in chosen} == apart, (
                place
            )
            of_miner = name.startswith("chutes_miner") and "hotkey" in CATALOGUE[name].labels
            if about_miners and (of_miner or name.startswith("hotkey:")):
                assert chosen["hotkey"] == "($hotkey)", place


def test_series_meet_on_labels_that_are_named() -> None:
    queries = [*each_query(), *((name, rule["expr"]) for name, rule in RULES.items())]
    # Each alert has labels of its own.
    queries = [
        (where, query) for where, query in queries if where != "alert:chutes_alerts:severity"
    ]
    assert {where: found for where, query in queries if (found := implicit_joins(query))} == {}
    # The helper finds joins without `on`.
    assert implicit_joins("a / b") == ["a / b"]
    assert implicit_joins("a / ignoring (x) b or on () 2 * c") == ["a / ignoring (x) b"]


def test_every_metric_exists_and_everything_recorded_is_read() -> None:
    known = CATALOGUE.keys() | GIVEN_BY_OTHERS | RECORDED
    known |= {f"{name}_bucket" for name, metric in CATALOGUE.items() if metric.kind == "histogram"}
    queries = [*each_query(), *((name, rule["expr"]) for name, rule in RULES.items())]
    used = {name for _, query in queries for name in metrics(query)}
    assert used - known == set()
    texts = " ".join(str(rule["annotations"]) for rule in RULES.values() if "alert" in rule)
    assert {name for name in RECORDED - used if name not in texts} == set()
    # Texts ask for metrics, too.
    asked = set(re.findall(r"\bchutes_\w+(?=[{)\[])", texts))
    assert asked - known == set()


def test_boards_and_rules_are_small() -> None:
    assert {where for where, query in each_query() if len(query) > 300} == set()
    assert sum(len(board.panels) for board in BOARDS) <= 60
    for board in BOARDS:
        assert sum(len(panel.queries) for panel in board.panels) <= 30, board.uid
    assert len(RECORDED) <= 20
    long = {name for name in RECORDED if len(RULES[name]["expr"].splitlines()) > 8}
    assert long == set()


def test_the_states_of_the_table_are_those_of_the_exporter() -> None:
    assert [state.text for state in states.GPU] == [*GPU_STATES]
    assert {state.text for state in states.INSTANCE} == {*INSTANCE_STATES}
    # A graph of ends by reason also has bars of failed starts.
    assert {state.text for state in states.REASONS} == {*END_REASONS, "failed starts"}
    assert {state.value for state in states.OUTCOMES} == {*OUTCOMES}
    # The Watchdog fires always, and no board shows it. The default is for recordings, which have no
    # severity either.
    severities = {
        rule["labels"]["severity"]
        for rule in RULES.values()
        if rule.get("alert", "Watchdog") != "Watchdog"
    }
    assert {state.text for state in states.SEVERITY} == severities


def test_no_state_of_a_server_or_alert_tells_to_reboot_it_now() -> None:
    texts = [state.text for table in (states.SERVER, states.STEPS) for state in table]
    texts += FIRST_STEP_OF.values()
    for text in (text for text in texts if "reboot" in text):
        assert "not reboot" in text, text
    # What is in maintenance may be booted only when nothing earns on it.
    for text in (text for text in texts if " boot " in text):
        assert "nothing earns" in text, text
