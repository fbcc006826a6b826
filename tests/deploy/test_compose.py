"""The compose file: valid, pinned, everything that it mounts there, and each service after what it needs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import chutes_exporter
from tests.support import ROOT, RULES

COMPOSE = ROOT / "deploy" / "compose.yaml"


def config(path: Path, profile: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker-compose", "-f", str(path), "--profile", profile, "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )


def resolved(profile: str, path: Path = COMPOSE) -> dict[str, Any]:
    """Return the services of a profile as compose itself understands them."""
    result = config(path, profile)
    assert result.returncode == 0, result.stderr
    services: dict[str, Any] = json.loads(result.stdout)["services"]
    return services


def test_it_is_valid_by_the_schema_of_compose() -> None:
    command = [str(Path(sys.executable).parent / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*command, str(COMPOSE)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("profile", ["demo", "miner"])
def test_each_profile_has_one_exporter_and_the_rest_of_the_stack(profile: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(COMPOSE, tmp_path))
    (tmp_path / ".env").write_text("MINER_SS58=5F\n")
    services = resolved(profile, path)
    assert set(services) == {profile, "prometheus", "alertmanager", "grafana"}
    assert services[profile]["networks"]["default"]["aliases"] == ["exporter"]
    assert services[profile]["image"] == f"chutes-exporter:{chutes_exporter.__version__}"
    assert int(services[profile]["mem_limit"]) == 512 * 1024 * 1024
    assert ("MINER_SS58" in services[profile].get("environment", {})) == (profile == "miner")


def test_a_miner_without_settings_gets_an_error(tmp_path: Path) -> None:
    result = config(Path(shutil.copy(COMPOSE, tmp_path)), "miner")
    assert result.returncode != 0
    assert ".env not found" in result.stderr


def test_images_are_pinned_and_everything_is_healthy_before_what_needs_it_starts() -> None:
    services = resolved("demo")
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        # The exporter's own check is in its image.
        assert "test" in service["healthcheck"] or name == "demo", name
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy", (name, needed)
        for port in service["ports"]:
            assert port["host_ip"] == "127.0.0.1", name
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    assert set(services["prometheus"]["depends_on"]) >= {"alertmanager", "demo"}
    assert set(services["grafana"]["depends_on"]) == {"prometheus"}


def test_mounted_files_exist_and_are_the_tested_ones() -> None:
    mounted = {
        (name, volume["target"]): Path(volume["source"]).relative_to(ROOT.resolve())
        for name, service in resolved("demo").items()
        for volume in service.get("volumes", [])
        if volume["type"] == "bind"
    }
    assert all((ROOT / source).exists() for source in mounted.values())
    assert mounted == {
        ("alertmanager", "/etc/alertmanager/alertmanager.yml"): Path("alertmanager/alertmanager.yml"),
        ("prometheus", "/etc/prometheus/prometheus.yml"): Path("prometheus/prometheus.yml"),
        ("prometheus", "/etc/prometheus/rules"): Path("prometheus/rules"),
        ("prometheus", "/etc/prometheus/targets"): Path("deploy/compose/targets"),
        ("grafana", "/etc/grafana/provisioning/datasources"): Path("grafana/provisioning/datasources"),
        ("grafana", "/etc/grafana/provisioning/dashboards"): Path("grafana/provisioning/dashboards"),
        ("grafana", "/etc/chutes-exporter/dashboards"): Path("grafana/dashboards"),
    }
    (provider,) = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/chutes.yml").read_text())["providers"]
    assert ("grafana", provider["options"]["path"]) in mounted
    (source,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"].removeprefix("$") in resolved("demo")["grafana"]["environment"]


def test_its_targets_are_its_services() -> None:
    services = resolved("demo")
    names = {*services, *services["demo"]["networks"]["default"]["aliases"]}
    own = ROOT / "prometheus" / "targets"
    for path in (ROOT / "deploy" / "compose" / "targets").iterdir():
        ((target,),) = (group["targets"] for group in yaml.safe_load(path.read_text()))
        host, _, port = target.partition(":")
        assert host in names
        ((here,),) = (group["targets"] for group in yaml.safe_load((own / path.name).read_text()))
        assert here == f"localhost:{port}"


def test_prometheus_takes_the_configuration() -> None:
    result = subprocess.run(
        ["promtool", "check", "config", str(ROOT / "prometheus" / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for path in RULES.glob("*.yml"):
        rules = sum(len(group["rules"]) for group in yaml.safe_load(path.read_text())["groups"])
        assert f"{rules} rules found" in result.stdout
