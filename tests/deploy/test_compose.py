"""The compose file and the Dockerfile: valid, pinned, and with everything that they mount or copy."""

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

from tests.support import ROOT

COMPOSE = ROOT / "deploy" / "compose.yaml"
BIN = Path(sys.executable).parent


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


@pytest.mark.parametrize(
    "command",
    [
        ("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"),
        ("hadolint", "Dockerfile"),
    ],
)
def test_the_linters_find_nothing(command: tuple[str, ...]) -> None:
    result = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("profile", ["demo", "miner"])
def test_each_profile_has_one_exporter_and_the_rest_of_the_stack(profile: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(COMPOSE, tmp_path))
    if profile == "miner":
        assert ".env not found" in config(path, profile).stderr
        (tmp_path / ".env").write_text("MINER_SS58=5F\n")
    services = resolved(profile, path)
    assert set(services) == {profile, "prometheus", "alertmanager", "grafana"}
    assert services[profile]["networks"]["default"]["aliases"] == ["exporter"]
    assert int(services[profile]["mem_limit"]) == 512 * 1024 * 1024


def test_images_are_pinned_and_everything_is_healthy_before_what_needs_it_starts() -> None:
    services = resolved("demo")
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        # The exporter's own check is in its image.
        assert "test" in service["healthcheck"] or name == "demo", name
        assert {how["condition"] for how in service.get("depends_on", {}).values()} <= {"service_healthy"}, name
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, name
    assert set(services["prometheus"]["depends_on"]) >= {"alertmanager", "demo"}
    assert set(services["grafana"]["depends_on"]) == {"prometheus"}


def test_grafana_finds_the_dashboards_and_prometheus() -> None:
    services = resolved("demo")
    bound = [
        (volume, name)
        for name, one in services.items()
        for volume in one.get("volumes", [])
        if volume["type"] == "bind"
    ]
    mounted = {(name, volume["target"]): Path(volume["source"]) for volume, name in bound}
    assert all(source.exists() for source in mounted.values())
    (provider,) = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/chutes.yml").read_text())["providers"]
    assert mounted["grafana", provider["options"]["path"]].samefile(ROOT / "grafana" / "dashboards")
    (source,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"].removeprefix("$") in services["grafana"]["environment"]
