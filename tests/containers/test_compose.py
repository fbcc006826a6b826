"""deploy/compose.yaml, run by compose on podman as documented, but without Grafana: Debian has no package of it."""

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
from tests.containers.documents import clone, commands, programs
from tests.containers.podman import fetch, inspect, podman, run, wait_for
from tests.support import HOTKEY, ROOT, shell

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.containers

COMMANDS = commands("installation.md", "compose")
COMPOSE = 'shift; exec docker-compose "$@"'
"""The program that stands for `docker compose`, in the shell's language."""
IN_BACKGROUND = "--detach --wait"
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
    """Run the containers' health checks once a second: without systemd podman has nobody to do so."""
    stopping = threading.Event()

    def check() -> None:
        while not stopping.wait(1):
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


def test_the_documented_demo_comes_up_healthy_and_works_together(engine: dict[str, str], tmp_path: Path) -> None:
    start, remove = COMMANDS[:2]
    environment = engine | programs(tmp_path / "bin", "", COMPOSE)
    try:
        with health_checks():
            shell(f"{start} {IN_BACKGROUND} {' '.join(SERVICES)}", environment, ROOT)
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
        shell(f"{remove} --timeout=10", environment, ROOT)
    assert podman("ps", "--all", "--quiet") == ""
    assert podman("volume", "ls", "--quiet") == ""
    assert podman("network", "ls", "--quiet").split() == ["podman"]


async def test_the_documented_commands_lead_from_a_clone_to_the_status_of_a_miner(
    engine: dict[str, str], tmp_path: Path
) -> None:
    fill_in, start, status = COMMANDS[2:]
    directory = clone(tmp_path / "clone")
    for name in ("alertmanager", "deploy", "grafana/dashboards", "grafana/provisioning", "prometheus"):
        shutil.copytree(ROOT / name, directory / name, dirs_exist_ok=True)
    # The address by which podman's containers reach this machine.
    async with Simulator(World(start=time.time(), size=SMALL), listen=Address("", 0)) as simulator:
        api = f"http://host.containers.internal:{simulator.url.rpartition(':')[2]}"
        settings = f"MINER_SS58={HOTKEY}\nMINER_SEED={TEST_SEED}\nCHUTES_EXPORTER_API_URL={api}\n"
        environment = engine | programs(tmp_path / "bin", settings, COMPOSE)
        try:
            with health_checks():
                for command in (fill_in, f"{start} {IN_BACKGROUND} miner"):
                    await asyncio.to_thread(shell, command, environment, directory)
            needed = f"{status} || test $? = {ACTION_NEEDED}"
            said = await asyncio.to_thread(shell, needed, environment, directory)
        finally:
            down = start.replace(" up", " down --volumes --timeout=10")
            await asyncio.to_thread(shell, down, environment, directory)
    assert said.startswith(HOTKEY)
    assert (directory / "deploy" / ".env").stat().st_mode & 0o777 == 0o600
    assert podman("ps", "--all", "--quiet") == ""
