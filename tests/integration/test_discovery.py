"""The whole subnet by one scrape config: prometheus/subnet.yml, in a real Prometheus."""

from __future__ import annotations

import asyncio
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bcrypt
import pytest
import yaml

from chutes_exporter.commands.serve import Service
from chutes_exporter.config import Address, make_settings
from chutes_exporter.simulator import Simulator, Size, World
from tests.support import NOON, Clock, Pki, Prometheus, until

if TYPE_CHECKING:
    from collections.abc import Mapping

SCRAPE_CONFIG = Path(__file__).parents[2] / "prometheus" / "subnet.yml"


def shards(text: str) -> str:
    """Put the rules for sharing in force."""
    return re.sub(r"^      #   (- |  )", r"      \1", text, flags=re.MULTILINE)


def scrape_configs(address: str, shard: str, client: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the scrape config as it is documented, for an exporter elsewhere, with a client's secrets, and faster."""
    text = SCRAPE_CONFIG.read_text().replace("http://localhost:10064", f"https://{address}")
    configs: list[dict[str, Any]] = yaml.safe_load(shards(text).replace("localhost:10064", address))["scrape_configs"]
    for config in configs:
        config.update(scrape_interval="10s", scrape_timeout="10s", scheme="https", **client)
        for rule in config.get("relabel_configs", ()):
            if rule.get("action") == "keep":
                rule["regex"] = shard
        for discovery in config.get("http_sd_configs", ()):
            # The exporter refuses while it does not know the miners. Prometheus would ask again a minute later.
            discovery.update(refresh_interval="5s", **client)
    return configs


def subnet(prometheus: Prometheus) -> list[dict[str, Any]]:
    targets = prometheus.api("targets", state="active")["data"]["activeTargets"]
    return [target for target in targets if target["labels"]["job"] == "chutes-subnet"]


def all_reached(prometheus: Prometheus) -> bool:
    """Tell whether each target has been up. A busy machine does not answer all of them in the same 10 seconds."""
    reached = prometheus.query('max_over_time(up{job="chutes-subnet"}[10m]) == 1')
    return len(reached) == len(subnet(prometheus)) > 4


@pytest.fixture
def protected(pki: Pki) -> Path:
    path = pki.folder / "web.yml"
    pki.issue("prometheus", "prometheus.example")
    path.write_text(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
        "  client_allowed_sans: [prometheus.example]\n"
        f"basic_auth_users:\n  prometheus: {bcrypt.hashpw(b'secret', bcrypt.gensalt(6)).decode()}\n"
    )
    return path


async def test_one_scrape_config_monitors_the_whole_subnet_in_two_shards_with_certificates_and_a_password(
    tmp_path: Path, protected: Path
) -> None:
    clock = Clock()
    world = World(start=NOON, size=Size(miners=24, active_miners=10, chutes=20))
    files = {name: str(protected.parent / name) for name in ("ca.crt", "prometheus.crt", "prometheus.key")}
    client = {
        "tls_config": dict(zip(("ca_file", "cert_file", "key_file"), files.values(), strict=True)),
        "basic_auth": {"username": "prometheus", "password": "secret"},
    }
    seen: list[set[str]] = []
    async with Simulator(world, clock=clock) as simulator:
        settings = make_settings(api_url=simulator.url, listen=(Address("127.0.0.1"),), web_config=protected)
        async with Service(settings) as service:
            for shard in ("0", "1"):
                directory = tmp_path / shard
                directory.mkdir()
                configs = scrape_configs(str(service.addresses[0]), shard, client)
                with Prometheus(directory, scrape_configs=configs) as prometheus:
                    await asyncio.to_thread(prometheus.wait_for, 'up{job="chutes"} == 1')
                    # Discovered, relabelled, and every one of them reached.
                    await until(functools.partial(asyncio.to_thread, all_reached, prometheus))
                    seen.append({target["labels"]["instance"] for target in subnet(prometheus)})
                    registered = await asyncio.to_thread(
                        prometheus.wait_for, 'last_over_time(chutes_miner_registered{job="chutes-subnet"}[10m])'
                    )
                    assert {dict(labels)["hotkey"] for labels in registered} == seen[-1]
                    assert all(dict(labels)["instance"] == dict(labels)["hotkey"] for labels in registered)
                    assert "level=warn" not in prometheus.log.lower()
    assert seen[0] & seen[1] == set()
    assert seen[0] | seen[1] == set(world.by_hotkey)
