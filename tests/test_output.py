from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest

from chutes_exporter import output
from chutes_exporter.simulator.world import TEST_SEED
from tests.commands.support import run as run_here
from tests.support import HOTKEY, until
from tests.test_cli import COMMAND, LISTEN, environment, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from chutes_exporter.simulator import Simulator

COMMANDS = (
    ("check",),
    ("status",),
    ("advise",),
    ("query", "metagraph"),
    ("query", "metagraph", "--json"),
    ("backfill", "--output", "-"),
)
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def clock() -> Callable[[], float]:
    """The machine's own clock: the command sees it too."""
    return time.time


def variables(url: str, **others: str) -> dict[str, str]:
    return environment(MINER_SEED=TEST_SEED, MINER_SS58=HOTKEY, CHUTES_EXPORTER_API_URL=url, **others)


async def ended(
    url: str, *arguments: str, redirection: str = "", stdout: int | BinaryIO = subprocess.PIPE, **others: str
) -> tuple[int | None, bytes, str]:
    """Run the command in a shell; returns its exit status, its output and its errors."""
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        f'exec "$0" "$@" {redirection}',
        COMMAND,
        *arguments,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=variables(url, **others),
    )
    output, errors = await process.communicate()
    return process.returncode, output or b"", errors.decode()


@pytest.mark.parametrize(
    ("redirection", "reason"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("status", "--help"), *COMMANDS], ids=" ".join)
async def test_output_that_cannot_be_written_is_one_line_and_the_exit_status_is_4(
    simulator: Simulator, arguments: tuple[str, ...], redirection: str, reason: str
) -> None:
    status, _, errors = await ended(simulator.url, *arguments, redirection=redirection)
    assert (status, errors) == (4, f"Error: cannot write to the standard output: {reason}\n")


async def test_a_demo_that_cannot_print_its_address_ends_with_the_reason() -> None:
    listen = ("--simulator.listen-address", "127.0.0.1:0", *LISTEN)
    status, _, errors = await ended(NOWHERE, "demo", *listen, redirection=">/dev/full")
    assert status == 4
    assert errors.endswith("\nError: cannot write to the standard output: No space left on device\n")
    assert "Traceback" not in errors


@pytest.mark.parametrize("arguments", [("--help",), *COMMANDS], ids=" ".join)
async def test_a_pipe_that_nobody_reads_ends_the_command_quietly(
    simulator: Simulator, arguments: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        status, _, errors = await ended(simulator.url, *arguments, stdout=pipe)
    assert (status, errors) == (141, "")


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
async def test_an_error_that_cannot_be_written_changes_neither_output_nor_exit_status(
    simulator: Simulator, redirection: str
) -> None:
    status, output, _ = await ended(simulator.url, "query", "metagraph", "--json", redirection=redirection)
    assert (status, len(json.loads(output))) == (0, 1)
    status, output, _ = await ended(simulator.url, "status", "--alpha.price", "much", redirection=redirection)
    assert (status, output) == (2, b"")
    status, output, _ = await ended(simulator.url, "query", "scores", redirection=redirection)
    assert status == 0
    assert HOTKEY.encode() in output


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
async def test_an_interrupted_command_ends_with_130(arguments: tuple[str, ...]) -> None:
    connected = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            *arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=variables(f"http://127.0.0.1:{port}"),
        )
        await connected.wait()
        process.send_signal(signal.SIGINT)
        output, errors = await process.communicate()
    assert (process.returncode, output, errors) == (130, b"", b"")


@pytest.mark.parametrize("command", ["status", "advise", "check"])
async def test_a_bug_ends_a_command_with_a_traceback_and_70(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    async def broken(*_: object) -> int:
        raise RuntimeError("as an example")

    monkeypatch.setattr(f"chutes_exporter.commands.{command}.run_{command}", broken)
    code, written, errors = await run_here(simulator, command)
    assert (code, written) == (70, "")
    assert errors.startswith("Traceback")
    assert errors.endswith("RuntimeError: as an example\n")


async def test_an_interrupted_question_ends_with_130() -> None:
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *("release-job", "abc"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=variables(NOWHERE),
    )
    assert process.stdout is not None
    question = await process.stdout.readuntil(b"? [y/N]: ")
    assert HOTKEY.encode() in question
    # Between the question and the wait for the answer, Python would notice the signal only after the answer.
    state = Path(f"/proc/{process.pid}/stat")
    await until(lambda: state.read_text().rpartition(") ")[2].startswith("S"))
    process.send_signal(signal.SIGINT)
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, output, errors) == (130, b"", b"\n")


@pytest.mark.parametrize("arguments", COMMANDS[:3], ids=" ".join)
async def test_a_character_that_the_encoding_lacks_is_replaced(arguments: tuple[str, ...]) -> None:
    status, output, errors = await ended(NOWHERE, *arguments, PYTHONIOENCODING="latin-1")
    assert (status, errors) == (1 if arguments == ("check",) else 3, "")
    assert b"\n  ? " in output


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


def test_a_full_pipe_that_does_not_wait_is_a_failure() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(65536))
    with output.StandardOutput(writing, "w", closefd=False) as file:
        with pytest.raises(output.OutputError, match="cannot write to the standard output: Resource temporarily"):
            file.write(b"x")
        assert file.write(b"x") == 1
    with output.StandardError(writing, "w") as file:
        assert file.write(b"x") == 1
    os.close(reading)


def test_a_path_may_have_any_bytes() -> None:
    assert "cannot read the hotkey file /nowhere/" in run("status", "--hotkey-file", "/nowhere/\udcff").stderr
