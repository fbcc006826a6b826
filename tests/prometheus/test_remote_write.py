"""The example of remote write sends what dashboards read. tests/newest/ runs it."""

from __future__ import annotations

import re
import subprocess

import yaml

from grafana.parts import ANNOTATION
from tests.grafana.display import PANELS
from tests.grafana.promql import metrics
from tests.support import ROOT

EXAMPLE = ROOT / "prometheus" / "examples" / "remote-write.yml"


def test_remote_write_keeps_every_metric_that_a_dashboard_reads() -> None:
    (store,) = yaml.safe_load(EXAMPLE.read_text())["remote_write"]
    (kept,) = (rule for rule in store["write_relabel_configs"] if rule["action"] == "keep")
    assert kept["source_labels"] == ["__name__"]
    read = metrics(ANNOTATION.expr)
    for _, panel in PANELS:
        for target in panel["targets"]:
            read |= metrics(target["expr"])
    # The queries were read: each kind of metric is there.
    assert {"ALERTS", "up", "chutes_miner_watched", "hotkey_state:chutes_fleet_gpus:sum"} <= read
    assert {name for name in read if not re.fullmatch(kept["regex"], name)} == set()
    # Metrics that no dashboard reads are not sent.
    assert not re.fullmatch(kept["regex"], "node_cpu_seconds_total")


def test_promtool_accepts_the_example() -> None:
    subprocess.run(["promtool", "check", "config", EXAMPLE], check=True)
