"""README.md and docs/start.md for a host and for systemd: their commands work word for word in a new Debian."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator import DemoWorld, Simulator
from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY, PATIENCE, ROOT, RULES, fetch, parse_page, series, wait_for
from tests.test_cli import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.readme

START = (ROOT / "docs" / "start.md").read_text()
HOST = (ROOT / "README.md").read_text() + START.partition("\n## Container\n")[0]
SYSTEMD = START.partition("\n## systemd\n")[2]
DEBIAN = Path(os.environ.get("CHUTES_EXPORTER_TEST_ROOT", "/"))
"""The root of the new Debian, with the project in /root/chutes-exporter."""
PAGE = "http://127.0.0.1:10064/metrics"
PROMETHEUS = "http://127.0.0.1:9090"
PORTS = (10064, 10065, 9090, 9093)


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """Return the commands, each once. `make test` has a test of its own, and other ports change nothing."""
    lines = "".join(blocks(text, "sh")).replace("\\\n", "").splitlines()
    found = (re.sub(r"(^| +)#.*", "", line) for line in lines)
    return list(dict.fromkeys(line for line in found if line and line != "make test" and "ARGS=" not in line))


DEMO, STACK = "make demo", "make stack"
SUBNET = ".venv/bin/chutes-exporter"
MINER = next(
    command for command in commands(HOST) if command.startswith(f"{SUBNET} --web.listen-address 127.0.0.1:10064")
)
SERVERS = (DEMO, STACK, SUBNET, MINER)
"""The commands that run until Ctrl-C."""
UBUNTU = re.compile(r"python3-pip|\buv\b")
"""In the commands for Ubuntu 22.04. Debian's pip does not install for all users."""


def start(command: str, api: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a command as a user of the new Debian does, with an address of the API.

    Args:
        command: The command.
        api: Address of the API.
        log: The file for what it prints.
    """
    variables = {
        **environment(),
        "HOME": "/root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "VALIDATOR_API": api,
    }
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV", "VIRTUAL_ENV", "TMPDIR", "PYTHONPATH"):
        variables.pop(name, None)
    with log.open("wb") as file:
        return subprocess.Popen(
            ["chroot", str(DEBIAN), "/bin/sh", "-c", f"cd ~/chutes-exporter && {command}"],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def run(command: str, api: str, log: Path) -> str:
    """Run a command to its end, and return what it prints."""
    process = start(command, api, log)
    try:
        assert process.wait(timeout=PATIENCE) == 0, f"{command}: {log.read_text()}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return log.read_text()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def serving(command: str, api: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until Ctrl-C, which must end it with all its processes."""
    process = start(f"exec {command}", api, log)
    try:
        yield process
        # A terminal sends it to all processes of the command. make ends by the signal, too.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=PATIENCE) in (0, 2, -signal.SIGINT), log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=PATIENCE)
    assert "Traceback" not in log.read_text(), log.read_text()
    assert [port for port in PORTS if is_open(port)] == []


def follow(api: str, log: Path) -> None:
    """Follow the README up to the Prometheus of the stack."""
    with serving(DEMO, api, log) as process:
        wait_for(lambda: fetch("http://127.0.0.1:10064/-/ready"), process, log.read_text)
        assert parse_page(fetch(PAGE))[series("chutes_miner_watched", hotkey=HOTKEY)] == 1
        # The commands that the demo prints work from another terminal.
        wait_for(lambda: log.read_text().endswith(" check\n"), process, log.read_text)
        export, *lines = log.read_text().partition("These commands work in another terminal:\n")[2].splitlines()
        assert len(lines) == 5
        for line in lines:
            other = start(f"{export}; cd / && {line}", api, log.with_suffix(".other"))
            # status and advise find something to do.
            assert other.wait(timeout=PATIENCE) == (1 if re.search(" (status|advise)$", line) else 0), line
    with serving(STACK, api, log) as process:
        wait_for(lambda: fetch(f"{PROMETHEUS}/-/ready"), process, log.read_text)
        assert log.read_text().count("Installing prometheus prometheus-alertmanager\n") == 1
    # The second start installs nothing.
    with serving(STACK, api, log) as process:
        wait_for(lambda: fetch(f"{PROMETHEUS}/-/ready"), process, log.read_text)
        assert "Installing" not in log.read_text()
        assert "Setting up" not in log.read_text()


def follow_without_a_demo(api: str, log: Path) -> None:
    """Follow the rest of the README, with a simulated API."""
    wallet = DEBIAN / "root/.bittensor/wallets/WALLET/hotkeys"
    wallet.mkdir(parents=True)
    (wallet / "HOTKEY").write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    (wallet / "HOTKEY").chmod(0o600)
    for command in commands(HOST):
        if command in (DEMO, STACK):
            continue
        if command not in SERVERS:
            said = run(command, api, log)
            assert "check" not in command or "All checks passed." in said
            continue
        with serving(command, api, log) as process:
            page = parse_page(wait_for(lambda: fetch(PAGE), process, log.read_text))
            assert (series("chutes_miner_watched", hotkey=HOTKEY) in page) == (command == MINER)
    # The lines for Prometheus are valid, with the rules where the document copies them.
    run("cp -r prometheus/rules /etc/prometheus/", api, log)
    (config,) = blocks(HOST, "yaml")
    (DEBIAN / "etc/prometheus/prometheus.yml").write_text(config)
    said = run("promtool check config /etc/prometheus/prometheus.yml", api, log)
    assert len(re.findall("SUCCESS: [1-9][0-9]* rules found", said)) == len(list(RULES.glob("*.yml")))


def follow_systemd(api: str, log: Path) -> None:
    """Follow the part about systemd, without a systemd that runs. A machine with systemd also has these packages."""
    run("apt-get install --yes systemd sudo", api, log)
    editor = DEBIAN / "usr/local/bin/editor"
    editor.write_text(f'#!/bin/sh\nprintf "MINER_SS58={HOTKEY}\\nMINER_SEED={TEST_SEED}\\n" >>"$1"\n')
    editor.chmod(0o755)
    for command in commands(SYSTEMD):
        if "systemd-run" not in command and not UBUNTU.search(command):
            run(command.replace(" --now", ""), api, log)
    units = DEBIAN / "etc/systemd/system"
    assert (units / "multi-user.target.wants/chutes-exporter.service").is_symlink()
    unit = (units / "chutes-exporter.service").read_text()
    (user, file, program) = (
        re.findall(rf"^{name}=-?(.+)$", unit, re.MULTILINE)[0] for name in ("User", "EnvironmentFile", "ExecStart")
    )
    rights = f"setpriv --reuid={user} --regid={user} --clear-groups"
    with serving(f"{rights} env $(grep -v '^#' {file}) {program}", api, log) as process:
        page = parse_page(wait_for(lambda: fetch(PAGE), process, log.read_text))
        assert page[series("chutes_miner_watched", hotkey=HOTKEY)] == 1


async def test_the_readme_works_word_for_word_in_a_debian_with_only_python_git_and_make(tmp_path: Path) -> None:
    assert [command for command in SERVERS if command not in commands(HOST)] == []
    assert [port for port in PORTS if is_open(port)] == [], "end what listens there: the README uses these ports"
    log = tmp_path / "log"
    async with Simulator(DemoWorld(start=time.time())) as simulator:
        await asyncio.to_thread(follow, simulator.url, log)
        await asyncio.to_thread(follow_without_a_demo, simulator.url, log)
        await asyncio.to_thread(follow_systemd, simulator.url, log)
