"""Two exporters of a miner, two Prometheus and one Alertmanager, with the files of deploy/replicas.

tests/deploy/test_replicas.py proves that compose runs the same files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from starlette.responses import PlainTextResponse

from chutes_exporter.demo.replay import Replay
from tests.alertmanager.test_routing import Receivers, alertmanager
from tests.support import (
    PATIENCE,
    ROOT,
    Prometheus,
    fast_rules,
    free_port,
    get,
    parse_page,
    recorded_day,
    served,
    until,
)

if TYPE_CHECKING:
    import re
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import ASGIApp, Receive, Scope, Send

EXAMPLE = ROOT / "deploy" / "replicas" / "prometheus.yml"
COMMAND = Path(sys.executable).parent / "chutes-exporter"
FAST = ("metagraph", "scores", "instances", "nodes", "servers")
"""Feeds that are requested every second."""
MINER = recorded_day().miners["healthy"].address
BLACKLISTED = f"firing: {MINER[:5]}…: the miner is blacklisted"
GPUS = "hotkey:chutes_fleet_gpus:sum"


def once(match: re.Match[str]) -> str:
    """Return a line of the routing with another time.

    With these times, no alert waits for longer than a second. Each is sent once in a test, but the
    Watchdog each second.
    """
    setting, time_of_example = match.groups()
    # Only the Watchdog is repeated after 5 minutes.
    if setting == "repeat_interval" and time_of_example != "5m":
        return f"{setting}: 1h"
    return f"{setting}: 1s"


@dataclass
class Door:
    """The way of one exporter to the API, which answers 503 while it is shut."""

    api: ASGIApp
    is_shut: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = PlainTextResponse("shut", 503) if self.is_shut else self.api
        await app(scope, receive, send)


@contextlib.contextmanager
def exporter(api: str, *flags: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run an exporter of the miner; yields its address and its process."""
    address = f"127.0.0.1:{free_port()}"
    intervals = [f"--feed.ttl={feed}=1" for feed in FAST]
    process = subprocess.Popen(
        [COMMAND, f"--api.url={api}", f"--web.listen-address={address}", *intervals, *flags],
        env={**os.environ, "MINER_SS58": MINER, "MINER_SEED": recorded_day().seeds["healthy"]},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield address, process
    finally:
        process.kill()
        process.wait(PATIENCE)


def rules_without_info(directory: Path) -> None:
    """Write the rules with short times, but without those of severity info.

    Some of these replace a critical alert after a day, which would be 2 seconds here. On a busy
    machine, scrapes are late for longer than the short times, which must not send an alert again.
    """
    directory.mkdir(parents=True)
    for path in fast_rules(directory):
        rules = json.loads(path.read_text())
        for group in rules["groups"]:
            kept = []
            for rule in group["rules"]:
                if rule.get("labels", {}).get("severity") == "info":
                    continue
                if "alert" in rule:
                    rule["keep_firing_for"] = "1m"
                kept.append(rule)
            group["rules"] = kept
        path.with_suffix(".yml").write_text(json.dumps(rules))


def prometheus(directory: Path, replica: str, exporters: list[str], alerts_to: str) -> Prometheus:
    """Return a Prometheus with the example's configuration, which scrapes every second."""
    rules_without_info(directory / "rules")
    (directory / "targets").mkdir()
    for name, targets in (("exporter", exporters), ("alertmanager", [alerts_to])):
        path = directory / "targets" / f"{name}.yml"
        path.write_text(json.dumps([{"targets": targets}]))
    config = yaml.safe_load(EXAMPLE.read_text())
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    return Prometheus(
        directory,
        more=config,
        flags=["--enable-feature=expand-external-labels"],
        environment={"REPLICA": replica},
        # A machine that stands still for some seconds resolves no alert.
        resend_delay="5s",
    )


@dataclass
class Pair:
    """Everything that runs, twice where the example has it twice."""

    replay: Replay
    door: Door
    exporters: list[str]
    processes: list[subprocess.Popen[bytes]]
    prometheus: list[Prometheus]
    alertmanager: str
    receivers: Receivers

    def times_sent(self, line: str) -> int:
        """Return how many messages have a line."""
        return sum(line in message["text"] for message in self.receivers.messages)

    def times_rung(self) -> int:
        """Return how many messages rang."""
        return sum(not message.get("disable_notification") for message in self.receivers.messages)

    async def holds(self, expression: str) -> None:
        """Wait until a query has a result in each Prometheus."""
        for prometheus in self.prometheus:
            await asyncio.to_thread(prometheus.wait_for, expression)

    async def is_sent(self, line: str, name: str) -> None:
        """Wait for a message about an alert, and until each Prometheus has the alert."""
        await until(lambda: self.times_sent(line) > 0)
        await self.holds(f'ALERTS{{alertname="{name}",alertstate="firing"}}')

    async def settles(self) -> None:
        """Wait for as long as Alertmanager needs to send what it has to send: until the
        Watchdog, which is sent each second, has arrived two more times.
        """
        beats = len(self.receivers.beats)
        await until(lambda: len(self.receivers.beats) >= beats + 2)

    async def alerts(self, name: str) -> list[dict[str, Any]]:
        """Return the alerts of a name that Alertmanager has."""
        found = (await get(f"http://{self.alertmanager}/api/v2/alerts")).json()
        return [alert for alert in found if alert["labels"]["alertname"] == name]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """A healthy miner with everything twice."""
    receivers = Receivers()
    async with contextlib.AsyncExitStack() as running:
        replay = await running.enter_async_context(Replay(recorded_day()))
        door = Door(replay.app)
        second_api = await running.enter_async_context(served(door))
        receiver_url = await running.enter_async_context(served(receivers.app))
        # The second exporter drops data that it cannot renew after 5 seconds. Its way to the API
        # can be shut.
        ages = [f"--feed.max-age={feed}=5" for feed in FAST]
        first, first_process = running.enter_context(exporter(replay.url))
        second, second_process = running.enter_context(exporter(second_api, *ages))
        alerts_to = running.enter_context(
            alertmanager(tmp_path / "alertmanager", receiver_url, once)
        )
        both_prometheus = []
        for name in ("first", "second"):
            scraping = prometheus(tmp_path / name, name, [first, second], alerts_to)
            # In a thread, because the API answers meanwhile.
            await asyncio.to_thread(running.enter_context, scraping)
            both_prometheus.append(scraping)
        pair = Pair(
            replay=replay,
            door=door,
            exporters=[first, second],
            processes=[first_process, second_process],
            prometheus=both_prometheus,
            alertmanager=alerts_to,
            receivers=receivers,
        )
        await pair.holds("count(chutes_fleet_known{topic='gpus'} == 1) == 2")
        await until(lambda: receivers.beats)
        yield pair


def blacklisted(seats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the seats of a metagraph with the miner blacklisted."""
    for seat in seats:
        if seat["hotkey"] == MINER:
            seat["blacklist_reason"] = "Spoofed GPUs"
    return seats


async def test_nothing_is_doubled_and_nobody_is_paged_twice(pair: Pair) -> None:
    first, second = pair.exporters
    page = parse_page((await get(f"http://{first}/metrics")).text)
    gpus = sum(value for (name, _), value in page.items() if name == "chutes_fleet_gpus")
    assert gpus > 0
    await pair.holds(f"{GPUS} == {gpus}")

    # Both exporters have the same problem, and both Prometheus see it.
    pair.replay.edits["metagraph"] = blacklisted
    await pair.holds(f"count(chutes_miner_blacklisted{{hotkey='{MINER}'}} == 1) == 2")

    # One exporter has no API, and drops what it knows.
    pair.door.is_shut = True
    await pair.is_sent(BLACKLISTED, "ChutesMinerBlacklisted")
    await pair.holds(f"absent(chutes_fleet_gpus{{instance='{second}'}}) and on () {GPUS} == {gpus}")
    no_api = f"firing: Chutes API: no answer for 15 minutes (exporter {second})"
    await pair.is_sent(no_api, "ChutesApiDown")
    await pair.holds(f"ALERTS{{alertname='ChutesExporterBlind',instance='{second}'}}")

    # One exporter is down.
    pair.processes[1].kill()
    down = f"firing: Chutes exporter {second}: scrapes fail (job chutes)"
    await pair.is_sent(down, "ChutesExporterDown")
    await pair.holds(f"up{{instance='{second}'}} == 0 and on () {GPUS} == {gpus}")
    await pair.settles()
    assert pair.times_rung() == pair.times_sent(BLACKLISTED) == 1
    assert pair.times_sent(no_api) == pair.times_sent(down) == 1
    (alert,) = await pair.alerts("ChutesMinerBlacklisted")
    assert "replica" not in alert["labels"]

    # One Prometheus is down, and then the other exporter.
    pair.prometheus.pop().kill()
    pair.processes[0].kill()
    unwatched = f"firing: {MINER[:5]}…: no exporter watches it"
    await pair.is_sent(unwatched, "ChutesMinerUnwatched")
    await pair.settles()
    assert pair.times_sent(unwatched) == 1
    assert pair.times_rung() == 2
    # In the Prometheus that is left, the number of GPUs has been the same all the time.
    recorded = f"{GPUS}[10m]"
    await pair.holds(f"min_over_time({recorded}) == {gpus} and max_over_time({recorded}) == {gpus}")
