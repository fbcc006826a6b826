"""The Helm values for the miners' own monitoring chart: what it makes of them, Prometheus takes."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from tests.support import ROOT, RULES

if TYPE_CHECKING:
    from pathlib import Path

VALUES: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "chutes-monitoring-values.yaml").read_text())
ALERTMANAGER: dict[str, Any] = yaml.safe_load(
    (ROOT / "deploy" / "chutes-monitoring-alertmanager-values.yaml").read_text()
)

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
"""What the chart (with prometheus 27.19 as `prometheus`) has of what is set here: its names and types."""


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


@pytest.mark.parametrize("values", [VALUES, ALERTMANAGER], ids=["rules", "alertmanager"])
def test_the_values_are_those_that_the_chart_has(values: dict[str, Any]) -> None:
    jsonschema.validate(values, SCHEMA)
    misspelt = json.loads(
        json.dumps(values).replace("alerting_rules.yml", "alert_rules.yml").replace('"enabled"', '"on"')
    )
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(misspelt, SCHEMA)


def test_the_rules_are_those_of_the_project() -> None:
    files = VALUES["prometheus"]["serverFiles"]
    assert files["alerting_rules.yml"] == yaml.safe_load((RULES / "alerts.yml").read_text())
    assert files["recording_rules.yml"] == yaml.safe_load((RULES / "recordings.yml").read_text())


def test_prometheus_takes_what_the_chart_makes_of_them(tmp_path: Path) -> None:
    # The certificates of a cluster are not here.
    subprocess.run(["promtool", "check", "config", "--syntax-only", str(config(VALUES, tmp_path))], check=True)  # noqa: S607
    for name in VALUES["prometheus"]["serverFiles"]:
        subprocess.run(["promtool", "check", "rules", str(tmp_path / name)], check=True)  # noqa: S607


def test_the_chart_fills_in_nothing_of_the_scrape_job() -> None:
    # It runs this text through its templates.
    assert "{{" not in VALUES["prometheus"]["extraScrapeConfigs"]


def test_what_is_annotated_is_not_scraped_a_second_time() -> None:
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
    subprocess.run(["amtool", "check-config", str(path)], check=True)  # noqa: S607


def test_the_values_say_what_an_ansible_run_resets() -> None:
    text = (ROOT / "deploy" / "chutes-monitoring-values.yaml").read_text()
    assert "WHAT AN ANSIBLE RE-RUN RESETS" in text
    assert "helm upgrade monitoring" in text
    assert "--reuse-values" in text
