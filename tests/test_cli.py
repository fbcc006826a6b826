from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from chutes_exporter.cli import cli, main
from chutes_exporter.commands.serve import Service
from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY, PATIENCE, PATIENT, parse_page, series

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


COMMAND = str(Path(sys.executable).parent / "chutes-exporter")
LISTEN = ("--web.listen-address", "127.0.0.1:0")
OTHER = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"


def environment(**variables: str) -> dict[str, str]:
    """Return this environment without what the exporter reads, and with the given variables."""
    # The workers of pytest-xdist have COLUMNS.
    ours = ("CHUTES_EXPORTER_", "MINER_", "HOTKEY", "VALIDATOR_API", "COLUMNS")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables


def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process, which takes less time than a new one."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        patch.setattr(os, "environ", environment(**variables))
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as end:
            main(arguments)
    for stream in streams:
        stream.seek(0)
    return subprocess.CompletedProcess(arguments, int(end.value.code or 0), *(stream.read() for stream in streams))


@contextlib.contextmanager
def running(
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    command: Sequence[str] = (COMMAND,),
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start the command; yields the address that it listens on, and the process."""
    complete = environment(**{"CHUTES_EXPORTER_API_TIMEOUT": str(PATIENCE), **(variables or {})})
    process = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=complete,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"addresses=(\S+)", line):
                yield f"http://{found[1]}", process
                return
        pytest.fail(f"it ended with {process.wait()}")
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def test_the_help_has_all_commands_and_examples_on_one_screen() -> None:
    text = run("--help").stdout
    listed = re.findall(r"^  ([a-z-]+)(?: \[COMMAND\])?  +[A-Z][^.]+\.$", text, re.MULTILINE)
    assert listed == [*cli.commands, "help"]
    assert text.count("  chutes-exporter ") == 3
    assert len(text.splitlines()) <= 24
    assert run("help").stdout == text
    assert run("--version").stdout.startswith("chutes-exporter 0.")


def test_a_seed_is_never_a_flag() -> None:
    flags = {flag for command in cli.commands.values() for parameter in command.params for flag in parameter.opts}
    assert {flag for flag in flags if flag.endswith(("seed", "key"))} == {"--simulator.seed", "--hotkey"}


def hotkey_file(path: Path) -> str:
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    path.chmod(0o644)
    return str(path)


@pytest.mark.parametrize("command", [(), ("serve",)])
def test_it_serves_with_and_without_naming_the_command_and_ends_cleanly(command: tuple[str, ...]) -> None:
    with running(*command, *LISTEN, "--api.url", "http://127.0.0.1:9") as (url, process):
        page = parse_page(httpx.get(f"{url}/metrics", headers=PATIENT, timeout=PATIENCE).text)
        assert page[series("chutes_feed_up", feed="metagraph")] == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (("--hotkey", "nonsense"), {}, "'--hotkey' (env var: 'CHUTES_EXPORTER_HOTKEY'): the value (not"),
        (("--hotkey", ""), {}, "(not shown, 0 characters) is not an SS58 address"),
        ((), {"CHUTES_EXPORTER_HOTKEY": " "}, "CHUTES_EXPORTER_HOTKEY is empty: set it, or unset it"),
        ((), {"CHUTES_EXPORTER_HOTKEY_FILE": ""}, "CHUTES_EXPORTER_HOTKEY_FILE is empty"),
        ((), {"HOTKEY": ""}, "HOTKEY is empty"),
        ((), {"MINER_SS58": HOTKEY}, "MINER_SS58 needs a key: set MINER_SEED or MINER_PRIVATE_KEY"),
        ((), {"CHUTES_EXPORTER_WEB_CONFIG_FILE": ""}, "CHUTES_EXPORTER_WEB_CONFIG_FILE is empty"),
        ((), {"CHUTES_EXPORTER_WEB_LISTEN_ADDRESS": ""}, "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS is empty"),
        ((), {"MINER_SEED": TEST_SEED, "MINER_SS58": OTHER}, "does not belong"),
        (("--hotkey", TEST_SEED[2:]), {}, "is not an SS58 address"),
        ((), {"HOTKEY": TEST_SEED}, "cannot read the hotkey file 0x[hex]"),
        ((), {"HOTKEY": HOTKEY}, f"--hotkey-file: cannot read the hotkey file {HOTKEY}: No such file"),
        (("--hotkey-file", ""), {}, "--hotkey-file: cannot read the hotkey file"),
        (("--web.config.file", "/nowhere/web.yml"), {}, "--web.config.file: cannot read /nowhere/web.yml"),
        ((), {"VALIDATOR_API": "nonsense"}, "'VALIDATOR_API'): it is not an address of an API"),
        ((), {"CHUTES_EXPORTER_GPU_COST": "foo"}, "'CHUTES_EXPORTER_GPU_COST'): 'foo' is not a name, = and a number"),
        (("--feed.ttl", "scores=5m"), {}, "'scores=5m' is not a name, = and a number"),
        (("--api.timeout", "20s"), {}, "'--api.timeout'"),
        (("--api.timeout", "0"), {}, "'--api.timeout'"),
        (("--web.telemetry-path", "/sd"), {}, "'/sd' cannot be the path of the metrics"),
        (("--web.listen-address", "nonsense"), {}, "'nonsense' is not an address to listen on"),
        (("--web.listen-address", "192.0.2.1:1"), {}, "Error: --web.listen-address: cannot listen on 192.0.2.1:1: "),
        (("--collector.nodes",), {}, "--collector.nodes needs a hotkey's key"),
        (("--collector.unique_chute_history",), {}, "needs a watched miner: add --hotkey"),
        (("--miners", "watched"), {}, "needs a watched miner: add --hotkey"),
        ((), {"HTTPS_PROXY": "garbage://x"}, "HTTPS_PROXY"),
        (("status",), {"HTTPS_PROXY": "garbage://x", "CHUTES_EXPORTER_HOTKEY": HOTKEY}, "HTTPS_PROXY"),
        (("query", "stats", "--json", "--csv"), {}, "--json and --csv exclude each other"),
        (("demo", "--simulator.fault", "nonsense"), {}, "'nonsense' is invalid: write for example"),
        (("demo", "--simulator.listen-address", "nonsense"), {}, "'nonsense' is not an address to listen on"),
        (("serve", TEST_SEED), {}, "Got unexpected extra argument (0x[hex]) (see chutes-exporter serve --help)"),
        ((f"--{TEST_SEED}",), {}, "No such option '--0x[hex]'"),
        (("help", "nonsense"), {}, "No such command 'nonsense'. (see chutes-exporter --help)"),
        (("status", "--jsn"), {}, "Did you mean '--json'?"),
    ],
)
def test_invalid_settings_are_refused_without_a_traceback(
    arguments: tuple[str, ...], variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "_announce", lambda _: pytest.fail("it serves"))
    result = run(*arguments, **variables)
    assert result.returncode in (1, 2)
    error = result.stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    assert words in error
    assert TEST_SEED[2:] not in error


def logged(count: int, *arguments: str, **variables: str) -> str:
    """Return the first lines of the log of the command."""
    process = subprocess.Popen([COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env=environment(**variables))
    assert process.stderr is not None
    lines = "".join(process.stderr.readline() for _ in range(count))
    process.terminate()
    process.communicate(timeout=PATIENCE)
    return lines


def test_the_start_is_logged_with_the_miners_and_the_collectors_that_are_off() -> None:
    arguments = (*LISTEN, "--no-collector.scores", "--api.url", "http://127.0.0.1:9")
    line = logged(1, *arguments, "--hotkey", HOTKEY)
    assert f"watched={HOTKEY} " in line
    assert "off_by_flag=scores" in line
    assert re.search(r'off_without_key="[a-z_ ]*servers', line)
    line = json.loads(logged(1, *arguments, "--log.format", "json"))
    assert (line["msg"], line["watched"]) == ("listening", "whole subnet")
    assert line["off_without_hotkey"] == "instance_gpus unique_chute_history"
    assert "stats_per_chute" in line["off_by_default"].split()


def test_a_hotkey_file_that_others_can_read_causes_a_warning(tmp_path: Path) -> None:
    line = logged(1, *LISTEN, "--hotkey-file", hotkey_file(tmp_path / "hot"))
    assert "level=warning" in line
    assert "chmod 600" in line


def test_a_pipe_that_nobody_reads_ends_the_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        result = subprocess.run([COMMAND, "--help"], stdout=pipe, stderr=subprocess.PIPE, check=False, timeout=PATIENCE)
    assert (result.returncode, result.stderr) == (1, b"")


def on_a_terminal(*arguments: str, **variables: str) -> str:
    """Return what the command prints on a terminal."""
    terminal, screen = os.openpty()
    complete = environment(TERM="xterm", CHUTES_EXPORTER_HOTKEY=HOTKEY, VALIDATOR_API="http://127.0.0.1:9") | variables
    process = subprocess.Popen([COMMAND, *arguments], stdout=screen, stderr=subprocess.DEVNULL, env=complete)
    os.close(screen)
    shown = b""
    # Reading fails when the other end is closed.
    with contextlib.suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as output:
        while part := output.read(65536):
            shown += part
    process.wait(timeout=PATIENCE)
    return shown.decode()


def test_a_terminal_gets_no_styles_where_they_are_not_wanted() -> None:
    assert "\x1b[" in on_a_terminal("check", NO_COLOR="")
    assert "\x1b" not in on_a_terminal("check", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("check", TERM="dumb", NO_COLOR="")
