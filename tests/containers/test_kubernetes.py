"""The chart's Deployment, played by podman: it gets its key from a Secret."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from chutes_exporter.demo.replay import Replay
from deploy.chart import render
from tests.containers.podman import IMAGE, podman, run, wait_until_ready
from tests.support import HOTKEY, TEST_SEED, fetch, parse_page

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.containers

SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "miner-credentials"},
    "stringData": {"ss58": HOTKEY, "seed": TEST_SEED},
}


def rendered(api_url: str) -> list[dict[str, Any]]:
    """Return the Secret of the miners' chart, and the Deployment with the address of another
    API.
    """
    values = {"extraEnv": [{"name": "CHUTES_EXPORTER_API_URL", "value": api_url}]}
    return [SECRET, yaml.safe_load(render(values)["deployment.yaml"])]


async def test_the_rendered_deployment_serves_the_private_data_of_the_key_in_the_secret(
    tmp_path: Path,
) -> None:
    path = tmp_path / "manifests.yaml"
    async with Replay() as replay:
        path.write_text(yaml.safe_dump_all(rendered(replay.url)))
        try:
            await asyncio.to_thread(podman, "kube", "play", "--network=host", str(path))
            name = await asyncio.to_thread(
                podman, "ps", f"--filter=ancestor={IMAGE}", "--format={{.Names}}"
            )
            await asyncio.to_thread(wait_until_ready, name, "127.0.0.1:10064")
            page = parse_page(await asyncio.to_thread(fetch, "http://127.0.0.1:10064/metrics"))
            check, status = [
                await asyncio.to_thread(run, "podman", "exec", name, "chutes-exporter", command)
                for command in ("check", "status")
            ]
        finally:
            await asyncio.to_thread(podman, "kube", "down", "--force", str(path))
    hotkeys = {dict(labels)["hotkey"] for metric, labels in page if metric == "chutes_gpu_state"}
    assert hotkeys == {HOTKEY}
    assert "All checks passed." in check.stdout
    # The command ends with 1 if the miner has something to do.
    assert status.returncode in (0, 1)
    assert HOTKEY in status.stdout
