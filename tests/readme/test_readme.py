"""README.md and docs/start.md, by hand and with systemd: their commands work word for word in a new
Debian.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pages import parse_page, series
from tests.program import environment
from tests.prometheus.rule_files import RULES
from tests.replay import Replay
from tests.support import HOTKEY, PATIENCE, ROOT, TEST_SEED, fetch, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.readme

README = (ROOT / "README.md").read_text()
START = (ROOT / "docs" / "start.md").read_text()
DEBIAN = Path(os.environ.get("CHUTES_EXPORTER_TEST_ROOT", "/"))
"""The root of the new Debian, with the project in /root/chutes-exporter."""
PAGE = "http://127.0.0.1:10064/metrics"
PROMETHEUS = "http://127.0.0.1:9090"
PORTS = (10064, 10065, 9090, 9093)


def section(title: str) -> str:
    """Return a section of docs/start.md."""
    return START.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def commands(text: str) -> list[str]:
    """Return the commands of a text, without their comments."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        # A backslash joins two lines.
        lines = block.replace("\\\n", "").splitlines()
        found += [re.sub(r" +#.*", "", line) for line in lines]
    return found


def start(command: str, api: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a command as a user of the new Debian does, with an address of the API and a file for
    what it prints.
    """
    command = command.replace("https://entrypoint-finney.opentensor.ai", f"{api}/chain")
    variables = {
        **environment(),
        "HOME": "/root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "VALIDATOR_API": api,
    }
    # These are of the test run, which make may have started. A new user has none of them.
    of_make = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "VENV")
    for name in (*of_make, "VIRTUAL_ENV", "TMPDIR", "PYTHONPATH"):
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


def serve_the_demo(command: str, api: str, log: Path) -> None:
    with serving(command, api, log) as process:
        wait_for(lambda: fetch("http://127.0.0.1:10064/-/ready"), process, log.read_text)
        assert parse_page(fetch(PAGE))[series("chutes_miner_watched", hotkey=HOTKEY)] == 1


def follow_the_readme(api: str, log: Path) -> None:
    """Run the demo, by make and by pip, and the stack."""
    stack, demo, *by_pip, demo_by_pip = commands(README)
    serve_the_demo(demo, api, log)
    # make has installed python3-venv, which the README names.
    for command in ("rm -r .venv", *by_pip):
        run(command, api, log)
    serve_the_demo(demo_by_pip, api, log)
    # The second start installs nothing.
    for installations in (1, 0):
        with serving(stack, api, log) as process:
            wait_for(lambda: fetch(f"{PROMETHEUS}/-/ready"), process, log.read_text)
            text = log.read_text()
            note = "Installing prometheus prometheus-alertmanager\n"
            assert text.count(note) == installations


def follow_by_hand(api: str, log: Path) -> None:
    """Watch a miner of a simulated API, and add its page to Debian's Prometheus."""
    wallet = DEBIAN / "root/.bittensor/wallets/WALLET/hotkeys"
    wallet.mkdir(parents=True)
    (wallet / "HOTKEY").write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    (wallet / "HOTKEY").chmod(0o600)
    install, check, serve = commands(section("By hand"))
    run(install, api, log)
    assert "All checks of the API and of the settings passed." in run(check, api, log)
    with serving(serve, api, log) as process:
        page = parse_page(wait_for(lambda: fetch(PAGE), process, log.read_text))
        assert page[series("chutes_miner_watched", hotkey=HOTKEY)] == 1
    # A machine with Grafana has its folder. Nothing reloads without systemd.
    (DEBIAN / "etc/grafana/provisioning/dashboards").mkdir(parents=True)
    text = section("Prometheus and Grafana")
    (config,) = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (DEBIAN / "etc/prometheus/prometheus.yml").write_text(config)
    printed = ""
    for command in commands(text):
        if "systemctl" not in command:
            printed += run(command, api, log)
    checked_files = re.findall("SUCCESS: [1-9][0-9]* rules found", printed)
    assert len(checked_files) == len(list(RULES.glob("*.yml")))


def follow_systemd(api: str, log: Path) -> None:
    """Follow the part about systemd, without a systemd that runs."""
    # The document opens the file of settings in an editor. This one adds the key to the file.
    editor = DEBIAN / "usr/local/bin/editor"
    editor.write_text(
        f'#!/bin/sh\nprintf "MINER_SS58={HOTKEY}\\nMINER_SEED={TEST_SEED}\\n" >>"$1"\n'
    )
    editor.chmod(0o755)
    for command in commands(section("systemd")):
        if "systemd-run" not in command:
            run(command.replace(" --now", ""), api, log)
    units = DEBIAN / "etc/systemd/system"
    assert (units / "multi-user.target.wants/chutes-exporter.service").is_symlink()
    unit = (units / "chutes-exporter.service").read_text()
    settings = dict(re.findall(r"^(\w+)=-?(.+)$", unit, re.MULTILINE))
    user, file, program = (settings[name] for name in ("User", "EnvironmentFile", "ExecStart"))
    # What systemd would do with these settings of the unit: become the user, read the variables.
    rights = f"setpriv --reuid={user} --regid={user} --clear-groups"
    with serving(f"{rights} env $(grep -v '^#' {file}) {program}", api, log) as process:
        page = parse_page(wait_for(lambda: fetch(PAGE), process, log.read_text))
        assert page[series("chutes_miner_watched", hotkey=HOTKEY)] == 1


async def test_the_documents_work_word_for_word_in_a_debian_with_only_python_git_and_make(
    tmp_path: Path,
) -> None:
    assert [port for port in PORTS if is_open(port)] == [], (
        "end what listens there: the documents use these ports"
    )
    log = tmp_path / "log"
    async with Replay() as replay:
        await asyncio.to_thread(follow_the_readme, replay.url, log)
        # A machine with systemd has these packages.
        await asyncio.to_thread(run, "apt-get install --yes systemd sudo", replay.url, log)
        await asyncio.to_thread(follow_by_hand, replay.url, log)
        await asyncio.to_thread(follow_systemd, replay.url, log)
