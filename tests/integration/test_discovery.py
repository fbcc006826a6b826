"""The whole subnet by one scrape config: prometheus/subnet.yml, in a real Prometheus."""

from __future__ import annotations

import asyncio
import copy
import re
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml

from chutes_exporter.commands.serve import Service
from chutes_exporter.config import Address, make_settings
from chutes_exporter.simulator import Simulator, Size, World
from tests.support import NOON, Clock, Pki, Prometheus, served_exporter

SCRAPE_CONFIG = Path(__file__).parents[2] / "prometheus" / "subnet.yml"


def shards(text: str) -> str:
    """Put the rules for sharing in force."""
    return re.sub(r"^      #   (- |  )", r"      \1", text, flags=re.MULTILINE)


def scrape_configs(address: str, shard: str, scheme: str = "http") -> list[dict[str, Any]]:
    """Return the scrape config as it is documented, for an exporter elsewhere, and faster."""
    text = SCRAPE_CONFIG.read_text().replace("http://localhost:10064", f"{scheme}://{address}")
    configs: list[dict[str, Any]] = yaml.safe_load(shards(text).replace("localhost:10064", address))["scrape_configs"]
    for config in configs:
        config.update(scrape_interval="1s", scrape_timeout="1s", scheme=scheme)
        for rule in config.get("relabel_configs", ()):
            if rule.get("action") == "keep":
                rule["regex"] = shard
    return configs


@pytest.fixture
def world() -> World:
    return World(start=NOON, size=Size(miners=24, active_miners=10, chutes=20))


async def test_one_scrape_config_monitors_the_whole_subnet_in_two_shards(world: World, tmp_path: Path) -> None:
    clock = Clock()
    seen: list[set[str]] = []
    async with (
        Simulator(world, clock=clock) as simulator,
        served_exporter(make_settings(api_url=simulator.url), clock) as (url, _),
    ):
        address = url.removeprefix("http://")
        for shard in ("0", "1"):
            directory = tmp_path / shard
            directory.mkdir()
            with Prometheus(directory, scrape_configs=scrape_configs(address, shard)) as prometheus:

                async def ask(query: str, prometheus: Prometheus = prometheus) -> dict[Any, float]:
                    return await asyncio.to_thread(prometheus.wait_for, query)

                await ask('up{job="chutes"} == 1')
                # Discovered, relabelled, and every one of them up.
                await ask('count(up{job="chutes-subnet"}) > 4 and sum(up{job="chutes-subnet"}) > 4')
                every = 'up{job="chutes-subnet"}'
                up = await ask(f"{every} and on() (min(count_over_time({every}[1m])) >= 2 and min({every}) == 1)")
                seen.append({dict(labels)["instance"] for labels in up})
                registered = await ask('last_over_time(chutes_miner_registered{job="chutes-subnet"}[1m])')
                assert {dict(labels)["hotkey"] for labels in registered} == seen[-1]
                for labels in registered:
                    assert dict(labels)["instance"] == dict(labels)["hotkey"]
                assert "level=warn" not in prometheus.log.lower()
    assert seen[0] & seen[1] == set()
    assert seen[0] | seen[1] == set(world.by_hotkey)
    # However many targets there are, the API is asked once.
    asked = [one.endpoint for one in simulator.requests]
    assert all(asked.count(endpoint) == 1 for endpoint in ("metagraph", "scores", "stats"))


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


async def test_prometheus_discovers_and_scrapes_with_certificates_and_a_password(
    world: World, tmp_path: Path, protected: Path
) -> None:
    clock = Clock()
    directory = tmp_path / "prometheus"
    directory.mkdir()
    async with Simulator(world, clock=clock) as simulator:
        settings = make_settings(api_url=simulator.url, listen=(Address("127.0.0.1"),), web_config=protected)
        async with Service(settings) as service:
            configs = scrape_configs(str(service.addresses[0]), "0", scheme="https")
            client = {
                "tls_config": {
                    "ca_file": str(protected.parent / "ca.crt"),
                    "cert_file": str(protected.parent / "prometheus.crt"),
                    "key_file": str(protected.parent / "prometheus.key"),
                },
                "basic_auth": {"username": "prometheus", "password": "secret"},
            }
            for config in configs:
                config.update(copy.deepcopy(client))
                for discovery in config.get("http_sd_configs", ()):
                    discovery.update(copy.deepcopy(client))
            with Prometheus(directory, scrape_configs=configs) as prometheus:
                await asyncio.to_thread(prometheus.wait_for, 'up{job="chutes"} == 1')
                await asyncio.to_thread(prometheus.wait_for, 'sum(up{job="chutes-subnet"}) > 4')
