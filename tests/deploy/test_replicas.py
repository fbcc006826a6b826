"""The examples with two exporters of a miner and two Prometheus."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEPLOY = ROOT / "deploy"
REPLICAS = DEPLOY / "replicas"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture
def project(tmp_path: Path) -> dict[str, Any]:
    """The project of both compose files, as compose itself understands them."""
    for name in ("compose.yaml", "compose.replicas.yaml"):
        (tmp_path / name).write_text((DEPLOY / name).read_text())
    (tmp_path / ".env").write_text("MINER_SS58=5F\n")
    command = "docker-compose -f compose.yaml -f compose.replicas.yaml --profile miner config"
    shown = subprocess.check_output([*command.split(), "--format", "json"], cwd=tmp_path)
    project: dict[str, Any] = json.loads(shown)
    return project


def mounts(service: Mapping[str, Any], target: str) -> set[str]:
    """Return what a service mounts at a path."""
    return {volume["source"] for volume in service["volumes"] if volume["target"] == target}


def test_the_second_exporter_and_the_second_prometheus_are_like_the_first(
    project: dict[str, Any],
) -> None:
    services = project["services"]
    added = {"miner-2": "miner", "prometheus-2": "prometheus"}
    assert set(services) == {*added, *added.values(), "alertmanager", "grafana"}
    ports = [port["published"] for service in services.values() for port in service["ports"]]
    assert len(ports) == len(set(ports))
    for second, first in added.items():
        # Everything else is as in the first.
        same = {"image", "command", "cap_drop", "security_opt", "read_only", "healthcheck"}
        for field in same & services[first].keys():
            assert services[second][field] == services[first][field]
        assert {port["host_ip"] for port in services[second]["ports"]} == {"127.0.0.1"}


def test_both_exporters_have_the_key_and_both_prometheus_scrape_both(
    project: dict[str, Any], tmp_path: Path
) -> None:
    services = project["services"]
    names = set()
    for exporter in (services["miner"], services["miner-2"]):
        assert exporter["environment"] == {"MINER_SS58": "5F"}
        names.update(exporter["networks"]["default"]["aliases"])
    (target,) = read(REPLICAS / "targets" / "exporter.yml")
    assert {f"{name}:10064" for name in names} == set(target["targets"])
    replicas = set()
    for prometheus in (services["prometheus"], services["prometheus-2"]):
        example = str(tmp_path / "replicas" / "prometheus.yml")
        assert mounts(prometheus, "/etc/prometheus/prometheus.yml") == {example}
        targets = str(tmp_path / "replicas" / "targets")
        assert mounts(prometheus, "/etc/prometheus/targets") == {targets}
        replicas.add(prometheus["environment"]["REPLICA"])
    assert len(replicas) == 2
    stores = [mounts(services[name], "/prometheus") for name in ("prometheus", "prometheus-2")]
    assert stores == [{"prometheus"}, {"prometheus-2"}]


def test_each_prometheus_differs_from_a_single_one_only_by_the_label_of_the_replica() -> None:
    example = read(REPLICAS / "prometheus.yml")
    assert example["global"]["external_labels"].pop("replica") == "${REPLICA}"
    (dropped,) = example["alerting"].pop("alert_relabel_configs")
    assert dropped == {"action": "labeldrop", "regex": "replica"}
    assert example == read(ROOT / "prometheus" / "prometheus.yml")
    targets = "targets/alertmanager.yml"
    assert read(REPLICAS / targets) == read(DEPLOY / "compose" / targets)
