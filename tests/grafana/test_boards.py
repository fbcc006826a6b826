"""The dashboards as they are committed: what they are made of, and the rules that they keep."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any, get_args

import pytest
import yaml

from chutes_exporter.api.meaning import INSTANCE_STATES
from chutes_exporter.collectors import fleet
from deploy.reference import METRICS
from grafana import states
from grafana.__main__ import DASHBOARDS
from grafana.boards import BOARDS
from grafana.boards.overview import PROBLEMS, RUNBOOK
from grafana.parts import ANNOTATION, BOARD_ORDER, LOAD_RULES, MINIMUM_STEP, TAG, VARIABLES, dashboard_json
from tests.grafana.display import committed, panels
from tests.grafana.promql import calls, implicit_joins, metrics, selectors
from tests.grafana.scenes import RULES, filled_in
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from grafana.parts import Board

ALL = {board.uid: committed(board.uid) for board in BOARDS}
CATALOGUE = {metric.name: metric for metric in METRICS}
GIVEN_BY_PROMETHEUS = {"up", "ALERTS", "ALERTS_FOR_STATE", "scrape_duration_seconds"}
GIVEN_BY_DCGM = {"DCGM_FI_DEV_GPU_UTIL"}
GIVEN_BY_CLIENT = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
RECORDED = {name for name, rule in RULES.items() if "record" in rule}

UNUSED = {
    "chutes_image_info": "images are the platform's; what is wrong with them is shown as a number",
    "chutes_image_created_timestamp_seconds": "likewise",
    "chutes_image_build_started_timestamp_seconds": "likewise",
    "chutes_image_build_completed_timestamp_seconds": "likewise",
    "chutes_miner_history_timestamp_seconds": "the time of a point, for queries that compare times",
    "chutes_instance_last_verified_timestamp_seconds": "the service does not check TEE instances after their start",
    "chutes_fleet_duplicate_server_ips": "servers behind one gateway share an address rightly",
    "chutes_fleet_duplicate_server_names": "the service has refused equal names since February 2026",
    "chutes_chute_active_instances": "chutes_chute_instances is the same, and needs no key",
    "chutes_feed_ttl_seconds": "the age and the maximum age say more",
    "chutes_chute_bounty_age_seconds": "the end of a bounty and its factor are shown instead",
    "chutes_chute_scalable": "the allowance says more",
    "chutes_chute_supported_gpu_info": "chutes_launch_units_per_gpu_second has the models that a miner owns",
    "chutes_chute_utilization_ratio": "the autoscaler's utilisation is newer and has three windows",
    "chutes_chute_window_compute_seconds": "for queries about demand",
    "chutes_exporter_config_last_reload_success_timestamp_seconds": "the exporters' table shows a failed reload",
    "chutes_gpu_active": "the state of the GPU says more",
    "chutes_gpu_clock_rate_hertz": "constants of the hardware",
    "chutes_gpu_created_timestamp_seconds": "likewise",
    "chutes_gpu_memory_bytes": "likewise",
    "chutes_gpu_processors": "likewise",
    "chutes_instance_bounty": "the state and the multiplier of the instance say more",
    "chutes_instance_price_usd_per_hour": "likewise",
    "chutes_instance_verified": "likewise",
    "chutes_jobs_oldest_created_timestamp_seconds": "the table of jobs shows how long each waits",
    "chutes_maintenance_slots_in_use": "the Fleet board shows the servers, and chutes-exporter status the window",
    "chutes_maintenance_slots_limit": "likewise",
    "chutes_maintenance_window_info": "likewise",
    "chutes_maintenance_window_start_timestamp_seconds": "likewise",
    "chutes_server_in_maintenance": "likewise",
    "chutes_miner_score_compute_units": "the score share is made of it",
    "chutes_miner_score_instance_seconds": "likewise",
    "chutes_miner_window_compute_seconds": "likewise",
    "chutes_rolling_update_started_timestamp_seconds": "the table of instances shows the outdated ones",
    "chutes_scrape_collector_off": "a deployment without an endpoint is no problem of the exporter",
    "chutes_server_gpus": "the servers' table counts the GPUs by state",
    "chutes_server_created_timestamp_seconds": "no heartbeat",
    "chutes_server_updated_timestamp_seconds": "likewise",
}
"""Stable metrics that no board and no rule reads, and why."""


def each_panel() -> Iterator[tuple[str, dict[str, Any]]]:
    for uid, dashboard in ALL.items():
        for panel in panels(dashboard):
            yield uid, panel


def each_query() -> Iterator[tuple[str, str]]:
    """Every query of panels, annotations and variables, with where it stands."""
    for uid, panel in each_panel():
        for target in panel["targets"]:
            yield f"{uid}: {panel['title']} {target['refId']}", target["expr"]
    for uid, dashboard in ALL.items():
        for annotation in dashboard["annotations"]["list"]:
            yield f"{uid}: annotation {annotation['name']}", annotation["expr"]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                (selector,) = re.findall(
                    r"^(?:label_values\((.+), \w+|query_result\((.+))\)$", variable["query"]["query"]
                )
                selector = "".join(selector)
                yield f"{uid}: variable {variable['name']}", selector


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_the_committed_dashboards_are_those_that_the_code_makes(board: Board) -> None:
    assert (DASHBOARDS / f"{board.uid}.json").read_bytes() == dashboard_json(board).encode(), "run `make boards`"


def test_the_boards_are_those_of_the_story_and_no_others() -> None:
    assert tuple(board.uid for board in BOARDS) == tuple(uid for uid, _ in BOARD_ORDER)
    assert {path.stem for path in DASHBOARDS.iterdir()} == ALL.keys()


def test_they_are_what_grafana_11_6_loads() -> None:
    for uid, dashboard in ALL.items():
        assert dashboard["schemaVersion"] == 41
        assert dashboard["editable"] is False
        assert dashboard["tags"] == [TAG]
        assert dashboard["uid"] == uid
        assert re.fullmatch(r"chutes-[a-z]+", uid)
        assert dashboard["description"].endswith((".", "?"))


def test_ids_uids_and_titles_are_there_once() -> None:
    titles = [dashboard["title"] for dashboard in ALL.values()]
    assert len(set(titles)) == len(titles)
    for dashboard in ALL.values():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        headings = Counter(panel["title"] for panel in dashboard["panels"] if panel["type"] != "stat")
        assert [title for title, count in headings.items() if count > 1] in ([], ["Servers"])
        tiles = Counter(panel["title"] for panel in panels(dashboard) if panel["type"] == "stat")
        assert max(tiles.values()) == 1


def test_panels_fill_the_grid_and_do_not_overlap() -> None:
    for uid, dashboard in ALL.items():
        folded = [panel["panels"] for panel in dashboard["panels"] if panel["type"] == "row"]
        for together in (dashboard["panels"], *folded):
            cells: Counter[tuple[int, int]] = Counter()
            for panel in together:
                at = panel["gridPos"]
                assert at["x"] >= 0, at
                assert at["x"] + at["w"] <= 24, (uid, panel["title"])
                cells.update(
                    (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
                )
            assert [cell for cell, count in cells.items() if count > 1] == [], uid
            rows = {y for _, y in cells}
            assert rows == set(range(min(rows), max(rows) + 1)), uid


def test_a_board_opens_with_few_panels_in_few_grid_rows() -> None:
    for uid, dashboard in ALL.items():
        opened = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in opened)
        assert len(opened) <= 14, uid
        assert bottom <= (20 if uid == "chutes-overview" else 34), uid
        assert all(panel["collapsed"] for panel in dashboard["panels"] if panel["type"] == "row"), uid


def test_no_query_is_longer_than_450_characters() -> None:
    assert {where: len(query) for where, query in each_query() if len(query) > 450} == {}


def test_a_graph_has_one_unit() -> None:
    for uid, panel in each_panel():
        if panel["type"] == "timeseries":
            changed = [
                value["id"] for override in panel["fieldConfig"]["overrides"] for value in override["properties"]
            ]
            assert "unit" not in changed, (uid, panel["title"])


def test_every_panel_says_what_it_is_and_what_to_do() -> None:
    for uid, panel in each_panel():
        where = (uid, panel["title"])
        assert panel["title"], where
        assert len(panel["description"].split()) >= 10, where
        assert panel["description"].endswith((".", "?")), where
        assert panel["targets"], where


def test_every_panel_has_a_unit_and_a_text_for_no_data() -> None:
    for uid, panel in each_panel():
        where = (uid, panel["title"])
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], where
        assert defaults["noValue"], where
        assert not re.fullmatch(r"[-0-9. ]*", defaults["noValue"]), where
        if panel["type"] == "stat":
            # What needs the rules says so while they are not loaded.
            special = [one["options"]["result"]["text"] for one in defaults["mappings"] if one["type"] == "special"]
            assert special == [LOAD_RULES], where
            needs_rules = any(":" in name for target in panel["targets"] for name in metrics(target["expr"]))
            if needs_rules and panel["title"] not in UNGUARDED:
                assert "absent(prometheus:chutes_rules:loaded" in panel["targets"][0]["expr"], where
        elif panel["type"] == "table":
            for override in panel["fieldConfig"]["overrides"]:
                assert {one["id"] for one in override["properties"]} >= {"unit", "noValue"}, where


def test_data_sources_and_variables_are_the_chosen_ones() -> None:
    chosen = {"type": "prometheus", "uid": "$datasource"}
    for uid, dashboard in ALL.items():
        variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
        (board,) = (board for board in BOARDS if board.uid == uid)
        assert list(variables) == ["datasource", *board.variables], uid
        assert list(board.variables[:3]) == ["cluster", "job", "instance"], uid
        assert variables["datasource"]["type"] == "datasource"
        assert variables["datasource"]["query"] == "prometheus"
        for name in board.variables:
            variable = VARIABLES[name]
            assert variables[name]["query"]["query"] == variable.query
            assert variables[name]["datasource"] == chosen
            assert variables[name]["multi"] == variables[name]["includeAll"] == variable.multi, name
            assert variables[name]["refresh"] == 2, "on a change of the time range"
            assert variables[name]["label"]
        assert variables["job"]["allValue"] == variables["instance"]["allValue"] == ".+"
        if "hotkey" in variables:
            # All hotkeys are all that are watched, not all that there are.
            assert "allValue" not in variables["hotkey"]
        used = set(re.findall(r"\$(\w+)", json.dumps(dashboard["panels"])))
        assert set(board.variables) - used <= {"cluster"}, uid
        for panel in panels(dashboard):
            assert panel["datasource"] == chosen
            assert all(target["datasource"] == chosen for target in panel["targets"])
        (annotation,) = dashboard["annotations"]["list"]
        assert annotation["datasource"] == chosen
        assert annotation["expr"] == ANNOTATION.expr
        assert 'severity="critical"' in annotation["expr"]
        assert not annotation["enable"]


def test_every_selector_of_the_exporters_metrics_is_of_the_chosen_exporters() -> None:
    for where, query in each_query():
        for selector in selectors(query):
            if "variable" in where or (selector.name or "").startswith("DCGM"):
                continue
            chosen = {one.name: one.value for one in selector.matchers.matchers}
            name = selector.name or ""
            if ":" in name:
                # Recorded series have no label of an exporter.
                assert not {"job", "instance"} & chosen.keys(), (where, selector.prettify())
            elif name in ("ALERTS", "ALERTS_FOR_STATE"):
                assert chosen["job"] == ".+|", where
            else:
                assert (chosen["job"], chosen["instance"]) == (".+", ".+"), (where, selector.prettify())


def test_no_number_stands_for_something_that_is_unknown() -> None:
    for where, query in each_query():
        assert not re.search(r"(vector\(|\bor (on \(\) )?|\* ?)-", query), where
    for uid, panel in each_panel():
        fields = (
            [panel["fieldConfig"]["defaults"]["mappings"]] if "mappings" in panel["fieldConfig"]["defaults"] else []
        )
        fields += [
            value["value"]
            for override in panel["fieldConfig"]["overrides"]
            for value in override["properties"]
            if value["id"] == "mappings"
        ]
        states_shown = [
            state for field in fields for one in field if one["type"] == "value" for state in one["options"]
        ]
        assert not [state for state in states_shown if state.startswith("-")], (uid, panel["title"])


def test_queries_of_the_watched_are_of_the_chosen_hotkeys() -> None:
    for where, query in each_query():
        if where.startswith(("chutes-subnet", "chutes-exporter")) or "variable" in where:
            continue
        for selector in selectors(query):
            name = selector.name or ""
            metric = CATALOGUE.get(name)
            miners = metric is not None and metric.name.startswith("chutes_miner") and "hotkey" in metric.labels
            if miners or name.startswith("hotkey:"):
                hotkey = [one.value for one in selector.matchers.matchers if one.name == "hotkey"]
                assert hotkey == ["($hotkey)"], (where, selector.prettify())


def test_steps_and_rates_hold_at_a_scrape_a_minute() -> None:
    for _, panel in each_panel():
        for target in panel["targets"]:
            # A longer step reads fewer points of many series.
            assert target["interval"] in (MINIMUM_STEP, "5m", "15m", "30m", "1h")
            if target["interval"] == "1h":
                assert "[1h]" in target["expr"] or "offset 1h" in target["expr"]
    for where, query in each_query():
        for name, text in calls(query):
            if name in ("rate", "increase", "irate", "delta", "deriv"):
                # $__rate_interval, as it is filled in; or how many there were in a whole hour.
                assert ("[4m]" if name == "rate" else "[1h") in text, where
                assert name in ("rate", "increase"), where
        assert "[4m]" not in query, where


def test_counters_are_read_as_rates_and_gauges_are_not() -> None:
    for where, query in each_query():
        rated = {
            selector.name for name, text in calls(query) if name in ("rate", "increase") for selector in selectors(text)
        }
        for name in metrics(query):
            stem = re.sub(r"_(bucket|sum|count)$", "", name)
            metric = CATALOGUE.get(stem) or CATALOGUE.get(name)
            counts = name == "process_cpu_seconds_total" or (
                metric is not None and metric.kind in ("counter", "histogram")
            )
            assert (name in rated) == counts, (where, name)


def test_series_meet_on_labels_that_are_named() -> None:
    queries = [*each_query(), *((name, rule["expr"]) for name, rule in RULES.items())]
    assert {where: found for where, query in queries if (found := implicit_joins(query))} == {}
    assert implicit_joins("a / b") == ["a / b"]
    assert implicit_joins("a / ignoring (x) b or on () 2 * c") == ["a / ignoring (x) b"]


def test_every_metric_exists_and_every_stable_one_is_used() -> None:
    known = CATALOGUE.keys() | GIVEN_BY_PROMETHEUS | GIVEN_BY_CLIENT | GIVEN_BY_DCGM | RECORDED
    known |= {f"{name}_bucket" for name, metric in CATALOGUE.items() if metric.kind == "histogram"}
    queries = [*each_query(), *((name, rule["expr"]) for name, rule in RULES.items())]
    used = {name for _, query in queries for name in metrics(query)}
    assert used - known == set()
    used |= {name.removesuffix("_bucket") for name in used}
    stable = {name for name, metric in CATALOGUE.items() if metric.stability == "stable"}
    assert stable - used == UNUSED.keys()


UNGUARDED = {"Rules", "GPU-hours lost", "Idle cost"}
"""Stats that do not say so while the rules are not loaded."""


def test_everything_recorded_is_read() -> None:
    queries = [*each_query(), *((name, rule["expr"]) for name, rule in RULES.items())]
    texts = " ".join(str(rule["annotations"]) for rule in RULES.values() if "alert" in rule)
    used = {name for _, query in queries for name in metrics(query)}
    assert {name for name in RECORDED - used if name not in texts} == set()


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    rules = []
    for number, (_, query) in enumerate(each_query()):
        filled = filled_in(query, ["5Me"])
        rules.append({"record": f"query:number{number}:any", "expr": filled})
    path = tmp_path / "queries.yml"
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    result = subprocess.run(
        ["promtool", "check", "rules", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(rules)} rules found" in result.stdout


def test_problems_are_alerts_in_words() -> None:
    alerts = {rule["alert"] for rule in RULES.values() if rule.get("alert", "Watchdog") != "Watchdog"}
    assert {state.value for state in PROBLEMS} - {"Watchdog"} == alerts
    texts = {str(state.value): state.text for state in PROBLEMS}
    assert texts["ChutesGpusIdle"] == "GPUs idle"
    assert texts["ChutesMinerSeatAtRisk"] == "Miner seat at risk"
    colors = {str(state.value): state.color for state in PROBLEMS}
    assert colors["ChutesMinerDeregistered"] == states.RED
    assert colors["ChutesGpusIdle"] == states.ORANGE
    # It is critical or only informs, and never a warning.
    assert colors["ChutesMinerUnwatched"] == states.RED
    # It can be both.
    assert colors["ChutesApiDown"] == states.PLAIN


def links(value: Any) -> Iterator[str]:
    """Return every address that stands anywhere in a dashboard."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "url":
                yield inner
            else:
                yield from links(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from links(inner)


def test_links_lead_to_boards_and_carry_what_is_chosen() -> None:
    found = 0
    for uid, dashboard in ALL.items():
        own = {variable["name"] for variable in dashboard["templating"]["list"]}
        others = [link["url"] for link in dashboard["links"]]
        # Each leads to the next first, and to all.
        order = [name for name, _ in BOARD_ORDER]
        place = order.index(uid)
        assert others == [f"/d/{name}" for name in order[place + 1 :] + order[:place]]
        assert all(link["includeVars"] and link["keepTime"] and link["type"] == "link" for link in dashboard["links"])
        for url in links(dashboard["panels"]):
            found += 1
            if url == RUNBOOK:
                continue
            path, _, query = url.partition("?")
            target = path.removeprefix("/d/")
            assert target in ALL
            theirs = {variable["name"] for variable in ALL[target]["templating"]["list"]}
            assert set(re.findall(r"var-(\w+)=", query)) <= theirs
            assert set(re.findall(r"\$\{(\w+)\}", query)) <= own | {"__url_time_range"}
            fields = set(re.findall(r"\$\{__data\.fields\.(\w+)\}", query))
            assert fields <= {"hotkey", "chute_id"}
            assert "${__url_time_range}" in query
            assert "var-datasource=${datasource}" in query
            assert "${job:queryparam}" in query
            assert ("${instance:queryparam}" in query) != ("var-instance=" in query)
    assert found >= 1


def test_the_rows_of_every_table_lead_on() -> None:
    for uid, panel in each_panel():
        if panel["type"] == "table":
            led = [one for one in links(panel["fieldConfig"]["overrides"]) if re.search("var-(?!datasource)", one)]
            assert led, (uid, panel["title"])


def names(value: Any) -> Iterator[str]:
    """Return what may name something: titles, labels of variables, legends, columns."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("title", "name", "label", "legendFormat", "uid", "text") and isinstance(inner, str):
                yield inner
            elif key == "renameByName":
                yield from inner.values()
            else:
                yield from names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names(inner)


def test_nothing_has_a_name_that_means_something_else_in_a_cluster() -> None:
    for dashboard in ALL.values():
        assert {name.lower() for name in names(dashboard)} & {
            "pod",
            "node",
            "namespace",
            "service",
        } == set()


def test_the_states_of_the_table_are_those_of_the_exporter() -> None:
    assert {state.text for state in states.GPU} == set(fleet.STATES) == set(get_args(fleet.State))
    assert {state.text for state in states.INSTANCE} == set(INSTANCE_STATES)
    # The Watchdog fires always, and no board shows it.
    severities = {rule["labels"]["severity"] for rule in RULES.values() if rule.get("alert", "Watchdog") != "Watchdog"}
    assert {state.text for state in states.SEVERITY} == severities


def test_state_names_and_colours_stand_in_their_table_alone() -> None:
    texts = {state.text for state in (*states.REGISTERED, *states.BLACKLISTED, *states.ACCEPTED)}
    for path in (ROOT / "grafana" / "boards").glob("*.py"):
        strings = set(re.findall(r'"([^"]*)"', path.read_text()))
        assert strings & (texts - {"no", "none"}) == set(), path.name
        assert strings & {"red", "orange", "yellow", "green", "blue", "purple"} == set(), path.name


def test_provisioning_loads_the_dashboards_and_a_data_source() -> None:
    provisioning = ROOT / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == "1m"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "chutes.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False
    assert provider["options"]["path"].endswith("/dashboards")
