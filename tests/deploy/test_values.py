"""The Helm values for the miners' own monitoring chart: what it makes of them, Prometheus takes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import yaml

from tests.support import ROOT, RULES

if TYPE_CHECKING:
    from pathlib import Path

RULES_AND_JOB, ALERTMANAGER = (
    yaml.safe_load((ROOT / "deploy" / f"chutes-monitoring{name}-values.yaml").read_text())["prometheus"]
    for name in ("", "-alertmanager")
)
"""Values of the chart's dependency `prometheus` 27.19."""
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


def test_prometheus_accepts_the_rendered_values(tmp_path: Path) -> None:
    files = RULES_AND_JOB["serverFiles"]
    for name, content in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
    jobs = yaml.safe_load(RULES_AND_JOB["extraScrapeConfigs"])
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump({"rule_files": list(files), "scrape_configs": jobs}))
    subprocess.run(["promtool", "check", "config", str(path)], check=True)
    # The chart runs this text through its templates, and adds it to its own jobs.
    assert "{{" not in RULES_AND_JOB["extraScrapeConfigs"]
    names = [job["job_name"] for job in jobs]
    assert set(names) & JOBS_OF_THE_CHART == set()
    assert len(set(names)) == len(names)


def test_the_rules_are_those_of_the_project() -> None:
    assert RULES_AND_JOB["serverFiles"] == {
        "alerting_rules.yml": yaml.safe_load((RULES / "alerts.yml").read_text()),
        "recording_rules.yml": yaml.safe_load((RULES / "recordings.yml").read_text()),
    }


def test_annotated_pods_are_scraped_once() -> None:
    (job,) = yaml.safe_load(RULES_AND_JOB["extraScrapeConfigs"])
    annotated = "__meta_kubernetes_pod_annotation_prometheus_io_scrape"
    assert {"source_labels": [annotated], "regex": "true", "action": "drop"} in job["relabel_configs"]


def test_alertmanager_takes_its_routing(tmp_path: Path) -> None:
    assert ALERTMANAGER["alertmanager"].keys() == {"enabled", "config"}
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(ALERTMANAGER["alertmanager"]["config"]))
    subprocess.run(["amtool", "check-config", str(path)], check=True)
