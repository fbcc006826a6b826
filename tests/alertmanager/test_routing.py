"""The routing example, in a real Alertmanager that gets its alerts from a real Prometheus."""

from __future__ import annotations

import contextlib
import json
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
from deploy.inhibitions import INHIBITIONS
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
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from starlette.requests import Request

ROUTING = Path(__file__).parents[2] / "alertmanager" / "alertmanager.yml"
RECEIVERS = {"critical": "phone", "warning": "chat", "info": "digest", "none": "dead-mans-switch"}
SEVERITIES = {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}
"""Alerts with each of their severities."""

Labels = frozenset[tuple[str, str]]


def run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_routing_is_accepted_and_has_none_of_the_known_mistakes() -> None:
    run("amtool", "check-config", str(ROUTING))
    amlint = str(Path(sys.executable).parent / "amlint")
    # The digest has a shorter repeat interval on purpose, as the routing says.
    options = ("--strict", "--ignore", "repeat-before-group", "--rules", str(RULES / "alerts.yml"))
    run(amlint, "check", *options, str(ROUTING))


def test_each_alert_reaches_the_receiver_of_its_severity() -> None:
    for name, severity in SEVERITIES:
        options = (f"--config.file={ROUTING}", f"--verify.receivers={RECEIVERS[severity]}")
        run("amtool", "config", "routes", "test", *options, f"alertname={name}", f"severity={severity}", "hotkey=5Me")


