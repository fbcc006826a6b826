from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import httpx
import pytest

from chutes_exporter.config import ConfigError
from chutes_exporter.web import systemd
from chutes_exporter.web.systemd import Notifier, take_sockets
from tests.support import PATIENCE, ROOT, wait_for
from tests.test_cli import COMMAND, environment

if TYPE_CHECKING:
    from pathlib import Path

UNITS = ROOT / "deploy" / "systemd"


def heard(told: socket.socket) -> str:
    return told.recv(4096).decode()


def test_the_abstract_namespace_is_meant_by_an_at_sign_and_a_missing_socket_is_ignored(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0chutes-exporter-test")
        Notifier({"NOTIFY_SOCKET": "@chutes-exporter-test"}).stopping()
        assert heard(listening) == "STOPPING=1"
    for variables in ({}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        Notifier(variables).ready("listening")


async def test_the_watchdog_is_notified_twice_per_period(told: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        assert seconds == 0.5
        assert told.recv(100) == b"WATCHDOG=1"
        naps.append(seconds)
        if len(naps) == 3:
            raise asyncio.CancelledError

    naps: list[float] = []
    monkeypatch.setattr(systemd, "asyncio", SimpleNamespace(sleep=sleep))
    with pytest.raises(asyncio.CancelledError):
        await Notifier({"NOTIFY_SOCKET": told.getsockname(), "WATCHDOG_USEC": "1000000"}).keep_alive()


@pytest.mark.parametrize(
    "variables", [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}]
)
async def test_without_a_watchdog_no_notification_is_sent(told: socket.socket, variables: dict[str, str]) -> None:
    await asyncio.wait_for(Notifier({"NOTIFY_SOCKET": told.getsockname(), **variables}).keep_alive(), PATIENCE)
    told.setblocking(False)  # noqa: FBT003 - takes it by position only
    with pytest.raises(BlockingIOError):
        told.recv(100)


@pytest.mark.parametrize(("pid", "count"), [("", ""), ("1", "1"), ("own", "0"), ("own", "many")])
def test_sockets_of_another_process_are_not_taken(pid: str, count: str) -> None:
    with pytest.raises(ConfigError, match="systemd passed no socket"):
        take_sockets({"LISTEN_PID": pid.replace("own", str(os.getpid())), "LISTEN_FDS": count})


_TAKING = """
import os, socket, sys
from chutes_exporter.web import systemd
opened = socket.socket(socket.AF_UNIX, getattr(socket, sys.argv[1]))
if sys.argv[1] == "SOCK_SEQPACKET":
    opened.bind("")
    opened.listen()
os.dup2(opened.detach(), 3)
try:
    systemd.take_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
except ValueError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_STREAM", "SOCK_SEQPACKET"])
def test_a_socket_that_is_no_listening_stream_is_refused(kind: str) -> None:
    result = subprocess.run([sys.executable, "-c", _TAKING, kind], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "a socket that does not listen. Use ListenStream= in the socket unit" in result.stderr


def test_it_serves_on_a_socket_that_systemd_has_opened_and_notifies_it_of_start_reload_and_stop(
    told: socket.socket, tmp_path: Path
) -> None:
    path = tmp_path / "exporter.sock"
    variables = environment(NOTIFY_SOCKET=str(told.getsockname()))
    process = subprocess.Popen(
        [
            "systemd-socket-activate",
            f"--listen={path}",
            *(f"--setenv={name}={value}" for name, value in variables.items()),
            COMMAND,
            "--web.systemd-socket",
            *("--api.url", "http://127.0.0.1:9"),
        ],
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path), retries=20), timeout=PATIENCE) as client:
            wait_for(path.exists)
            assert client.get("http://exporter/-/healthy").status_code == 200
        assert heard(told) == f"READY=1\nSTATUS=listening on unix:{path}"
        (reload,) = re.findall("^ExecReload=(.+)$", (UNITS / "chutes-exporter.service").read_text(), re.MULTILINE)
        subprocess.run(shlex.split(reload.replace("$MAINPID", str(process.pid))), check=True)
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", heard(told))
        assert heard(told) == "READY=1\nSTATUS=configuration reloaded"
        process.send_signal(signal.SIGTERM)
        assert heard(told) == "STOPPING=1"
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        process.communicate()


def test_the_units_are_valid(tmp_path: Path) -> None:
    units = [tmp_path / name for name in ("chutes-exporter.service", "chutes-exporter.socket")]
    for unit in units:
        # The program is somewhere else here.
        unit.write_text((UNITS / unit.name).read_text().replace("/usr/local/bin/chutes-exporter", COMMAND))
    command = ["systemd-analyze", "verify", "--man=no", *map(str, units)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_the_service_has_every_restriction_but_those_that_it_cannot_work_with() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--json=short"]
    unit = str(UNITS / "chutes-exporter.service")
    result = subprocess.run([*command, unit], capture_output=True, text=True, check=True)
    assert {check["name"] for check in json.loads(result.stdout) if check["set"] is not True} == {
        # It talks to the API and to Prometheus, whose addresses it does not know, and to systemd.
        "PrivateNetwork=",
        "IPAddressDeny=",
        "RestrictAddressFamilies=~AF_(INET|INET6)",
        "RestrictAddressFamilies=~AF_UNIX",
        # Its Python is the machine's, and its metrics about the process come from /proc.
        "RootDirectory=/RootImage=",
        "ProcSubset=",
        # ProtectClock= lets it read the real-time clock.
        "DeviceAllow=",
    }


def test_the_memory_of_the_service_is_limited() -> None:
    lines = (UNITS / "chutes-exporter.service").read_text().splitlines()
    assert {"Environment=MALLOC_ARENA_MAX=2", "MemoryMax=512M"} <= set(lines)


def test_the_user_of_the_unit_can_be_made(tmp_path: Path) -> None:
    (user,) = re.findall(r"^User=(.+)$", (UNITS / "chutes-exporter.service").read_text(), re.MULTILINE)
    (tmp_path / "etc").mkdir()
    command = ["systemd-sysusers", f"--root={tmp_path}", str(UNITS / "chutes-exporter.sysusers.conf")]
    subprocess.run(command, check=True, capture_output=True)
    names = [line.split(":")[0] for line in (tmp_path / "etc" / "passwd").read_text().splitlines()]
    assert user in names


def test_the_environment_file_sets_only_an_address_that_nobody_else_reaches_and_names_real_settings() -> None:
    text = (UNITS / "environment").read_text()
    settings = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert settings == ["CHUTES_EXPORTER_WEB_LISTEN_ADDRESS=127.0.0.1:10064"]
    result = subprocess.run([COMMAND, "serve", "--help"], capture_output=True, text=True, check=True)
    for name in re.findall(r"^#?([A-Z][A-Z0-9_]+)=", text, re.MULTILINE):
        assert name in re.sub(r"\s+", " ", result.stdout) or name == "MINER_SS58", name
