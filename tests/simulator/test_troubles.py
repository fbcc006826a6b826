"""Each trouble of the demo: the alerts that fire, and whether everything says the same."""

from __future__ import annotations

import asyncio
import contextlib
import html
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.findings import Finding, find
from chutes_exporter.rules.money import Costs
from chutes_exporter.simulator import TROUBLES, DemoWorld, Simulator, Size
from chutes_exporter.web.landing import landing_page
from tests.grafana.timeline import Timeline
from tests.support import (
    HOTKEY,
    NOON,
    Clock,
    Prometheus,
    get,
    read_reports,
    served_exporter,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support import Labels

pytestmark = pytest.mark.soak

HOURS = 6.5
"""Hours until noon in which a trouble is watched."""
STEP = 600
"""Seconds from one scrape to the next."""

ALERTS: dict[str, set[tuple[str, str]]] = {
    "crash-loop": {
        ("ChutesGpusThrash", "pro-6000-5"),
        ("ChutesChuteFails", "deepseek-ai/DeepSeek-V3.2-TEE-v7"),
        ("ChutesChuteFails", "deepseek-ai/DeepSeek-V3.2-TEE-v8"),
        ("ChutesChuteFails", "deepseek-ai/DeepSeek-V3.2-TEE-v11"),
        ("ChutesInstancesLostEarly", "deepseek-ai/DeepSeek-V3.2-TEE-v7"),
        ("ChutesInstancesLostEarly", "deepseek-ai/DeepSeek-V3.2-TEE-v8"),
        ("ChutesInstancesLostEarly", "deepseek-ai/DeepSeek-V3.2-TEE-v11"),
        # The first instance on the server.
        ("ChutesInstanceStartSlow", "deepseek-ai/DeepSeek-V3.2-TEE-v13"),
    },
    "dead-server": {("ChutesGpusIdle", "pro-6000-4")},
    "blacklisted": {("ChutesMinerBlacklisted", "")},
    "upgrade": {
        ("ChutesServerInMaintenance", "pro-6000-3"),
        ("ChutesServerVersionRefused", "pro-6000-2"),
        ("ChutesUpgradeWindowClosing", ""),
    },
    "idle": {("ChutesGpusIdle", "pro-6000-6"), ("ChutesGpusUnverified", "4090-7")},
    "failing-chute": {
        ("ChutesChuteFails", "deepseek-ai/DeepSeek-V3.2-TEE-v2"),
        ("ChutesStartsFail", "pro-6000-7"),
    },
    "bleed": {
        ("ChutesDayLoss", ""),
        ("ChutesChuteFails", "deepseek-ai/DeepSeek-V3.2-TEE-v5"),
        ("ChutesChuteFails", "deepseek-ai/DeepSeek-V3.2-TEE-v7"),
        ("ChutesChuteFails", "deepseek-ai/DeepSeek-V3.2-TEE-v8"),
        ("ChutesChuteFails", "deepseek-ai/DeepSeek-V3.2-TEE-v10"),
        ("ChutesInstancesLostEarly", "deepseek-ai/DeepSeek-V3.2-TEE-v5"),
        ("ChutesInstancesLostEarly", "deepseek-ai/DeepSeek-V3.2-TEE-v7"),
        ("ChutesInstancesLostEarly", "deepseek-ai/DeepSeek-V3.2-TEE-v8"),
        ("ChutesInstancesLostEarly", "deepseek-ai/DeepSeek-V3.2-TEE-v10"),
    },
    "thrashing": {("ChutesGpusThrash", "pro-6000-7")},
    "start-in-vain": {("ChutesStartInVain", "whisper-large-v3-v12")},
}
"""What fires after hours of a trouble, with the server or the chute."""

SAME_SERVERS = {
    "maintenance": ({"ChutesServerInMaintenance"}, set[str]()),
    "versions_refused": ({"ChutesServerVersionRefused"}, set[str]()),
    "unverified_gpus": ({"ChutesGpusUnverified"}, set[str]()),
    # GPUs that thrash are idle at some moments only.
    "idle_gpus": ({"ChutesGpusIdle"}, {"ChutesGpusThrash"}),
}
"""The alerts about the same servers as a finding, and those that may be about them, too."""
SAME_INSTANCES = {"starts_in_vain": "ChutesStartInVain", "purges": "ChutesInstanceStartSlow"}
"""The alert about the same instances as a finding."""


def needing_action(firing: Mapping[Labels, float]) -> list[dict[str, str]]:
    """Return the labels of the firing alerts that need action. The others only inform."""
    alerts = [dict(labels) for labels in firing]
    return [labels for labels in alerts if labels["severity"] in ("critical", "warning")]


def servers_of(finding: Finding | None) -> list[dict[str, str | None]]:
    return [] if finding is None else finding.servers


def instances_of(finding: Finding | None) -> list[dict[str, Any]]:
    return [] if finding is None else finding.instances


def things_of(finding: Finding | None) -> list[str]:
    return [] if finding is None else finding.things


def place_of(labels: dict[str, str]) -> str:
    """Return the server or the chute that an alert is about, empty if it is about the miner."""
    return labels.get("server") or labels.get("chute") or ""


def values_of(firing: list[dict[str, str]], names: set[str], label: str) -> set[str]:
    """Return the values of a label of the firing alerts with these names."""
    return {one[label] for one in firing if one["alertname"] in names}


async def watch(
    simulator: Simulator, clock: Clock, directory: Path
) -> tuple[list[dict[str, str]], dict[str, Finding], str]:
    """Let an exporter and a Prometheus watch the trouble until noon.

    Return the alerts that fire, the findings of ``status`` by kind, and the landing page.
    """
    with contextlib.ExitStack() as stack:
        settings = watching(simulator.url, simulator.world.miners[0].key)
        prometheus = stack.enter_context(Prometheus(directory))
        timeline = Timeline(f"{prometheus.url}/api/v1/write")
        stack.enter_context(contextlib.closing(timeline))
        async with served_exporter(settings, clock, monotonic=clock) as (url, exporter):
            while clock() <= NOON:
                await read_reports(exporter)
                page = (await get(f"{url}/metrics")).text
                await asyncio.to_thread(timeline.scrape, clock(), "chutes", "exporter:9109", page)
                await asyncio.to_thread(timeline.evaluate, clock())
                clock.now += STEP
            # The last step went beyond it.
            clock.now = NOON
            # They are what `status` prints.
            fleet = (await exporter.samples(())).fleets[HOTKEY]
            findings = {one.kind: one for one in find(fleet, NOON, Costs())}
            landing = html.unescape(await landing_page(exporter))
        prometheus.at = NOON
        firing = needing_action(prometheus.query('ALERTS{alertstate="firing"}'))
    return firing, findings, landing


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_alerts_status_and_landing_page_agree_about_a_trouble(
    trouble: str, tmp_path: Path
) -> None:
    size = Size(miners=24, active_miners=10, chutes=150, other_servers=3)
    world = DemoWorld(start=NOON, troubles=[trouble], size=size)
    clock = Clock(NOON - HOURS * 3600)
    async with Simulator(world, clock=clock) as simulator:
        firing, findings, landing = await watch(simulator, clock, tmp_path)
    assert {(labels["alertname"], place_of(labels)) for labels in firing} == ALERTS[trouble]
    for kind, (alerts, other_alerts) in SAME_SERVERS.items():
        servers = {server["name"] for server in servers_of(findings.get(kind))}
        assert values_of(firing, alerts, "server") <= servers
        assert servers <= values_of(firing, alerts | other_alerts, "server")
    for kind, alert in SAME_INSTANCES.items():
        instances = {one["instance_id"] for one in instances_of(findings.get(kind))}
        assert instances == values_of(firing, {alert}, "instance_id")
    chutes = values_of(firing, {"ChutesChuteFails"}, "chute")
    failing = findings.get("failing_chutes")
    # The text about a chute begins with its name.
    assert {text.split(" ")[0] for text in things_of(failing)} == chutes
    blacklisted = values_of(firing, {"ChutesMinerBlacklisted"}, "hotkey")
    assert ("blacklisted" in findings) == bool(blacklisted)
    # The landing page has no notes.
    for finding in findings.values():
        assert (finding.problem in landing) == finding.needs_action
