"""The example of remote write sends what dashboards read."""

from __future__ import annotations

import re

from grafana.parts import ANNOTATION
from tests.grafana.display import PANELS
from tests.grafana.promql import metrics
from tests.support import ROOT


def test_remote_write_keeps_every_metric_that_a_dashboard_reads() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    (kept,) = re.findall(r"regex: (.+)\n +action: keep", text)
    read = metrics(ANNOTATION.expr)
    for _, panel in PANELS:
        for target in panel["targets"]:
            read |= metrics(target["expr"])
    # The queries were read: each kind of metric is there.
    assert {"ALERTS", "up", "chutes_miner_watched", "hotkey_state:chutes_fleet_gpus:sum"} <= read
    assert {name for name in read if not re.fullmatch(kept, name)} == set()
    # Metrics that no dashboard reads are not sent.
    assert not re.fullmatch(kept, "node_cpu_seconds_total")
