"""Runs the program chutes-exporter: in the process of a test, or as one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.cli import main
from tests.support import HOTKEY, PATIENCE, TEST_SEED

if TYPE_CHECKING:
    from collections.abc import Iterator


COMMAND = str(Path(sys.executable).parent / "chutes-exporter")
LISTEN = ("--web.listen-address", "127.0.0.1:0")


def environment(**variables: str) -> dict[str, str]:
    """Return this environment without what the exporter reads, and with the given variables."""
    # The workers of pytest-xdist have COLUMNS.
    ours = ("CHUTES_EXPORTER_", "MINER_", "HOTKEY", "VALIDATOR_API", "COLUMNS")
    others = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return others | variables


def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process, which takes less time than a new one."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        patch.setattr(os, "environ", environment(**variables))
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as end:
            main(arguments)
    output.seek(0)
    errors.seek(0)
    status = int(end.value.code or 0)
    return subprocess.CompletedProcess(arguments, status, output.read(), errors.read())


@dataclass
class Running:
    """A process of the command that serves, its address, and the lines that it has logged."""

    process: subprocess.Popen[str]
    url: str
    lines: list[str]

    def has_logged(self, words: str, times: int = 1) -> bool:
        """Return whether so many lines have the words."""
        return sum(words in line for line in self.lines) >= times

    def peak_megabytes(self) -> float:
        """Return the most memory that the process has had."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        fields = dict(line.split(":\t") for line in lines)
        return int(fields["VmHWM"].removesuffix(" kB")) / 1024

    def seconds_without_cpu(self) -> float:
        """Return for how long the event loop could not run because other programs had the
        processors.

        It is a lower bound: while another thread of this process ran, the loop may have waited for
        that thread.
        """
        loop_waited = others_ran = 0
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            # The nanoseconds in which it ran, and in which it waited for a processor.
            ran, waited, _ = map(int, (thread / "schedstat").read_text().split())
            # The event loop is the first thread, which has the id of the process.
            if thread.name == str(self.process.pid):
                loop_waited = waited
            else:
                others_ran += ran
        return (loop_waited - others_ran) / 1e9


def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start the command."""
    return subprocess.Popen(
        [COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(CHUTES_EXPORTER_API_TIMEOUT=str(PATIENCE)) | variables,
    )


@contextlib.contextmanager
def listening(process: subprocess.Popen[str]) -> Iterator[Running]:
    """Wait until a process listens, and let it end cleanly."""
    assert process.stderr is not None
    errors = process.stderr
    lines: list[str] = []
    listens = None
    try:
        while listens is None:
            line = errors.readline()
            assert line, f"it ended with {process.wait()}: {lines}"
            lines.append(line)
            # addresses=127.0.0.1:1234, or "addresses": "127.0.0.1:1234" if the log is JSON.
            listens = re.search(r'addresses(?:=|": ")([\w.:]+)', line)
        reading = threading.Thread(target=lambda: lines.extend(errors))
        reading.start()
        yield Running(process, f"http://{listens[1]}", lines)
        process.terminate()
        assert process.wait(PATIENCE) == 0
        reading.join()
    finally:
        process.kill()
        process.communicate()


def running(*arguments: str, **variables: str) -> contextlib.AbstractContextManager[Running]:
    """Start the command, wait until it listens, and let it end cleanly."""
    return listening(start(*arguments, **variables))


def hotkey_file(path: Path) -> str:
    """Write the test key into a hotkey file that others can read, and return its path."""
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    path.chmod(0o644)
    return str(path)
