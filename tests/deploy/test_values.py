"""The Helm values for the miners' own monitoring chart: what it makes of them, Prometheus takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import yaml

from tests.prometheus.rule_files import RULES
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

VALUES = yaml.safe_load((ROOT / "deploy" / "chutes-monitoring-values.yaml").read_text())[
    "prometheus"
]
"""Values of the chart's dependency `prometheus` 27.19."""


def test_prometheus_accepts_the_scrape_jobs(tmp_path: Path) -> None:
    jobs = yaml.safe_load(VALUES["extraScrapeConfigs"])
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump({"scrape_configs": jobs}))
    subprocess.run(["promtool", "check", "config", str(path)], check=True)
    # The chart runs this text through its templates, and adds it to its own jobs.
    assert "{{" not in VALUES["extraScrapeConfigs"]
    (job,) = jobs
    # None of the chart's own jobs has this name.
    assert job["job_name"] == "chutes"
    # The chart scrapes annotated Pods anyway.
    annotated = "__meta_kubernetes_pod_annotation_prometheus_io_scrape"
    drop = {"source_labels": [annotated], "regex": "true", "action": "drop"}
    assert drop in job["relabel_configs"]


def test_what_other_exporters_say_arrives_from_the_workers() -> None:
    queries = (ROOT / "docs" / "queries.md").read_text()
    queries += (ROOT / "grafana" / "boards" / "fleet.py").read_text()
    read = set(re.findall(r"DCGM_FI_DEV_\w+", queries))
    assert len(read) >= 4
    selectors = VALUES["federation"]["matchSelectors"]
    (pattern,) = re.findall(r'__name__=~"(.+)"', "".join(selectors))
    assert {name for name in read if not re.fullmatch(pattern, name)} == set()
    # The job of annotated pods, such as those of chutes.
    assert '{job="kubernetes-pods"}' in selectors


def test_prometheus_loads_every_rule_file_that_the_command_passes(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    passed = dict(re.findall(r"--set-file prometheus\.ruleFiles\.([\w-]+)=([\w./-]+)", text))
    assert {ROOT / source for source in passed.values()} == {*RULES.iterdir()}
    for name, source in passed.items():
        shutil.copy(ROOT / source, tmp_path / name)
    # The chart puts each of them into the folder of its own configuration, beside these empty
    # files.
    for name in ("recording_rules.yml", "alerting_rules.yml", "rules", "alerts"):
        (tmp_path / name).write_text("{}")
    patterns = [
        pattern.replace("/etc/config", str(tmp_path))
        for pattern in VALUES["serverFiles"]["prometheus.yml"]["rule_files"]
    ]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump({"rule_files": patterns}))
    said = subprocess.check_output(["promtool", "check", "config", path], text=True)
    assert len(re.findall("SUCCESS: [1-9][0-9]* rules found", said)) == len(passed)
