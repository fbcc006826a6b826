"""docs/kubernetes.md: its commands lead from a clone to the first metric, on a stand-in for a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import chutes_exporter
from chutes_exporter.commands.status import ACTION_NEEDED
from chutes_exporter.simulator import Simulator, Size, World
from chutes_exporter.simulator.world import TEST_SEED
from grafana.__main__ import DASHBOARDS
from grafana.boards import BOARDS
from tests.deploy.cluster import Cluster, install, secret
from tests.deploy.test_kubernetes import DOCUMENT, commands
from tests.support import HOTKEY, free_port
from tests.support import shell as run_in_shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

NAME, NAMESPACE = "chutes-exporter", "chutes"


def shell(lines: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run commands in one shell, in the clone; returns what they print."""
    return run_in_shell("\n".join(lines), environment)


@contextlib.contextmanager
def pod(cluster: Cluster, environment: Mapping[str, str], api: str, log: Path) -> Iterator[None]:
    """Run the exporter as its Deployment says."""
    port = free_port()
    cluster.port.write_text(str(port))
    variables = {
        **environment,
        **cluster.environment(NAME, NAMESPACE),
        "CHUTES_EXPORTER_API_URL": api,
        "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS": f"127.0.0.1:{port}",
    }
    with log.open("wb") as output:
        command = ["chutes-exporter", *cluster.container(NAME, NAMESPACE).get("args", [])]
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_the_document_names_the_image_that_is_built_here() -> None:
    assert set(re.findall(r"chutes-exporter:(\d\S*)", DOCUMENT)) == {chutes_exporter.__version__}


@pytest.mark.parametrize("way", ["helm", "without helm"])
async def test_at_most_ten_lines_lead_to_the_first_metric(way: str, tmp_path: Path) -> None:
    lines = commands("The first metric")
    assert len(lines) <= 10
    (helm,) = (number for number, line in enumerate(lines) if line.startswith("helm "))
    # The port of the document may be taken on this machine.
    port = free_port()
    after = [re.sub(r"10064(?=[:/])", str(port), line) for line in lines[helm + 1 :]]
    installing = [lines[helm]]
    if way == "without helm":
        installing = [line for line in commands("Without Helm") if line.startswith("kubectl ")]
    environment = install(tmp_path)
    cluster = Cluster(tmp_path)
    cluster.apply([secret("miner-credentials", NAMESPACE, {"ss58": HOTKEY, "seed": TEST_SEED})])
    world = World(start=time.time(), size=Size(miners=6, active_miners=3, chutes=10))
    async with Simulator(world) as simulator:
        await asyncio.to_thread(shell, [*lines[:helm], *installing], environment)
        with pod(cluster, environment, simulator.url, tmp_path / "log"):
            inside = {**environment, "CHUTES_EXPORTER_API_URL": simulator.url}
            said = await asyncio.to_thread(shell, after[:-1], inside)
            status = await asyncio.to_thread(shell, [f"{after[-1]} || test $? = {ACTION_NEEDED}"], inside)
    assert "All checks passed." in said
    assert status.startswith(HOTKEY)
    assert said.splitlines()[-1] == f'chutes_miner_watched{{hotkey="{HOTKEY}"}} 1'
    dashboards = {
        name: text
        for found in cluster.objects()
        if found["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
        for name, text in found["data"].items()
    }
    assert dashboards == {f"{board.uid}.json": (DASHBOARDS / f"{board.uid}.json").read_text() for board in BOARDS}
    if way == "without helm":
        # The same commands upgrade it.
        installed = cluster.objects()
        older = next(found for found in installed if found["metadata"].get("labels", {}).get("grafana_dashboard"))
        cluster.apply([{**older, "data": {"chutes-older.json": "{}"}}])
        assert cluster.objects() != installed
        await asyncio.to_thread(shell, installing, environment)
        assert cluster.objects() == installed


def test_a_cluster_without_the_image_fails(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.load("chutes-exporter:0.0.1")
    environment = install(tmp_path)
    shell([line for line in commands("The first metric") if line.startswith("helm ")], environment)
    with pytest.raises(SystemExit, match="ErrImagePull"):
        cluster.container(NAME, NAMESPACE)


@pytest.mark.parametrize("heading", ["Prometheus Operator", "The whole subnet", "Public data of a miner"])
def test_every_other_set_up_installs(heading: str, tmp_path: Path) -> None:
    (line,) = commands(heading)
    shell([line.replace("HOTKEY", HOTKEY)], install(tmp_path))
    kinds = {found["kind"] for found in Cluster(tmp_path).objects()}
    assert kinds >= {"Deployment", "Service", "NetworkPolicy"}


async def test_commands_in_the_pod_know_the_miners_of_the_values(tmp_path: Path) -> None:
    (line,) = commands("Public data of a miner")
    environment = install(tmp_path)
    Cluster(tmp_path).load(f"chutes-exporter:{chutes_exporter.__version__}")
    world = World(start=time.time(), size=Size(miners=6, active_miners=3, chutes=10))
    async with Simulator(world) as simulator:
        lines = [line.replace("HOTKEY", HOTKEY), f"{commands('The first metric')[-1]} || test $? = {ACTION_NEEDED}"]
        inside = {**environment, "CHUTES_EXPORTER_API_URL": simulator.url}
        assert HOTKEY in await asyncio.to_thread(shell, lines, inside)
