"""The Helm values for the miners' own monitoring chart: what it makes of them, Prometheus takes."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.deploy.test_kubernetes import only
from tests.support import ROOT, RULES

if TYPE_CHECKING:
    from pathlib import Path

VALUES: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "chutes-monitoring-values.yaml").read_text())
ALERTMANAGER: dict[str, Any] = yaml.safe_load(
    (ROOT / "deploy" / "chutes-monitoring-alertmanager-values.yaml").read_text()
)

SUBNET: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "chutes-monitoring-subnet-values.yaml").read_text())
JOBS_OF_THE_CHART = {
    "prometheus",
    "kubernetes-apiservers",
    "kubernetes-nodes",
    "kubernetes-nodes-cadvisor",
    "kubernetes-service-endpoints",
    "kubernetes-service-endpoints-slow",
    "prometheus-pushgateway",
    "kubernetes-services",
    "kubernetes-pods",
    "kubernetes-pods-slow",
    "node-exporter",
    "federate",
}

MAP = {"type": "object"}
SCHEMA = {
    "type": "object",
    "required": ["prometheus"],
    "additionalProperties": False,
    "properties": {
        "prometheus": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "extraScrapeConfigs": {"type": "string"},
                "serverFiles": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"alerting_rules.yml": MAP, "recording_rules.yml": MAP},
                },
                "alertmanager": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["enabled", "config"],
                    "properties": {"enabled": {"const": True}, "config": MAP},
                },
            },
        },
    },
}
"""Names and types of the chart's values that our files set (with prometheus 27.19 as `prometheus`)."""


def config(values: dict[str, Any], directory: Path) -> Path:
    """Write Prometheus' configuration as the chart makes it of values."""
    files = values["prometheus"]["serverFiles"]
    for name, content in files.items():
        (directory / name).write_text(yaml.safe_dump(content))
    path = directory / "prometheus.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(directory / name) for name in files],
                "scrape_configs": yaml.safe_load(values["prometheus"]["extraScrapeConfigs"]),
            }
        )
    )
    return path


@pytest.mark.parametrize("values", [VALUES, SUBNET, ALERTMANAGER], ids=["rules", "subnet", "alertmanager"])
def test_the_values_are_those_that_the_chart_has(values: dict[str, Any]) -> None:
    import jsonschema  # noqa: PLC0415 - it takes seconds, in each process that collects the tests

    jsonschema.validate(values, SCHEMA)
    (key,) = list(values["prometheus"])[:1]
    misspelt = json.loads(json.dumps(values).replace(f'"{key}"', f'"{key}s"'))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(misspelt, SCHEMA)


def test_the_rules_are_those_of_the_project() -> None:
    files = VALUES["prometheus"]["serverFiles"]
    assert files["alerting_rules.yml"] == yaml.safe_load((RULES / "alerts.yml").read_text())
    assert files["recording_rules.yml"] == yaml.safe_load((RULES / "recordings.yml").read_text())


@pytest.mark.parametrize("jobs", [VALUES, SUBNET], ids=["rules", "subnet"])
def test_prometheus_accepts_the_rendered_values(tmp_path: Path, jobs: dict[str, Any]) -> None:
    together = {"prometheus": {**VALUES["prometheus"], **jobs["prometheus"]}}
    subprocess.run(["promtool", "check", "config", str(config(together, tmp_path))], check=True)


@pytest.mark.parametrize("values", [VALUES, SUBNET], ids=["rules", "subnet"])
def test_jobs_have_names_that_the_chart_does_not_have(values: dict[str, Any]) -> None:
    names = [job["job_name"] for job in yaml.safe_load(values["prometheus"]["extraScrapeConfigs"])]
    assert len(set(names)) == len(names)
    assert set(names) & JOBS_OF_THE_CHART == set()


def test_the_subnets_values_have_the_first_job_too_and_lead_to_the_subnets_service() -> None:
    (first,) = yaml.safe_load(VALUES["prometheus"]["extraScrapeConfigs"])
    pods, subnet = yaml.safe_load(SUBNET["prometheus"]["extraScrapeConfigs"])
    assert pods == first
    service = only("subnet", "Service")["metadata"]
    address = f"{service['name']}.{service['namespace']}.svc:10064"
    assert subnet["http_sd_configs"][0]["url"] == f"http://{address}/sd?miners=all"
    assert subnet["relabel_configs"][-1] == {"target_label": "__address__", "replacement": address}
    assert not [rule for rule in subnet["relabel_configs"] if rule.get("action") == "keep"]


def test_the_chart_fills_in_nothing_of_the_scrape_job() -> None:
    # It runs this text through its templates.
    for values in (VALUES, SUBNET):
        assert "{{" not in values["prometheus"]["extraScrapeConfigs"]


def test_annotated_pods_are_scraped_once() -> None:
    (job,) = yaml.safe_load(VALUES["prometheus"]["extraScrapeConfigs"])
    assert {
        "source_labels": ["__meta_kubernetes_pod_annotation_prometheus_io_scrape"],
        "regex": "true",
        "action": "drop",
    } in job["relabel_configs"]
    assert (job["scrape_interval"], job["scrape_timeout"]) == ("1m", "30s")


def test_alertmanager_takes_its_routing(tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(ALERTMANAGER["prometheus"]["alertmanager"]["config"]))
    subprocess.run(["amtool", "check-config", str(path)], check=True)
