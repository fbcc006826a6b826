"""The image of the Dockerfile, built and run by podman."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.containers.podman import IMAGE, container, podman, wait_until_ready
from tests.pages import parse_page
from tests.support import HOTKEY, ROOT, TEST_SEED, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.containers

DEMO = ("demo", "--web.listen-address=:10064")


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """A container that runs the demo on port 10064."""
    with container("demo", "--publish=127.0.0.1:10064:10064", command=DEMO) as name:
        wait_until_ready(name, "127.0.0.1:10064")
        yield name


def test_the_image_lists_its_packages() -> None:
    listed = podman(
        "run", "--rm", "--entrypoint", "cat", IMAGE, "/opt/chutes-exporter/sbom.cdx.json"
    )
    components = json.loads(listed)["components"]
    packages = {(one["name"].replace("_", "-").lower(), one["version"]) for one in components}
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([\w.-]+)==(\S+) \\$", lock, re.MULTILINE))
    assert locked <= packages


def test_the_demo_serves_its_page_to_the_host_and_check_finds_everything_in_order(
    demo: str,
) -> None:
    page = parse_page(fetch("http://127.0.0.1:10064/metrics"))
    watched = {dict(labels)["hotkey"] for name, labels in page if name == "chutes_miner_watched"}
    assert watched == {HOTKEY}
    key = ("--env", f"MINER_SS58={HOTKEY}", "--env", f"MINER_SEED={TEST_SEED}")
    said = podman(
        "exec", *key, demo, "chutes-exporter", "check", "--api.url", "http://127.0.0.1:10065"
    )
    assert "All checks of the API and of the settings passed." in said


def test_sigterm_ends_it_with_status_0() -> None:
    with container("ending", "--publish=127.0.0.1:10066:10064", command=DEMO) as name:
        wait_until_ready(name, "127.0.0.1:10066")
        podman("kill", "--signal=TERM", name)
        assert podman("wait", name) == "0", podman("logs", name)
