"""deploy/compose.yaml, run by compose on podman, but without Grafana: Debian has no package of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.commands.status import ACTION_NEEDED
from chutes_exporter.config import Address
from chutes_exporter.simulator import Simulator, Size, World
from chutes_exporter.simulator.world import TEST_SEED
from tests.containers.podman import fetch, inspect, podman, run, wait_for
from tests.support import HOTKEY, ROOT, shell

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.containers

COMPOSE = "docker-compose -f deploy/compose.yaml --profile"
SMALL = Size(miners=6, active_miners=3, chutes=10)
SERVICES = ("demo", "alertmanager", "prometheus")


@pytest.fixture
def engine() -> Iterator[dict[str, str]]:
    """Podman with Docker's API; yields the environment that leads compose to it."""
    socket = "unix:///run/podman.sock"
    service = subprocess.Popen(["podman", "system", "service", "--time=0", socket], stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: Path("/run/podman.sock").exists())
        # podman has no BuildKit.
        yield {**os.environ, "DOCKER_HOST": socket, "DOCKER_BUILDKIT": "0"}
    finally:
        service.terminate()
        service.wait(timeout=60)


@contextlib.contextmanager
def health_checks() -> Iterator[None]:
    """Run the containers' health checks at their interval: without systemd podman has nobody to do so."""
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


def ask(port: int, path: str) -> Any:
    return json.loads(fetch(f"http://127.0.0.1:{port}{path}"))


def test_the_demo_comes_up_healthy_and_works_together(engine: dict[str, str]) -> None:
    try:
        with health_checks():
            shell(f"{COMPOSE} demo up --detach --wait {' '.join(SERVICES)}", engine, ROOT)
        for name in SERVICES:
            state = inspect("container", f"chutes-exporter-{name}-1")
            assert state["State"]["Health"]["Status"] == "healthy"
            assert state["HostConfig"]["ReadonlyRootfs"] is True
            assert state["EffectiveCaps"] in (None, [])
            assert state["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
        # Prometheus scrapes the exporter by its name in the network, and has read the rules.
        query = "/api/v1/query?query=chutes_miner_watched"
        wait_for(lambda: bool(ask(9090, query)["data"]["result"]), 120)
        (watched,) = ask(9090, query)["data"]["result"]
        assert watched["metric"]["hotkey"] == HOTKEY
        assert watched["metric"]["instance"] == "exporter:10064"
        assert len(ask(9090, "/api/v1/rules")["data"]["groups"]) >= 2
        # Its Watchdog reaches Alertmanager.
        wait_for(lambda: any(one["labels"]["alertname"] == "Watchdog" for one in ask(9093, "/api/v2/alerts")), 180)
        assert "chutes_miner_watched" in fetch("http://127.0.0.1:10064/metrics")
    finally:
        shell(f"{COMPOSE} demo down --volumes --timeout=10", engine, ROOT)
    assert podman("ps", "--all", "--quiet") == ""
    assert podman("volume", "ls", "--quiet") == ""
    assert podman("network", "ls", "--quiet").split() == ["podman"]


async def test_a_miner_is_watched_with_the_key_in_the_environment_file(engine: dict[str, str], tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    not_in_git = shutil.ignore_patterns(".git", ".cache", ".venv*", "dist", "node_modules", "__pycache__")
    shutil.copytree(ROOT, clone, ignore=not_in_git, symlinks=True)
    # The address by which podman's containers reach this machine.
    async with Simulator(World(start=time.time(), size=SMALL), listen=Address("", 0)) as simulator:
        api = f"http://host.containers.internal:{simulator.url.rpartition(':')[2]}"
        (clone / "deploy" / ".env").write_text(
            f"MINER_SS58={HOTKEY}\nMINER_SEED={TEST_SEED}\nCHUTES_EXPORTER_API_URL={api}\n"
        )
        status = f"{COMPOSE} miner exec -T miner chutes-exporter status || test $? = {ACTION_NEEDED}"
        try:
            with health_checks():
                await asyncio.to_thread(shell, f"{COMPOSE} miner up --detach --wait miner", engine, clone)
            said = await asyncio.to_thread(shell, status, engine, clone)
        finally:
            await asyncio.to_thread(shell, f"{COMPOSE} miner down --volumes --timeout=10", engine, clone)
    assert said.startswith(HOTKEY)
    assert podman("ps", "--all", "--quiet") == ""
