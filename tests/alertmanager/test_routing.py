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
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from chutes_exporter.commands.serve import Service
from chutes_exporter.simulator import Fault, Simulator, Size
from tests.prometheus.test_alerts import ALERTS, CASES
from tests.simulator.odd import OddWorld
from tests.support import HOTKEY, RULES, Prometheus, fast_rules, free_port, served, until, watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request

ROUTING = Path(__file__).parents[2] / "alertmanager" / "alertmanager.yml"
RECEIVERS = {"critical": "wake", "warning": "day", "info": "digest"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_routing_is_what_alertmanager_takes() -> None:
    result = run("amtool", "check-config", str(ROUTING))
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_routing_has_none_of_the_known_mistakes() -> None:
    amlint = str(Path(sys.executable).parent / "amlint")
    result = run(amlint, "check", "--strict", "--rules", str(RULES / "alerts.yml"), str(ROUTING))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_reaches_whom_its_severity_says(name: str) -> None:
    severity = ALERTS[name]["labels"]["severity"]
    labels = [f"{key}={value}" for key, value in {**CASES[name].labels, "severity": severity}.items()]
    verified = f"--verify.receivers={RECEIVERS[severity]}"
    result = run(
        "amtool", "config", "routes", "test", f"--config.file={ROUTING}", verified, f"alertname={name}", *labels
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
def alertmanager(directory: Path, receivers: str) -> Iterator[str]:
    """Run Debian's Alertmanager with the example, its times shortened; yields its address."""
    directory.mkdir()
    text = ROUTING.read_text().replace("http://localhost:8080", receivers)
    # The same tree, without the waiting.
    text = re.sub(r"(group_wait|group_interval): \w+", r"\1: 1s", text)
    (directory / "alertmanager.yml").write_text(text)
    address = f"127.0.0.1:{free_port()}"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [  # noqa: S607 - Debian's, from the path
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
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://{address}/-/ready").status_code == httpx.codes.OK:
                    break
            assert time.monotonic() < deadline, (directory / "log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A simulator whose time is the real one."""
    async with Simulator(OddWorld(start=time.time(), size=Size(miners=6, active_miners=3, chutes=10))) as running:
        yield running


async def test_what_goes_wrong_reaches_the_right_ones_and_what_follows_from_it_is_quiet(
    simulator: Simulator, tmp_path: Path
) -> None:
    receivers = Receivers()
    settings = watching(simulator.url, listen=["127.0.0.1:0"], ttl=["servers=0", "nodes=0", "stats=0"])
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
            # This miner has servers without GPUs, and others with one name, from the start.
            await until(lambda: "ChutesServerWithoutGpus" in receivers.names("day"))
            told = next(a for a in receivers.got["day"] if a["labels"]["alertname"] == "ChutesServerWithoutGpus")
            assert told["labels"]["hotkey"] == HOTKEY
            empty = next(server for server in simulator.world.miners[0].servers if not server.gpus)
            assert told["annotations"]["summary"] == f"The server {empty.name} has no GPU"
            assert "ChutesExporterDown" not in receivers.names("wake")
            # A signature that is refused wakes somebody, and is resolved when it is accepted again.
            simulator.faults["servers"] = Fault(status=401, body=b'{"detail": "Invalid signature"}')
            await until(lambda: "ChutesSignatureRefused" in receivers.names("wake"))
            simulator.faults.clear()
            await until(
                lambda: any(
                    one["status"] == "resolved" and one["labels"]["alertname"] == "ChutesSignatureRefused"
                    for one in receivers.got["wake"]
                )
            )
            await running.aclose()
            await until(lambda: "ChutesExporterDown" in receivers.names("wake"))


A, B = {"job": "chutes", "instance": "a:10064"}, {"job": "chutes", "instance": "b:10064"}
MINER = {"hotkey": HOTKEY}


@pytest.mark.parametrize(
    ("causes", "quiet", "loud"),
    [
        (
            [("ChutesExporterDown", A)],
            [
                ("ChutesGpusIdle", {**A, **MINER}),
                ("ChutesDataStale", A),
                ("ChutesApiDown", A),
            ],
            [("ChutesExporterDown", A), ("ChutesGpusIdle", {**B, **MINER})],
        ),
        (
            [("ChutesApiDown", A)],
            [("ChutesDataStale", A), ("ChutesFeedDown", {**A, **MINER})],
            [("ChutesGpusIdle", {**A, **MINER}), ("ChutesDataStale", B)],
        ),
        (
            # A clock that is a little off does not explain a refused signature.
            [("ChutesClockOff", A), ("ChutesMinerBlacklisted", {**A, **MINER})],
            [("ChutesMinerEarnsNothing", {**A, **MINER})],
            [("ChutesSignatureRefused", {**A, **MINER})],
        ),
        (
            [("ChutesDataStale", {**A, **MINER, "feed": "nodes"})],
            [("ChutesFeedDown", {**A, **MINER, "feed": "nodes"})],
            [
                ("ChutesFeedDown", {**A, **MINER, "feed": "servers"}),
                ("ChutesFeedDown", {**B, **MINER, "feed": "nodes"}),
            ],
        ),
        (
            [("ChutesMinerDeregistered", {**A, **MINER})],
            [
                ("ChutesScoreDropping", {**A, **MINER}),
                ("ChutesMinerEarnsNothing", {**B, **MINER}),
                ("ChutesSignatureRefused", {**A, **MINER}),
            ],
            [("ChutesScoreDropping", {**A, "hotkey": "5Other"}), ("ChutesGpusIdle", {**A, **MINER})],
        ),
    ],
)
def test_what_explains_others_keeps_them_quiet_and_no_more(
    tmp_path: Path,
    causes: list[tuple[str, dict[str, str]]],
    quiet: list[tuple[str, dict[str, str]]],
    loud: list[tuple[str, dict[str, str]]],
) -> None:
    def labelled(alert: tuple[str, dict[str, str]]) -> dict[str, str]:
        name, labels = alert
        return {"alertname": name, "severity": ALERTS[name]["labels"]["severity"], **labels}

    def identity(labels: dict[str, str]) -> frozenset[tuple[str, str]]:
        return frozenset(labels.items())

    everything = [labelled(alert) for alert in (*causes, *quiet, *loud)]
    with alertmanager(tmp_path / "alertmanager", "http://127.0.0.1:9") as address:
        url = f"http://{address}/api/v2/alerts"
        assert httpx.post(url, json=[{"labels": labels} for labels in everything]).status_code == httpx.codes.OK
        expected = {identity(labelled(alert)) for alert in quiet}
        # Inhibition is worked out for all alerts when they are grouped for sending.
        deadline = time.monotonic() + 60
        while True:
            alerts = httpx.get(url).json()
            suppressed = {identity(one["labels"]) for one in alerts if one["status"]["inhibitedBy"]}
            if suppressed >= expected or time.monotonic() > deadline:
                break
            time.sleep(0.2)
    assert suppressed == expected
    assert {identity(one["labels"]) for one in alerts} == {identity(labels) for labels in everything}
