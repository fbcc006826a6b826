"""`make stack`, run for real: what it starts works together, and ends together."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deploy.stack import main
from tests.prometheus.rule_files import RULES
from tests.support import PATIENCE, ROOT, fetch, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


def ask(address: str, path: str) -> Any:
    return json.loads(fetch(f"http://{address}{path}"))


@contextlib.contextmanager
def stack(directory: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run the stack; yields its process, and the addresses of the exporter, of Prometheus and of
    Alertmanager.
    """
    addresses = []
    flags = []
    for name in ("exporter", "prometheus", "alertmanager"):
        address = f"127.0.0.1:{free_port()}"
        addresses.append(address)
        flags.append(f"--{name}={address}")
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.stack", f"--directory={directory}", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, addresses
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


def test_the_stack_works_together_and_ends_together(tmp_path: Path) -> None:
    with stack(tmp_path) as (process, addresses):
        exporter, prometheus, alertmanager = addresses
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(4)]
        pages = re.findall(r"http://\S+/\S*", "".join(said))
        assert pages == [f"http://{exporter}/", f"http://{prometheus}/classic/alerts"]
        fetch(pages[1])
        assert str(tmp_path) in said[3]
        assert "Its hotkey file is" in process.stdout.readline()
        (command,) = re.findall(r"amtool .* alert", said[2])
        assert subprocess.check_output(command.split(), text=True).startswith("Alertname")
        (target,) = wait_for(lambda: ask(prometheus, "/api/v1/targets")["data"]["activeTargets"])
        assert target["labels"] == {"job": "chutes", "instance": exporter}
        found = wait_for(
            lambda: ask(prometheus, "/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
        )
        assert [one["url"] for one in found] == [f"http://{alertmanager}/api/v2/alerts"]
        config = ask(prometheus, "/api/v1/status/config")["data"]["yaml"]
        assert re.findall(r"^  (?:scrape|evaluation)_interval: (\S+)", config, re.MULTILINE)[
            :2
        ] == ["15s", "15s"]
        groups = ask(prometheus, "/api/v1/rules")["data"]["groups"]
        assert {Path(group["file"]).name for group in groups} == {
            path.name for path in RULES.iterdir()
        }
        # The stack has no Grafana that alerts could lead to.
        assert "grafana_url" not in config
        # Messages stay on this machine, and are printed.
        config = ask(alertmanager, "/api/v2/status")["config"]["original"]
        assert "telegram_api_url: http://127.0.0.1:" in config
        assert any("to the dead man's switch: Watchdog" in line for line in process.stdout)
    assert process.returncode == 0
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(address.partition(":")[2])))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("exporter", "`make demo`"),
        ("prometheus", "(sudo systemctl disable --now prometheus)"),
        ("alertmanager", "(sudo systemctl disable --now prometheus-alertmanager)"),
    ],
)
def test_an_address_that_somebody_has_is_refused_though_it_answers(
    tmp_path: Path, name: str, advice: str
) -> None:
    addresses = {one: free_port() for one in ("exporter", "prometheus", "alertmanager")}
    with socket.create_server(("127.0.0.1", 0)) as server:
        addresses[name] = server.getsockname()[1]
        flags = [f"--{one}=127.0.0.1:{port}" for one, port in addresses.items()]
        with pytest.raises(SystemExit) as error:
            main([f"--directory={tmp_path}", *flags])
    assert f'is taken: choose another with make stack ARGS="--{name} HOST:PORT"' in str(error.value)
    assert str(error.value).endswith(advice)
    assert ("systemctl" in str(error.value)) == (name != "exporter")
    assert list(tmp_path.iterdir()) == []
