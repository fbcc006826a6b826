from __future__ import annotations

import asyncio
import os
import subprocess
import time
from typing import TYPE_CHECKING, BinaryIO

import pytest

from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY
from tests.test_cli import COMMAND, environment, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from chutes_exporter.simulator import Simulator

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def clock() -> Callable[[], float]:
    """The machine's own clock: the command sees it too."""
    return time.time


def variables(url: str, **others: str) -> dict[str, str]:
    return environment(MINER_SEED=TEST_SEED, MINER_SS58=HOTKEY, CHUTES_EXPORTER_API_URL=url, **others)


async def ended(
    url: str, *arguments: str, stdout: int | BinaryIO = subprocess.PIPE, **others: str
) -> tuple[int | None, bytes, str]:
    """Run the command; returns its exit status, its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        COMMAND, *arguments, stdout=stdout, stderr=subprocess.PIPE, env=variables(url, **others)
    )
    output, errors = await process.communicate()
    return process.returncode, output or b"", errors.decode()


@pytest.mark.parametrize("arguments", [("--help",), ("status",), ("query", "metagraph", "--json")], ids=" ".join)
async def test_a_pipe_that_nobody_reads_ends_the_command_quietly(
    simulator: Simulator, arguments: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        status, _, errors = await ended(simulator.url, *arguments, stdout=pipe)
    assert (status, errors) == (1, "")


async def test_openmetrics_is_utf_8_whatever_the_encoding_of_the_terminal(simulator: Simulator) -> None:
    arguments = ("backfill", "--output", "-", "--label", "job=→")
    status, output, _ = await ended(simulator.url, *arguments, PYTHONIOENCODING="latin-1", PYTHONUTF8="1")
    assert status == 0
    assert 'job="→"' in output.decode()


def on_a_terminal(*arguments: str, **others: str) -> str:
    """Return what the command prints on a terminal."""
    terminal, screen = os.openpty()
    process = subprocess.Popen(
        [COMMAND, *arguments],
        stdout=screen,
        stderr=subprocess.DEVNULL,
        env={**variables(NOWHERE), "TERM": "xterm", **others},
    )
    os.close(screen)
    shown = b""
    try:
        while True:
            shown += os.read(terminal, 65536)
    except OSError:
        # The other end is closed.
        return shown.decode()
    finally:
        os.close(terminal)
        process.wait(timeout=60)


@pytest.mark.parametrize("command", ["status", "advise", "check"])
def test_a_terminal_gets_no_styles_where_they_are_not_wanted(command: str) -> None:
    assert "\x1b[" in on_a_terminal(command, NO_COLOR="")
    assert "\x1b" not in on_a_terminal(command, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(command, TERM="dumb", NO_COLOR="")


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (("query", "chute", "--chute-id", "\udcff"), "--chute-id"),
        (("backfill", "--output", "-", "--label", "job=chutes", "--label", "a=\udcff"), "--label"),
        (("--api.url", "http://\udcff"), "--api.url"),
        (("release-job", "\udcff"), "[JOB_ID]"),
    ],
)
def test_a_word_that_is_not_text_is_refused(arguments: tuple[str, ...], flag: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"Error: Invalid value for '{flag}'")
    assert ": it has bytes that are not UTF-8 (see chutes-exporter" in result.stderr


def test_a_path_may_have_any_bytes() -> None:
    assert "cannot read the hotkey file /nowhere/" in run("status", "--hotkey-file", "/nowhere/\udcff").stderr
