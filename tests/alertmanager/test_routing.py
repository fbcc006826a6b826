"""The routing example, in a real Alertmanager that gets its alerts from a real Prometheus."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chutes_exporter.commands.serve import Service
from chutes_exporter.config import Address
from tests.exporters import served, watching
from tests.prometheus.rule_files import ALERTS, RULES, fast_rules
from tests.prometheus.server import Prometheus
from tests.replay import Fault, Replay
from tests.support import (
    HOTKEY,
    PATIENCE,
    fetch,
    free_port,
    patient_client,
    recorded_day,
    until,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request

ROUTING = Path(__file__).parents[2] / "alertmanager" / "alertmanager.yml"
SEVERITIES: set[tuple[str, str]] = {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}
"""Alerts with each of their severities."""

Labels = frozenset[tuple[str, str]]


async def post(address: str, *alerts: dict[str, Any]) -> None:
    """Give alerts to an Alertmanager."""
    async with patient_client() as client:
        answer = await client.post(f"http://{address}/api/v2/alerts", json=alerts)
    assert answer.status_code == httpx.codes.OK


def run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_routing_is_accepted_and_has_none_of_the_known_mistakes() -> None:
    run("amtool", "check-config", str(ROUTING))
    amlint = str(Path(sys.executable).parent / "amlint")
    run(amlint, "check", "--strict", "--rules", str(RULES / "alerts.yml"), str(ROUTING))


class Receivers:
    """Takes what Alertmanager sends: messages to Telegram, and the alerts for the dead man's
    switch.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.beats: list[dict[str, Any]] = []
        bot = Route("/bot{token}/sendMessage", self._send, methods=["POST"])
        self.app = Starlette(routes=[bot, Route("/dead-mans-switch", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        self.beats.extend((await request.json())["alerts"])
        return Response()

    async def _send(self, request: Request) -> Response:
        self.messages.append(await request.json())
        # As Telegram answers.
        chat = {"id": 1, "type": "private"}
        return JSONResponse({"ok": True, "result": {"message_id": 1, "date": 1, "chat": chat}})

    def rang(self, text: str) -> bool:
        """Return whether a message with a text was not silent."""
        ringing = [one for one in self.messages if not one.get("disable_notification")]
        return any(text in message["text"] for message in ringing)


def shortened(match: re.Match[str]) -> str:
    """Return a time of the routing without the waiting."""
    return f"{match[1]}: 1s"


@contextlib.contextmanager
def alertmanager(
    directory: Path, receivers: str, change: Callable[[re.Match[str]], str] = shortened
) -> Iterator[str]:
    """Run Debian's Alertmanager with the example, its times changed, and these receivers; yields
    its address.
    """
    directory.mkdir()
    config = yaml.safe_load(ROUTING.read_text())
    config["global"]["telegram_api_url"] = receivers
    times = r"(group_wait|group_interval|repeat_interval): (\w+)"
    text = re.sub(times, change, yaml.safe_dump(config))
    (directory / "alertmanager.yml").write_text(text.replace("http://localhost:8080", receivers))
    address = f"127.0.0.1:{free_port()}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus-alertmanager",
                f"--config.file={directory / 'alertmanager.yml'}",
                f"--storage.path={directory / 'data'}",
                f"--web.listen-address={address}",
                "--cluster.listen-address=",
            ],
            stderr=log,
            stdout=log,
        )
    try:
        wait_for(lambda: fetch(f"http://{address}/-/ready"), process, (directory / "log").read_text)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


async def test_a_watchdog_goes_on_and_what_goes_wrong_reaches_the_right_receiver(
    tmp_path: Path,
) -> None:
    receivers = Receivers()
    refused = Fault(status=401, body=b'{"detail": "Invalid signature"}')
    signatures = "The API refuses the miner's signatures"
    async with (
        Replay(recorded_day()) as replay,
        served(receivers.app) as receiver_url,
        contextlib.AsyncExitStack() as running,
    ):
        replay.faults.update(dict.fromkeys(SIGNED, refused))
        settings = watching(replay.url, listen=(Address("127.0.0.1"),))
        service = await running.enter_async_context(Service(settings))
        exporter = service.addresses[0]
        with (
            alertmanager(tmp_path / "alertmanager", receiver_url) as address,
            Prometheus(
                tmp_path,
                targets=[str(exporter)],
                rule_files=fast_rules(tmp_path),
                alertmanager=address,
            ),
        ):
            # The dead man's switch hears of the Watchdog again and again, and of nothing else.
            await until(lambda: len(receivers.beats) >= 3)
            # A signature that is refused rings the phone.
            await until(lambda: receivers.rang(signatures))
            replay.faults.clear()
            # The exporter ends.
            await running.aclose()
            await until(lambda: receivers.rang("No exporter watches the miner"))
            # No chat gets the Watchdog, which says that "Prometheus and Alertmanager work".
            assert {alert["labels"]["alertname"] for alert in receivers.beats} == {"Watchdog"}
            assert not any("Alertmanager work" in message["text"] for message in receivers.messages)


DESCRIPTION = (
    f"These GPUs of {HOTKEY} <idle>. First, on the exporter's host: `chutes-exporter advise`."
)
SERVERS = [f"server-{number:02}.long-name.example" for number in range(20)]


NOTES = {
    "description": DESCRIPTION,
    "cost": "what these GPUs would earn",
    "runbook_url": "docs/runbooks/fleet.md#chutesgpusidle",
    "dashboard": f"http://grafana/d/chutes-fleet?var-hotkey={HOTKEY}",
}


@pytest.mark.parametrize(("severity", "servers"), [("critical", SERVERS[:1]), ("warning", SERVERS)])
async def test_telegram_gets_the_text_of_a_group_once_and_a_line_for_each_server(
    tmp_path: Path, severity: str, servers: list[str]
) -> None:
    receivers = Receivers()
    labels = {"alertname": "ChutesGpusIdle", "severity": severity, "hotkey": HOTKEY}
    lines, alerts = [], []
    for server in servers:
        # A cost as long as the longest one of a real alert.
        cost = "1234567 units a day (123 US dollars)"
        line = f"{server}: 8 pro_6000 idle, {cost}"
        lines.append(line)
        notes = NOTES | {"summary": line}
        # Any label that differs makes another alert of the same group.
        alerts.append({"labels": labels | {"server": line}, "annotations": notes})
    async with served(receivers.app) as url:
        with alertmanager(tmp_path / "alertmanager", url) as address:
            await post(address, *alerts)
            await until(lambda: len(receivers.messages) > 0)
    message = receivers.messages[0]
    assert bool(message.get("disable_notification")) == (severity != "critical")
    # Without a parse mode, the `<idle>` of the description is text for Telegram, and no markup.
    assert not message.get("parse_mode")
    lines_of_servers, _, common_text = message["text"].partition("\n\n")
    template = "{description}\nCost: {cost}\n{dashboard}\n{runbook_url}\nMiner: {hotkey}"
    assert common_text == template.format_map(NOTES | labels)
    assert sorted(lines_of_servers.splitlines()) == lines
    # Telegram takes 4096 characters. Some are left for a longer description than that of this test.
    assert len(message["text"]) + 500 <= 4096


SIGNED = ("servers", "nodes", "instances", "inventory")
CASES = """
ChutesMinerUnwatched critical hotkey=5Me
  mutes ChutesGpusIdle warning hotkey=5Me server=a; ChutesMinerDeregistered critical hotkey=5Me
  keeps ChutesExporterDown warning job=chutes; ChutesGpusIdle warning hotkey=5Other; Watchdog none
ChutesApiDown warning job=chutes instance=one
  mutes ChutesFeedFailing warning job=chutes hotkey=5Me feed=nodes
  keeps ChutesGpusIdle warning hotkey=5Me server=a; ChutesApiDown warning job=other
ChutesMinerDeregistered critical hotkey=5Me
  mutes ChutesScoreHeadingDown warning hotkey=5Me; ChutesMinerEarnsNothing critical hotkey=5Me
  mutes ChutesGpusIdle warning hotkey=5Me server=a; ChutesGpusIdle warning hotkey=5Me server=b
  mutes ChutesSignatureRefused critical hotkey=5Me; ChutesMinerSeatAtRisk warning hotkey=5Me
  mutes ChutesFeedFailing warning hotkey=5Me feed=maintenance
  keeps ChutesFeedFailing warning hotkey=5Other feed=maintenance; ChutesFeedFailing warning feed=fmv
  keeps ChutesScoreHeadingDown warning hotkey=5Other; ChutesGpusGone warning hotkey=5Me server=a
ChutesMinerBlacklisted critical hotkey=5Me
  mutes ChutesGpusIdle warning hotkey=5Me server=a; ChutesMinerSeatAtRisk critical hotkey=5Me
  keeps ChutesGpusIdle warning hotkey=5Other; ChutesServerInMaintenance warning hotkey=5Me server=a
ChutesMinerEarnsNothing critical hotkey=5Me
  mutes ChutesScoreHeadingDown warning hotkey=5Me
  mutes ChutesGpusIdle warning hotkey=5Me server=a
  keeps ChutesGpusGone warning hotkey=5Me server=a; ChutesGpusIdle warning hotkey=5Other
ChutesDayLoss critical hotkey=5Me
  mutes ChutesDayLoss warning hotkey=5Me
  keeps ChutesGpusIdle warning hotkey=5Me server=a; ChutesDayLoss warning hotkey=5Other
"""
"""Alerts that explain others, with those that they mute or not."""


def read_cases() -> tuple[set[Labels], set[Labels]]:
    """Return the alerts that are muted, and the others.

    Each case is about another miner and job.
    """
    muted: set[Labels] = set()
    kept: set[Labels] = set()
    for number, case in enumerate(re.split(r"\n(?=\w)", CASES.strip())):
        cause, *lines = case.split("\n  ")
        kept.add(labels_of(cause, number))
        for line in lines:
            verb, _, texts = line.partition(" ")
            alerts = {labels_of(text, number) for text in texts.split("; ")}
            if verb == "mutes":
                muted |= alerts
            else:
                kept |= alerts
    return muted, kept


def labels_of(alert: str, number: int) -> Labels:
    """Return the labels of an alert in a case, whose number makes its miner and job unique."""
    name, severity, *others = alert.split()
    assert (name, severity) in SEVERITIES
    labels = {"alertname": name, "severity": severity}
    for other in others:
        label, _, value = other.partition("=")
        labels[label] = f"{value}-{number}" if label in ("hotkey", "job") else value
    return frozenset(labels.items())


QUIET, HEARD = read_cases()


def test_alertmanager_mutes_what_another_alert_explains_and_no_more(tmp_path: Path) -> None:
    # Nobody listens at the address of the receivers: Alertmanager itself says what it mutes.
    with alertmanager(tmp_path / "alertmanager", "http://127.0.0.1:9") as address:
        url = f"http://{address}/api/v2/alerts"
        alerts = [{"labels": dict(labels)} for labels in (*QUIET, *HEARD)]
        posted = httpx.post(url, json=alerts, timeout=PATIENCE)
        assert posted.status_code == httpx.codes.OK

        def muted() -> set[Labels]:
            shown = httpx.get(url, timeout=PATIENCE).json()
            assert {frozenset(one["labels"].items()) for one in shown} == QUIET | HEARD
            inhibited = [one for one in shown if one["status"]["inhibitedBy"]]
            return {frozenset(one["labels"].items()) for one in inhibited}

        # Inhibition is worked out for all alerts when they are grouped for sending.
        wait_for(lambda: muted() >= QUIET)
        assert muted() == QUIET
