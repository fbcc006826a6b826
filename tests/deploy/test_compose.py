"""The compose file and the Dockerfile: valid, pinned, and with everything that they mount or
copy.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

COMPOSE = ROOT / "deploy" / "compose.yaml"
BIN = Path(sys.executable).parent


def resolve(profile: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Let compose read its file for a profile."""
    files = ["-f", str(path)]
    command = ["docker-compose", *files, "--profile", profile, "config", "--format", "json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def services_of(profile: str, path: Path = COMPOSE) -> dict[str, Any]:
    """Return the services of a profile as compose itself understands them."""
    result = resolve(profile, path)
    assert result.returncode == 0, result.stderr
    services: dict[str, Any] = json.loads(result.stdout)["services"]
    return services


@pytest.mark.parametrize(
    "command",
    [
        ("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"),
        ("hadolint", "Dockerfile", "tests/Dockerfile"),
    ],
)
def test_the_linters_find_nothing(command: tuple[str, ...]) -> None:
    result = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("profile", ["demo", "miner"])
def test_each_profile_has_one_exporter_and_the_rest_of_the_stack(
    profile: str, tmp_path: Path
) -> None:
    path = Path(shutil.copy(COMPOSE, tmp_path))
    if profile == "miner":
        assert ".env not found" in resolve(profile, path).stderr
        (tmp_path / ".env").write_text("MINER_SS58=5F\n")
    services = services_of(profile, path)
    assert set(services) == {profile, "prometheus", "alertmanager", "grafana"}
    assert services[profile]["networks"]["default"]["aliases"] == ["exporter"]
    assert int(services[profile]["mem_limit"]) == 512 * 1024 * 1024


def test_services_are_pinned_restricted_and_on_this_machine_only() -> None:
    for name, service in services_of("demo").items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, name
