"""Writes what is made of the one source of rules, routing and scrape jobs: `make deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent
NAMESPACE: Final = "chutes"
MADE: Final = "# Made by `make deploy` from {}; do not edit.\n"
_RULES = ("alerts", "recordings")

VALUES_HEAD: Final = """\
# Adds the rules and a scrape job to the miners' own monitoring (the chart chutes-monitoring, release `monitoring`),
# beside the values that it was installed with:
#
#   helm upgrade monitoring /tmp/chutes-monitoring --namespace monitoring --reuse-values \\
#     -f deploy/chutes-monitoring-values.yaml
#
# The miners' ansible leaves its copy of the chart in /tmp/chutes-monitoring; the same is charts/chutes-monitoring of
# their repository.
#
# WHAT AN ANSIBLE RE-RUN RESETS: its monitoring task upgrades the release with its own values alone. Rules, scrape job
# and Alertmanager are then gone until the command above is given again. The exporter and its dashboards stay: they are
# not part of the release.
#
# The scrape job leaves out Pods that are annotated for scraping, which this Prometheus scrapes anyway.
"""
ALERTMANAGER_HEAD: Final = """\
# Switches on the Alertmanager of the miners' own monitoring, which is off, with the example of routing: replace the
# receivers first. Give it after deploy/chutes-monitoring-values.yaml in the same command, with another -f.
"""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, so that queries stay readable."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _write(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def _read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def prometheus_rule() -> str:
    """Make the rules' PrometheusRule, for the Prometheus Operator."""
    groups = [group for name in _RULES for group in _read(f"prometheus/rules/{name}.yml")["groups"]]
    return MADE.format("prometheus/rules/") + _write(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "chutes-exporter"},
            "spec": {"groups": groups},
        }
    )


def subnet_scrape() -> str:
    """Make the scrape jobs of the whole subnet, for an exporter that is a Service of a cluster."""
    text = (ROOT / "prometheus" / "subnet.yml").read_text()
    address = f"chutes-exporter-subnet.{NAMESPACE}.svc:10064"
    return MADE.format("prometheus/subnet.yml") + text.replace("localhost:10064", address)


def monitoring_values() -> str:
    """Make the Helm values that add rules and a scrape job to the miners' chart."""
    job = {
        "job_name": "chutes",
        "scrape_interval": "1m",
        "scrape_timeout": "30s",
        "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": [NAMESPACE]}}],
        "relabel_configs": [
            {
                "source_labels": ["__meta_kubernetes_pod_label_app_kubernetes_io_name"],
                "regex": "chutes-exporter",
                "action": "keep",
            },
            {
                "source_labels": ["__meta_kubernetes_pod_annotation_prometheus_io_scrape"],
                "regex": "true",
                "action": "drop",
            },
            {
                "source_labels": ["__meta_kubernetes_pod_container_port_name"],
                "regex": "metrics",
                "action": "keep",
            },
        ],
    }
    return (
        MADE.format("prometheus/rules/")
        + VALUES_HEAD
        + _write(
            {
                "prometheus": {
                    "serverFiles": {
                        "alerting_rules.yml": _read("prometheus/rules/alerts.yml"),
                        "recording_rules.yml": _read("prometheus/rules/recordings.yml"),
                    },
                    "extraScrapeConfigs": _write([job]),
                }
            }
        )
    )


def alertmanager_values() -> str:
    """Make the Helm values that switch the miners' Alertmanager on."""
    return (
        MADE.format("alertmanager/alertmanager.yml")
        + ALERTMANAGER_HEAD
        + _write({"prometheus": {"alertmanager": {"enabled": True, "config": _read("alertmanager/alertmanager.yml")}}})
    )


FILES: Final = {
    "kustomize/overlays/operator/prometheusrule.yaml": prometheus_rule,
    "kustomize/overlays/subnet/subnet.yml": subnet_scrape,
    "chutes-monitoring-values.yaml": monitoring_values,
    "chutes-monitoring-alertmanager-values.yaml": alertmanager_values,
}
"""What is made, by its path in deploy/."""

if __name__ == "__main__":
    for name, make in FILES.items():
        (ROOT / "deploy" / name).write_text(make())