class Receivers:
    """Takes what Alertmanager sends: alerts by receiver, and messages to Telegram."""

    def __init__(self) -> None:
        self.got: dict[str, list[dict[str, Any]]] = {name: [] for name in RECEIVERS.values()}
        self.messages: list[dict[str, Any]] = []
        bot = Route("/bot{token}/sendMessage", self._send, methods=["POST"])
        self.app = Starlette(routes=[bot, Route("/{receiver}", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        self.got[request.path_params["receiver"]].extend((await request.json())["alerts"])
        return Response()

    async def _send(self, request: Request) -> Response:
        self.messages.append(await request.json())
        return JSONResponse({"ok": True, "result": {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "private"}}})

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


DESCRIPTION = f"These GPUs of {HOTKEY} <idle>. First, where the exporter runs: `chutes-exporter advise`."
SERVERS = [f"server-{number:02}.long-name.example" for number in range(20)]


def idle(server: str, severity: str) -> dict[str, Any]:
    """An alert about a server, as long as the longest."""
    notes = {
        "summary": f"{HOTKEY[:5]}…: 8 pro_6000 of server {server} idle, 1234567 compute units a day (123 US dollars)",
        "description": DESCRIPTION,
        "cost": "what these GPUs would earn",
        "runbook_url": "docs/runbooks/fleet.md#chutesgpusidle",
        "dashboard": f"http://grafana/d/chutes-fleet?var-hotkey={HOTKEY}",
    }
    return {
        "labels": {"alertname": "ChutesGpusIdle", "severity": severity, "server": server, "hotkey": HOTKEY},
        "annotations": notes,
    }


@pytest.mark.parametrize(("severity", "servers"), [("critical", SERVERS[:1]), ("warning", SERVERS)])
async def test_telegram_gets_the_text_of_a_group_once_and_a_line_for_each_server(
    tmp_path: Path, severity: str, servers: list[str]
) -> None:
    receivers = Receivers()
    alerts = [idle(server, severity) for server in servers]
    async with served(receivers.app) as url:
        with alertmanager(tmp_path / "alertmanager", telegram=url) as address:
            async with patient_client() as client:
                answer = await client.post(f"http://{address}/api/v2/alerts", json=alerts)
            assert answer.status_code == httpx.codes.OK
            await until(lambda: len(receivers.messages) > 0)
    message = receivers.messages[0]
    assert bool(message.get("disable_notification")) == (severity != "critical")
    assert not message.get("parse_mode")
    notes = alerts[0]["annotations"]
    head, _, lines = message["text"].partition("\n\n")
    assert head == f"{DESCRIPTION}\nCost: {notes['cost']}\n{notes['dashboard']}\n{notes['runbook_url']}"
    assert sorted(lines.splitlines()) == [f"firing: {alert['annotations']['summary']}" for alert in alerts]
    # The descriptions are shorter than this.
    assert len(message["text"]) + 500 <= 4096


SIGNED = ("servers", "nodes", "instances", "inventory")
SERVER, INSTANCE = "hotkey=5Me server=l40s-0 server_id=s0 gpu=l40s", "hotkey=5Me chute_id=c1 instance_id=i1"
NINE_IDLE = [f"ChutesGpusIdle warning hotkey=5Me server=l40s-{number}" for number in range(9)]
OF_NO_SCORE = [
    f"{alert} hotkey=5Me"
    for alert in (
        "ChutesScoreHeadingDown warning",
        "ChutesMinerEarnsNothing critical",
        "ChutesSignatureRefused critical",
        "ChutesMinerSeatAtRisk warning",
    )
]
CASES: Sequence[tuple[str, Sequence[str], Sequence[str]]] = [
    (
        "ChutesMinerUnwatched critical hotkey=5Me",
        [f"ChutesGpusIdle warning {SERVER}", "ChutesMinerDeregistered critical hotkey=5Me"],
        ["ChutesExporterDown warning job=chutes", "ChutesGpusIdle warning hotkey=5Other", "Watchdog none"],
    ),
    (
        "ChutesApiDown critical job=chutes",
        [
            "ChutesApiDown warning job=chutes",
            "ChutesFeedFailing warning job=chutes hotkey=5Me feed=nodes",
            "ChutesDataIncomplete warning job=chutes feed=chutes",
        ],
        [f"ChutesGpusIdle warning {SERVER}", "ChutesApiDown warning job=other"],
    ),
    *(
        (
            f"{cause} critical hotkey=5Me",
            [*OF_NO_SCORE, *NINE_IDLE],
            ["ChutesScoreHeadingDown warning hotkey=5Other", f"ChutesGpusGone warning {SERVER}"],
        )
        for cause in ("ChutesMinerDeregistered", "ChutesMinerBlacklisted")
    ),
    (
        "ChutesMinerEarnsNothing critical hotkey=5Me",
        ["ChutesScoreHeadingDown warning hotkey=5Me", "ChutesGpuHoursLost info hotkey=5Me", *NINE_IDLE],
        [f"ChutesGpusGone warning {SERVER}", "ChutesGpusIdle warning hotkey=5Other"],
    ),
    (
        f"ChutesGpusIdle warning {SERVER}",
        ["ChutesGpusIdle info hotkey=5Me server=other"],
        [f"ChutesGpusUnverified info {SERVER}", "ChutesGpusIdle info hotkey=5Other"],
    ),
    (
        f"ChutesInstancePurgeNear warning {INSTANCE}",
        [f"ChutesInstanceStartSlow warning {INSTANCE}"],
        ["ChutesInstanceStartSlow warning hotkey=5Me instance_id=i2"],
    ),
    (
        "ChutesGpusUnverified critical hotkey=5Me",
        [f"ChutesGpusUnverified warning {SERVER}", f"ChutesGpusUnverified info {SERVER}"],
        [f"ChutesGpusIdle warning {SERVER}", "ChutesGpusUnverified warning hotkey=5Other"],
    ),
    (
        "ChutesFeedFailing warning job=chutes hotkey=5Me feed=nodes",
        ["ChutesDataIncomplete warning job=chutes hotkey=5Me feed=nodes"],
        ["ChutesDataIncomplete warning job=chutes hotkey=5Me feed=servers"],
    ),
    # A clock that is off does not explain a refused signature: it is what must be repaired.
    ("ChutesClockOff warning job=chutes", [], ["ChutesSignatureRefused critical hotkey=5Me"]),
]
"""An alert that explains others, those that it mutes, and some that it does not."""


def labelled(alert: str, number: int) -> Labels:
    """Return all labels of an alert. Those of different cases are about different miners and exporters."""
    name, severity, *others = alert.split()
    assert (name, severity) in SEVERITIES
    labels = [f"{other}-{number}" if other.startswith(("hotkey", "job")) else other for other in others]
    return frozenset({"alertname": name, "severity": severity, **dict(one.split("=") for one in labels)}.items())


QUIET = {labelled(alert, number) for number, (_, quiet, _) in enumerate(CASES) for alert in quiet}
HEARD = {labelled(alert, number) for number, (cause, _, loud) in enumerate(CASES) for alert in (cause, *loud)}


def test_alertmanager_mutes_what_another_alert_explains_and_no_more(tmp_path: Path) -> None:
    with alertmanager(tmp_path / "alertmanager", "http://127.0.0.1:9") as address:
        url = f"http://{address}/api/v2/alerts"
        posted = httpx.post(url, json=[{"labels": dict(alert)} for alert in (*QUIET, *HEARD)], timeout=PATIENCE)
        assert posted.status_code == httpx.codes.OK

        def silenced() -> set[Labels]:
            alerts = httpx.get(url, timeout=PATIENCE).json()
            assert {frozenset(one["labels"].items()) for one in alerts} == QUIET | HEARD
            return {frozenset(one["labels"].items()) for one in alerts if one["status"]["inhibitedBy"]}

        # Inhibition is worked out for all alerts when they are grouped for sending.
        wait_for(lambda: silenced() >= QUIET)
        assert silenced() == QUIET


def test_dashboards_list_the_alerts_that_are_not_muted(tmp_path: Path) -> None:
    def series(name: str, labels: Iterable[tuple[str, str]]) -> str:
        return f"{name}{{{','.join(f'{label}={json.dumps(value)}' for label, value in labels if value)}}}"

    fired = [("alertstate", "firing")]
    given = [{"series": series("ALERTS", [*alert, *fired]), "values": "1x2"} for alert in (*QUIET, *HEARD)]
    shown = ("alertname", "severity", "hotkey")
    kept = {
        tuple((name, dict(alert).get(name, "")) for name in shown)
        for alert in HEARD
        if ("severity", "none") not in alert
    }
    # Each rule of inhibition has muted an alert of the cases.
    expected = {
        "ALERTS unless ignoring (cause) alert:chutes_alerts:inhibited": {
            series("ALERTS", [*one, *fired]) for one in HEARD
        },
        f"group by ({', '.join(shown)}) (alert:chutes_alerts:severity)": {series("", labels) for labels in kept},
        "group by (cause) (alert:chutes_alerts:inhibited)": {f'{{cause="{one.cause}"}}' for one in INHIBITIONS},
    }
    queries = [
        {"expr": expression, "eval_time": "1m", "exp_samples": [{"labels": one, "value": 1} for one in found]}
        for expression, found in expected.items()
    ]
    test = {"interval": "1m", "input_series": given, "promql_expr_test": queries}
    path = tmp_path / "inhibited.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES / "recordings.yml")], "tests": [test]}))
    run("promtool", "test", "rules", str(path))
