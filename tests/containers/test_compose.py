"""deploy/compose.yaml, run by compose on podman, but without Grafana: Debian has no package of
it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.containers.podman import health, run
from tests.support import HOTKEY, ROOT, fetch, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.containers

SERVICES = ("demo", "alertmanager", "prometheus")


@pytest.fixture
def engine() -> Iterator[dict[str, str]]:
    """Podman with Docker's API; yields the environment that leads compose to it."""
    socket = "unix:///run/podman.sock"
    service = subprocess.Popen(
        ["podman", "system", "service", "--time=0", socket], stdin=subprocess.DEVNULL
    )
    try:
        wait_for(Path("/run/podman.sock").exists)
        # podman has no BuildKit.
        yield {**os.environ, "DOCKER_HOST": socket, "DOCKER_BUILDKIT": "0"}
    finally:
        service.terminate()
        service.wait(timeout=60)


@contextlib.contextmanager
def health_checks() -> Iterator[None]:
    """Run the containers' health checks at their interval: without systemd podman has nobody to do
    so.
    """
    stopping = threading.Event()

    def check() -> None:
        while not stopping.wait(5):
            for name in run("podman", "ps", "--quiet").stdout.split():
                run("podman", "healthcheck", "run", name)

    thread = threading.Thread(target=check)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def compose(engine: dict[str, str], *arguments: str) -> None:
    """Run compose with the recorded day."""
    command = ["docker-compose", "-f", "deploy/compose.yaml", "--profile", "demo", *arguments]
    subprocess.run(command, cwd=ROOT, env=engine, check=True, timeout=300)


def ask(port: int, path: str) -> Any:
    return json.loads(fetch(f"http://127.0.0.1:{port}{path}"))


def test_the_demo_comes_up_healthy_and_works_together(engine: dict[str, str]) -> None:
    try:
        with health_checks():
            compose(engine, "up", "--detach", "--wait", *SERVICES)
        for name in SERVICES[1:]:
            assert health(f"chutes-exporter-{name}-1") == "healthy"
        # Prometheus scrapes the exporter by its name in the network, and has read the rules.
        query = "/api/v1/query?query=chutes_miner_watched"
        wait_for(lambda: ask(9090, query)["data"]["result"])
        (watched,) = ask(9090, query)["data"]["result"]
        assert watched["metric"]["hotkey"] == HOTKEY
        assert watched["metric"]["instance"] == "exporter:10064"
        assert len(ask(9090, "/api/v1/rules")["data"]["groups"]) >= 2
        # Its Watchdog reaches Alertmanager.
        wait_for(
            lambda: any(
                one["labels"]["alertname"] == "Watchdog" for one in ask(9093, "/api/v2/alerts")
            )
        )
        assert "chutes_miner_watched" in fetch("http://127.0.0.1:10064/metrics")
    finally:
        compose(engine, "down", "--volumes", "--timeout=10")
