"""mixin.libsonnet: Jsonnet reads the same rules and dashboards as Prometheus and Grafana."""

from __future__ import annotations

import json

import rjsonnet
import yaml

from tests.support import ROOT, RULES


def test_the_mixin_has_every_rule_and_dashboard_and_can_be_joined_with_another() -> None:
    other = "{prometheusAlerts+:: {groups+: [{name: 'other'}]}}"
    fields = "[both.prometheusAlerts, both.prometheusRules, both.grafanaDashboards]"
    found = rjsonnet.evaluate_snippet(
        "test", f"local both = {other} + (import 'mixin.libsonnet'); {fields}", jpathdir=str(ROOT)
    )
    alerts, recordings = (
        yaml.safe_load((RULES / f"{name}.yml").read_text()) for name in ("alerts", "recordings")
    )
    alerts["groups"].insert(0, {"name": "other"})
    dashboards = {
        path.name: json.loads(path.read_text())
        for path in (ROOT / "grafana" / "dashboards").iterdir()
    }
    assert json.loads(found) == [alerts, recordings, dashboards]
