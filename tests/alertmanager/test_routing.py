"""The routing example, in a real Alertmanager that gets its alerts from a real Prometheus."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
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
from chutes_exporter.simulator import Fault, Simulator, Size
from tests.prometheus.scenario import ALERTS
from tests.simulator.odd import OddWorld
from tests.support import (
    HOTKEY,
    PATIENCE,
    RULES,
    Prometheus,
    fast_rules,
    fetch,
    free_port,
    patient_client,
    served,
    until,
    wait_for,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

ROUTING = Path(__file__).parents[2] / "alertmanager" / "alertmanager.yml"
RECEIVERS = {"critical": "phone", "warning": "chat", "info": "digest", "none": "dead-mans-switch"}
SEVERITIES = {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}
"""Alerts with each of their severities."""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_alertmanager_accepts_the_routing() -> None:
    result = run("amtool", "check-config", str(ROUTING))
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_routing_has_none_of_the_known_mistakes() -> None:
    amlint = str(Path(sys.executable).parent / "amlint")
    # The digest has a shorter repeat interval on purpose, as the routing says.
    options = ("--strict", "--ignore", "repeat-before-group", "--rules", str(RULES / "alerts.yml"))
    result = run(amlint, "check", *options, str(ROUTING))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("name", "severity"), sorted(SEVERITIES))
def test_each_alert_reaches_the_receiver_of_its_severity(name: str, severity: str) -> None:
    result = run(
        "amtool",
        "config",
        "routes",
        "test",
        f"--config.file={ROUTING}",
        f"--verify.receivers={RECEIVERS[severity]}",
        f"alertname={name}",
        f"severity={severity}",
        f"hotkey={HOTKEY}",
    )
    assert result.returncode == 0, result.stdout + result.stderr


class Receivers:
    """Takes what Alertmanager sends, by receiver."""

    def __init__(self) -> None:
        self.got: dict[str, list[dict[str, Any]]] = {name: [] for name in RECEIVERS.values()}
        self.app = Starlette(routes=[Route("/{receiver}", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        self.got[request.path_params["receiver"]].extend((await request.json())["alerts"])
        return Response()

    def names(self, receiver: str) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.got[receiver]}


@contextlib.contextmanager
def alertmanager(directory: Path, receivers: str = "", telegram: str = "") -> Iterator[str]:
    """Run Debian's Alertmanager with the example, its times shortened; yields its address.

    Args:
        directory: For its files.
        receivers: The address that gets everything instead of the example's receivers.
        telegram: The address of Telegram.
    """
    directory.mkdir()
    config = yaml.safe_load(ROUTING.read_text())
    if telegram:
        config["global"]["telegram_api_url"] = telegram
    else:
        config["receivers"] = [
            {"name": name, "webhook_configs": [{"url": f"{receivers}/{name}"}]} for name in RECEIVERS.values()
        ]
    # The same tree, without the waiting.
    text = re.sub(r"(group_wait|group_interval|repeat_interval): \w+", r"\1: 1s", yaml.safe_dump(config))
    (directory / "alertmanager.yml").write_text(text)
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


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A simulator whose time is the real one."""
    async with Simulator(OddWorld(start=time.time(), size=Size(miners=6, active_miners=3, chutes=10))) as running:
        yield running


async def test_a_watchdog_goes_on_and_what_goes_wrong_reaches_the_right_receiver(
    simulator: Simulator, tmp_path: Path
) -> None:
    receivers = Receivers()
    simulator.faults.update({name: Fault(status=401, body=b'{"detail": "Invalid signature"}') for name in SIGNED})
    settings = watching(simulator.url, listen=(Address("127.0.0.1"),), ttl=dict.fromkeys(SIGNED, 0))
    async with served(receivers.app) as receiver_url, contextlib.AsyncExitStack() as running:
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
            await until(lambda: len(receivers.got["dead-mans-switch"]) >= 3)
            assert receivers.names("dead-mans-switch") == {"Watchdog"}
            # A signature that is refused rings the phone, and is resolved when it is accepted.
            await until(lambda: "ChutesSignatureRefused" in receivers.names("phone"))
            told = next(a for a in receivers.got["phone"] if a["labels"]["alertname"] == "ChutesSignatureRefused")
            assert told["labels"]["hotkey"] == HOTKEY
            assert told["annotations"]["summary"] == f"{HOTKEY[:5]}…: the API refuses its signatures"
            simulator.faults.clear()
            await until(
                lambda: any(
                    one["status"] == "resolved" and one["labels"]["alertname"] == "ChutesSignatureRefused"
                    for one in receivers.got["phone"]
                )
            )
            await running.aclose()
            await until(lambda: "ChutesMinerUnwatched" in receivers.names("phone"))
            assert "Watchdog" not in receivers.names("phone") | receivers.names("chat") | receivers.names("digest")


async def test_telegram_gets_the_texts_and_rings_for_critical_alerts_only(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    async def send(request: Request) -> Response:
        sent.append(await request.json())
        return JSONResponse({"ok": True, "result": {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "private"}}})

    telegram = Starlette(routes=[Route("/bot{token}/sendMessage", send, methods=["POST"])])
    notes = {"summary": "5Me…: <it> has no seat", "description": "First: `chutes-exporter check`.", "runbook_url": "u"}
    alerts = [
        {"labels": {"alertname": name, "severity": severity, **ME}, "annotations": notes}
        for name, severity in (("ChutesMinerDeregistered", "critical"), ("ChutesGpusGone", "warning"))
    ]
    async with served(telegram) as url:
        with alertmanager(tmp_path / "alertmanager", telegram=url) as address:
            async with patient_client() as client:
                answer = await client.post(f"http://{address}/api/v2/alerts", json=alerts)
            assert answer.status_code == httpx.codes.OK
            await until(lambda: len(sent) >= len(alerts))
    silent = {bool(message.get("disable_notification")) for message in sent}
    assert silent == {True, False}
    for message in sent:
        text, _, where = message["text"].partition("\n\nCommands run where the exporter runs:\n")
        assert text == f"firing: {notes['summary']}\n{notes['description']}\nu"
        assert where.endswith("/docs/runbooks/README.md#running-the-exporters-commands")
        assert not message.get("parse_mode")


