"""mixin.libsonnet: Jsonnet reads the same rules and dashboards as Prometheus and Grafana."""

from __future__ import annotations

import json

import rjsonnet
import yaml

from tests.prometheus.rule_files import RULES
from tests.support import ROOT


def test_the_mixin_has_every_rule_and_dashboard_and_can_be_joined_with_another() -> None:
    other = "{prometheusAlerts+:: {groups+: [{name: 'other'}]}}"
    fields = "[both.prometheusAlerts, both.prometheusRules, both.grafanaDashboards]"
    program = f"local both = {other} + (import 'mixin.libsonnet'); {fields}"
    result = rjsonnet.evaluate_snippet("test", program, jpathdir=str(ROOT))
    alerts = yaml.safe_load((RULES / "alerts.yml").read_text())
    recordings = yaml.safe_load((RULES / "recordings.yml").read_text())
    alerts["groups"].insert(0, {"name": "other"})
    dashboards = {
        path.name: json.loads(path.read_text())
        for path in (ROOT / "grafana" / "dashboards").iterdir()
    }
    assert json.loads(result) == [alerts, recordings, dashboards]
