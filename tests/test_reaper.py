"""No process that a test started outlives pytest, however pytest ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.test_cli import environment

FAILS = """
import os, pathlib, signal
from tests.support import Prometheus
from tests.test_cli import LISTEN, running

def test_that_does_not_pass(tmp_path):
    with running(*LISTEN, "--api.url", "http://127.0.0.1:9") as (url, _):
        with Prometheus(tmp_path, [url.removeprefix("http://")]):
            pathlib.Path(os.environ["REACHED"]).touch()
            WHAT_HAPPENS
"""
LEAKS = """
import subprocess, sys
from pathlib import Path
from tests.support import Prometheus

LEFT = []

def test_that_forgets_its_programs(tmp_path):
    command = str(Path(sys.executable).parent / "chutes-exporter")
    LEFT.append(subprocess.Popen([command, "--web.listen-address=127.0.0.1:0"], start_new_session=True))
    LEFT.append(Prometheus(tmp_path, ["127.0.0.1:9"]).__enter__())
"""


class Inner:
    """pytest in a process of its own, on one file.

    Args:
        directory: For the file.
        text: The tests.
        options: pytest's.
    """

    def __init__(self, directory: Path, text: str, *options: str) -> None:
        (directory / "test_inner.py").write_text(text)
        self.reached = directory / "reached"
        self._mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-p", "tests.conftest", f"--config-file={ROOT / 'pyproject.toml'}"),
                *("-p", "no:cacheprovider", f"--basetemp={directory / 'temp'}", *options, str(directory)),
            ],
            cwd=ROOT,
            env=environment(REACHED=str(self.reached), MARK=self._mark, PYTEST_ADDOPTS=""),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def programs(self) -> list[str]:
        """Return the commands of all processes that it has started, itself included."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"MARK={self._mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def wait(self) -> tuple[int, str]:
        """Return the exit status and the output."""
        output, _ = self.process.communicate(timeout=120)
        return self.process.returncode, output


def test_a_test_that_fails_leaves_no_process(tmp_path: Path) -> None:
    inner = Inner(tmp_path, FAILS.replace("WHAT_HAPPENS", "raise ZeroDivisionError"))
    status, output = inner.wait()
    assert (status, "ZeroDivisionError" in output) == (1, True)
    assert inner.reached.exists()
    assert "left behind" not in output
    assert inner.programs() == []


def test_a_test_that_leaves_processes_fails_the_session_and_is_named(tmp_path: Path) -> None:
    inner = Inner(tmp_path, LEAKS)
    status, output = inner.wait()
    assert "1 passed" in output
    left = [line for line in output.splitlines() if line.startswith("left behind: ")]
    assert ["chutes-exporter" in line for line in sorted(left)] == [True, False]
    assert all("test_inner.py::test_that_forgets_its_programs" in line for line in left)
    assert status == 1
    assert inner.programs() == []


@pytest.mark.parametrize("options", [(), ("--numprocesses=1",)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pytest_leaves_no_process_when_it_is_interrupted(
    tmp_path: Path, options: tuple[str, ...], number: signal.Signals
) -> None:
    inner = Inner(tmp_path, FAILS.replace("WHAT_HAPPENS", "signal.pause()"), *options)
    deadline = time.monotonic() + 120
    while not inner.reached.exists():
        assert inner.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running = " ".join(inner.programs())
    assert ["chutes-exporter" in running, "prometheus" in running] == [True, True]
    inner.process.send_signal(number)
    status, _ = inner.wait()
    assert status != 0
    assert inner.programs() == []


def test_pytest_leaves_no_process_when_it_is_killed(tmp_path: Path) -> None:
    inner = Inner(tmp_path, FAILS.replace("WHAT_HAPPENS", "os.kill(os.getpid(), signal.SIGKILL)"))
    status, _ = inner.wait()
    assert status == 128 + signal.SIGKILL
    assert inner.programs() == []