SIGNED = ("servers", "nodes", "instances", "inventory")
ME, OTHER, JOB = {"hotkey": HOTKEY}, {"hotkey": "5Other"}, {"job": "chutes"}
SERVER = {**ME, "server": "l40s-0", "server_id": "s0", "gpu": "l40s"}
INSTANCE = {**ME, "instance_id": "i1", "chute_id": "c1"}

Alert = tuple[str, str, dict[str, str]]
"""Name, severity, other labels."""


@pytest.mark.parametrize(
    ("causes", "quiet", "loud"),
    [
        (
            [("ChutesMinerUnwatched", "critical", ME)],
            [("ChutesGpusIdle", "warning", SERVER), ("ChutesMinerDeregistered", "critical", ME)],
            [
                ("ChutesExporterDown", "warning", JOB),
                ("ChutesGpusIdle", "warning", {**SERVER, **OTHER}),
                ("Watchdog", "none", {}),
            ],
        ),
        (
            [("ChutesApiDown", "critical", JOB)],
            [
                ("ChutesApiDown", "warning", JOB),
                ("ChutesFeedFailing", "warning", {**JOB, **ME, "feed": "nodes"}),
                ("ChutesDataIncomplete", "warning", {**JOB, "feed": "chutes"}),
            ],
            [("ChutesGpusIdle", "warning", SERVER), ("ChutesApiDown", "warning", {"job": "other"})],
        ),
        (
            [("ChutesMinerDeregistered", "critical", ME)],
            [
                ("ChutesScoreHeadingDown", "warning", ME),
                ("ChutesMinerEarnsNothing", "critical", ME),
                ("ChutesSignatureRefused", "critical", ME),
            ],
            [("ChutesScoreHeadingDown", "warning", OTHER), ("ChutesGpusGone", "warning", SERVER)],
        ),
        (
            [("ChutesMinerEarnsNothing", "critical", ME)],
            [
                ("ChutesScoreHeadingDown", "warning", ME),
                ("ChutesGpuHoursLost", "info", ME),
                ("ChutesGpusIdle", "warning", SERVER),
            ],
            [("ChutesGpusGone", "warning", SERVER), ("ChutesGpusIdle", "warning", {**SERVER, **OTHER})],
        ),
        (
            [("ChutesGpusIdle", "warning", SERVER)],
            [("ChutesGpusIdle", "info", {**SERVER, "server": "other"})],
            [("ChutesGpusUnverified", "info", SERVER), ("ChutesGpusIdle", "info", {**SERVER, **OTHER})],
        ),
        (
            [("ChutesInstancePurgeNear", "warning", INSTANCE)],
            [("ChutesInstanceStartSlow", "warning", INSTANCE)],
            [("ChutesInstanceStartSlow", "warning", {**INSTANCE, "instance_id": "i2"})],
        ),
        (
            [("ChutesGpusUnverified", "critical", ME)],
            [("ChutesGpusUnverified", "warning", SERVER), ("ChutesGpusUnverified", "info", SERVER)],
            [("ChutesGpusIdle", "warning", SERVER), ("ChutesGpusUnverified", "warning", {**SERVER, **OTHER})],
        ),
        (
            [("ChutesFeedFailing", "warning", {**JOB, **ME, "feed": "nodes"})],
            [("ChutesDataIncomplete", "warning", {**JOB, **ME, "feed": "nodes"})],
            [("ChutesDataIncomplete", "warning", {**JOB, **ME, "feed": "servers"})],
        ),
        (
            # A clock that is off does not explain a refused signature: it is what must be repaired.
            [("ChutesClockOff", "warning", JOB)],
            [],
            [("ChutesSignatureRefused", "critical", ME)],
        ),
    ],
)
def test_an_alert_that_explains_others_silences_them_and_no_more(
    tmp_path: Path, causes: list[Alert], quiet: list[Alert], loud: list[Alert]
) -> None:
    assert {(name, severity) for name, severity, _ in (*causes, *quiet, *loud)} <= SEVERITIES

    def labelled(alert: Alert) -> dict[str, str]:
        name, severity, labels = alert
        return {"alertname": name, "severity": severity, **labels}

    def identity(labels: dict[str, str]) -> frozenset[tuple[str, str]]:
        return frozenset(labels.items())

    everything = [labelled(alert) for alert in (*causes, *quiet, *loud)]
    with alertmanager(tmp_path / "alertmanager", "http://127.0.0.1:9") as address:
        url = f"http://{address}/api/v2/alerts"
        assert (
            httpx.post(url, json=[{"labels": labels} for labels in everything], timeout=PATIENCE).status_code
            == httpx.codes.OK
        )
        expected = {identity(labelled(alert)) for alert in quiet}

        def silenced() -> set[frozenset[tuple[str, str]]]:
            alerts = httpx.get(url, timeout=PATIENCE).json()
            assert {identity(one["labels"]) for one in alerts} == {identity(labels) for labels in everything}
            return {identity(one["labels"]) for one in alerts if one["status"]["inhibitedBy"]}

        # Inhibition is worked out for all alerts when they are grouped for sending.
        wait_for(lambda: silenced() >= expected)
        assert silenced() == expected
