from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from chutes_exporter.cli import cli, main
from chutes_exporter.commands.serve import Service
from chutes_exporter.config import make_settings
from tests.support import HOTKEY, PATIENCE, TEST_SEED
from tests.test_credentials import OTHER, PRIVATE_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = str(Path(sys.executable).parent / "chutes-exporter")
LISTEN = ("--web.listen-address", "127.0.0.1:0")
MINE = f"MINER_SEED={TEST_SEED} MINER_SS58={HOTKEY}"


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

    def starved_seconds(self) -> float:
        """Return for how long its event loop has waited while other programs had the processors.

        It is a lower bound: the wait that other threads of the process cannot explain.
        """
        process = Path(f"/proc/{self.process.pid}")
        # Of each thread the nanoseconds that it ran and that it waited. The loop's is the first.
        loop_ran, loop_waited, _ = map(int, (process / "schedstat").read_text().split())
        all_ran = 0
        for thread in (process / "task").glob("*/schedstat"):
            ran, *_ = thread.read_text().split()
            all_ran += int(ran)
        others_ran = all_ran - loop_ran
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


def test_the_help_has_all_commands_and_is_also_a_command() -> None:
    text = run("--help").stdout
    assert re.findall(r"^  ([a-z][a-z-]*)  ", text, re.MULTILINE) == [*cli.commands]
    assert run("help").stdout == text


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout.startswith("chutes-exporter 0.")


def test_a_seed_is_never_a_flag() -> None:
    flags: set[str] = set()
    for command in cli.commands.values():
        for parameter in command.params:
            flags.update(parameter.opts)
    like_secrets = {flag for flag in flags if flag.endswith(("seed", "key"))}
    # It takes an address.
    assert like_secrets == {"--hotkey"}


def hotkey_file(path: Path) -> str:
    """Write the test key into a hotkey file that others can read, and return its path."""
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    path.chmod(0o644)
    return str(path)


NO_API = "VALIDATOR_API=http://127.0.0.1:9"
ONE_WRONG = HOTKEY[:-1] + "j"

REFUSED = (
    # Hotkeys and their files.
    (
        "--hotkey nonsense",
        "Error: Invalid value for '--hotkey': the value (not shown, 8 characters) is not an SS58",
    ),
    (
        "--hotkey ''",
        "(not shown, 0 characters) is not an SS58 address of Bittensor: copy it again, 48",
    ),
    (f"--hotkey {ONE_WRONG}", f"'{ONE_WRONG}' is not an SS58 address of Bittensor: copy it again"),
    (f"--hotkey {TEST_SEED[2:]}", "is not an SS58 address"),
    (
        f"HOTKEY={HOTKEY}",
        f"Error: Invalid value for 'HOTKEY': {HOTKEY} is an address, but this needs the path",
    ),
    (f"--hotkey-file {HOTKEY}", "To watch an address without its key, use --hotkey"),
    (
        f"HOTKEY={TEST_SEED}",
        "Error: HOTKEY: cannot read the hotkey file 0x[hex]: No such file or directory",
    ),
    (
        "CHUTES_EXPORTER_HOTKEY_FILE=/nowhere",
        "Error: CHUTES_EXPORTER_HOTKEY_FILE: cannot read the hotkey file",
    ),
    ("HOTKEY=/nowhere status", "Error: HOTKEY: cannot read the hotkey file /nowhere"),
    ("--hotkey-file ''", "Error: --hotkey-file: cannot read the hotkey file"),
    ("--hotkey-file /dev/zero", "Error: --hotkey-file: cannot read the hotkey file"),
    # Keys in variables. The Secret of the first four has neither entry.
    (f"MINER_SS58={HOTKEY}", "Error: MINER_SS58 needs a key: set MINER_SEED or MINER_PRIVATE_KEY"),
    ("MINER_SEED=''", "Error: MINER_SS58 needs a key"),
    (f"MINER_SEED='' MINER_PRIVATE_KEY='''' MINER_SS58={HOTKEY}", "Error: MINER_SS58 needs a key"),
    (
        f"MINER_SS58={HOTKEY} {NO_API} check",
        "MINER_SS58 needs a key: set MINER_SEED or MINER_PRIVATE_KEY",
    ),
    (f"MINER_SS58={TEST_SEED}", "Error: MINER_SS58 needs a key"),
    (
        f"{MINE} MINER_PRIVATE_KEY={TEST_SEED}",
        "Error: MINER_SEED and MINER_PRIVATE_KEY are both set: unset one",
    ),
    (
        f"MINER_SS58={OTHER} MINER_PRIVATE_KEY={PRIVATE_KEY}",
        f"the key does not belong to the given address, but to {HOTKEY}",
    ),
    (
        f"MINER_SS58={TEST_SEED} MINER_SEED={TEST_SEED}",
        "the key does not belong to the given address",
    ),
    (f"MINER_SS58={HOTKEY} MINER_PRIVATE_KEY={'f' * 128}", "no key of the type sr25519"),
    (
        f"MINER_SEED=0x12 MINER_SS58={HOTKEY}",
        "Error: MINER_SEED and MINER_SS58: a seed has 64 hexadecimal",
    ),
    (
        f"MINER_SEED={TEST_SEED}",
        f"MINER_SEED and MINER_SS58: the address is missing: the key is that of {HOTKEY}",
    ),
    (
        f"MINER_SEED={TEST_SEED} MINER_SS58={OTHER}",
        "Error: MINER_SEED and MINER_SS58: the key does not belong",
    ),
    (
        f"MINER_SEED=0x12 {NO_API} check",
        "→ Correct it. If you remove it, the whole subnet is watched, without the pri",
    ),
    (f"MINER_SEED=0x12 {NO_API} check --hotkey {HOTKEY}", f"If you remove it, {HOTKEY} is watched"),
    (
        f"HOTKEY=/nowhere {NO_API} check",
        "HOTKEY: cannot read the hotkey file /nowhere: No such file",
    ),
    ("status", "Error: status needs a miner: add --hotkey or --hotkey-file"),
    (
        "--miners watched",
        "Error: --miners watched needs a watched miner: add --hotkey or --hotkey-file",
    ),
    (
        "--chutes relevant",
        "Error: --chutes relevant needs a watched miner: add --hotkey or --hotkey-file",
    ),
    (
        "--chutes mine",
        "Error: Invalid value for '--chutes': 'mine' is not one of 'relevant', 'all'",
    ),
    (
        "CHUTES_EXPORTER_MINERS=watched",
        "Error: CHUTES_EXPORTER_MINERS watched needs a watched miner",
    ),
    # Empty variables.
    ("CHUTES_EXPORTER_HOTKEY=' '", "Error: CHUTES_EXPORTER_HOTKEY is empty: set it or unset it"),
    ("CHUTES_EXPORTER_HOTKEY='' serve", "Error: CHUTES_EXPORTER_HOTKEY is empty"),
    ("CHUTES_EXPORTER_HOTKEY_FILE=''", "Error: CHUTES_EXPORTER_HOTKEY_FILE is empty"),
    ("HOTKEY=''", "Error: HOTKEY is empty"),
    ("MINER_SS58=''", "Error: MINER_SS58 needs a key"),
    ("CHUTES_EXPORTER_WEB_CONFIG_FILE=''", "Error: CHUTES_EXPORTER_WEB_CONFIG_FILE is empty"),
    ("CHUTES_EXPORTER_WEB_LISTEN_ADDRESS=''", "Error: CHUTES_EXPORTER_WEB_LISTEN_ADDRESS is empty"),
    # The API.
    (
        "VALIDATOR_API=nonsense",
        "Error: Invalid value for 'VALIDATOR_API': it is not an address of an API",
    ),
    *(
        (f"{flag}='{text}'", f"'{flag}': it is not an address of {kind} ({reason}")
        for flag, kind in {"--api.url": "an API", "--chain.url": "a node"}.items()
        for text, reason in {
            "http://256.1.1.1": "Invalid IPv4 address",
            "http://[::::]": "Invalid IPv6 address",
            "http://xn--a:9": "Codepoint",
            "http://127.0.0.1:99999": "port 99999 is not between 1 and 65535): write",
            "http://127.0.0.1:0/x": "port 0 is not",
            "http://127.0.0.1/\x7f": "Invalid non-printable",
        }.items()
    ),
    *(
        (f"--api.url='{text}'", "'--api.url': it is not an address of an API: write https://HOST")
        for text in (
            *(
                "",
                "api.chutes.ai",
                "ftp://x",
                "https://",
                "https://x?y",
                "https://x#y",
                "http://[",
                "http://x:y",
            ),
            *("http://a..b", "http://exa mple", f"https://u:{TEST_SEED[2:22]}@x"),
        )
    ),
    *(
        (f"--chain.url='{text}'", "'--chain.url': it is not an address of a node: write https://HO")
        for text in (
            "",
            "wss://x:9944",
            "https://x#y",
            "https://x?y#z",
            "https://u:secret@x?y",
            "https://x?a b",
        )
    ),
    (
        f"{MINE} release-job ? --api.url HTTP://x",
        "Warning: --api.url: signatures go to http://x without encryption",
    ),
    (
        f"{MINE} VALIDATOR_API=HTTP://x release-job ?",
        "Warning: VALIDATOR_API: signatures go to http://x without",
    ),
    ("HTTPS_PROXY=garbage://x", "HTTPS_PROXY"),
    (f"HTTPS_PROXY=garbage://x CHUTES_EXPORTER_HOTKEY={HOTKEY} status", "HTTPS_PROXY"),
    # Numbers.
    *(
        (
            f"--{name}={value}",
            f"Error: Invalid value for '--{name}': '{value}' is not a number above 0",
        )
        for name in ("api.timeout", "scrape.timeout-offset")
        for value in ("nan", "inf", "0", "-1", "20s")
    ),
    (
        "CHUTES_EXPORTER_API_TIMEOUT=nan status",
        "'CHUTES_EXPORTER_API_TIMEOUT': 'nan' is not a number above 0",
    ),
    *(
        (
            f"--gpu.cost={text}",
            f"'--gpu.cost': '{text}' is not a GPU model, = and a number above 0: write for example",
        )
        for text in (
            "h200=nan",
            "h200=inf",
            "h200=0",
            "h200=-1",
            "h200=much",
            "h200=",
            "h200",
            "=1",
        )
    ),
    *(
        (
            f"--server.cost={text}",
            f"'--server.cost': '{text}' is not the name of a server, = and a number above 0: write",
        )
        for text in ("gpu-7=nan", "gpu-7=inf", "gpu-7=0", "gpu-7=-1", "gpu-7=", "gpu-7", "=1")
    ),
    (
        "CHUTES_EXPORTER_SERVER_COST='gpu-7=1 foo'",
        "'CHUTES_EXPORTER_SERVER_COST': 'foo' is not the name of a server, = and",
    ),
    (
        "CHUTES_EXPORTER_GPU_COST='h200=1 foo'",
        "'CHUTES_EXPORTER_GPU_COST': 'foo' is not a GPU model, = and",
    ),
    *(
        (
            f"--{name}=instances={value}",
            f"'--{name}': 'instances={value}' needs 1 to 604800 seconds (7 days)",
        )
        for name in ("feed.ttl", "feed.max-age")
        for value in ("99999999999999999999", "604801", "0.9", "-1", "nan", "inf", "5m", "")
    ),
    (
        "--feed.ttl nothing=60",
        "'--feed.ttl': 'nothing=60' does not start with a feed: use one of metagraph, scores, ",
    ),
    (
        "CHUTES_EXPORTER_FEED_MAX_AGE=scores",
        "'CHUTES_EXPORTER_FEED_MAX_AGE': 'scores' needs 1 to 604800 seconds",
    ),
    ("--max-series 1e6", "'--max-series': '1e6' is not a valid integer"),
    # The web server, collectors and the log.
    (
        "--web.config.file /nowhere/web.yml",
        "Error: --web.config.file: cannot read /nowhere/web.yml",
    ),
    (
        "--web.config.file /dev/zero",
        "Error: --web.config.file: cannot read /dev/zero: it is not a regular file",
    ),
    (
        "CHUTES_EXPORTER_WEB_CONFIG_FILE=/nowhere",
        "Error: CHUTES_EXPORTER_WEB_CONFIG_FILE: cannot read /nowhere",
    ),
    (
        f"CHUTES_EXPORTER_WEB_CONFIG_FILE=/nowhere {NO_API} check",
        "CHUTES_EXPORTER_WEB_CONFIG_FILE: cannot read",
    ),
    *(
        (
            f"--web.listen-address='{text}'",
            f"'--web.listen-address': {text!r} is not an address to listen on",
        )
        for text in (
            "",
            "10064",
            "::1:80",
            ":65536",
            ":-1",
            ":x",
            "http://x:80",
            "[::1]",
            ":²",
            "é:1",
            ":100000",
        )
    ),
    (
        "--web.listen-address 192.0.2.1:1",
        "Error: --web.listen-address: cannot listen on 192.0.2.1:1: ",
    ),
    (
        "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS=192.0.2.1:1",
        "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS: cannot listen on 192",
    ),
    ("--collector.chain", "Error: --collector.chain needs a node of the chain: add --chain.url"),
    ("--collector.nodes", "Error: --collector.nodes needs a hotkey's key: add --hotkey-file"),
    (
        "CHUTES_EXPORTER_COLLECTOR_NODES=1",
        "Error: CHUTES_EXPORTER_COLLECTOR_NODES needs a hotkey's key",
    ),
    ("--collector.unique_chute_history", "needs a watched miner: add --hotkey"),
    (
        "--log.level INFO --log.format JSON --miners WATCHED",
        "Error: --miners watched needs a watched miner",
    ),
    # Other commands.
    ("query scores --where name", "No such option '--where'"),
    ("query scores --sort name", "No such option '--sort'"),
    ("query scores --csv", "No such option '--csv'"),
    ("query nodes", "the request must be signed: add --hotkey-file, or set MINER_SS58 with a key"),
    (f"advise --hotkey {HOTKEY}", "add --hotkey-file, or set MINER_SS58 with a key"),
    ("query unique_chute_history", "after unique_chute_history, write HOTKEY"),
    ("query scores x", "after scores, write no ID"),
    ("query scores --param hotkey=x", "No such option '--param'"),
    (f"{MINE} query chute x", "after chute, write CHUTE_ID VERSION"),
    *(
        (
            f"{MINE} release-job --yes {job}",
            "JOB_ID is invalid: use letters, digits, dashes and underscores",
        )
        for job in ("..", "''", "a/b", "'x y'", TEST_SEED)
    ),
    ("demo --demo.fault nonsense", "'nonsense' is invalid: write for example"),
    ("demo --demo.listen-address nonsense", "'nonsense' is not an address to listen on"),
    (
        f"serve {TEST_SEED}",
        "Got unexpected extra argument (0x[hex]) (see chutes-exporter serve --help)",
    ),
    (f"--{TEST_SEED}", "No such option '--0x[hex]'"),
    (
        "--feed.ttl scores=7200",
        "scores=7200 is above the age at which an answer is dropped, 1800 s: add --feed.max-age",
    ),
    ("--feed.max-age scores=60", "scores=300 is above the age at which an answer is dropped, 60 s"),
    ("help nonsense", "No such command 'nonsense'. (see chutes-exporter --help)"),
    ("status --jsn", "Did you mean '--json'?"),
)


@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[line for line, _ in REFUSED])
def test_invalid_settings_are_refused_without_a_traceback(
    line: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables stand before the arguments, as in a shell."""
    monkeypatch.setattr(Service, "_announce", lambda _: pytest.fail("it serves"))
    arguments = shlex.split(line)
    variables = {}
    while arguments and re.match("[A-Z0-9_]+=", arguments[0]):
        name, value = arguments.pop(0).split("=", 1)
        variables[name] = value
    result = run(*arguments, **variables)
    printed = " ".join((result.stdout + result.stderr).split())
    assert words in printed
    # Not even a part of a secret is printed.
    assert TEST_SEED[2:22] not in printed
    assert PRIVATE_KEY[2:22] not in printed
    # check reports what else works. Other commands print nothing.
    assert result.returncode == (1 if result.stdout else 2)


def test_the_start_is_logged_with_the_miners_and_the_collectors_that_are_off() -> None:
    flags = ("--no-collector.scores", "--log.format", "json", "--api.url", "http://127.0.0.1:9")
    with running("serve", *LISTEN, *flags) as service:
        line = json.loads(service.lines[0])
    assert line["msg"] == "listening"
    assert line["watched"] == "whole subnet"
    assert line["off_by_flag"] == "scores"
    assert line["off_without_hotkey"] == "ended_instances unique_chute_history stats_per_chute"
    assert "servers" in line["off_without_key"].split()
    assert "metagraph" in line["collectors"].split()


def on_a_terminal(*arguments: str, **variables: str) -> str:
    """Return what the command prints on a terminal."""
    terminal, screen = os.openpty()
    defaults = {
        "TERM": "xterm",
        "CHUTES_EXPORTER_HOTKEY": HOTKEY,
        "VALIDATOR_API": "http://127.0.0.1:9",
    }
    process = subprocess.Popen(
        [COMMAND, *arguments],
        stdout=screen,
        stderr=subprocess.DEVNULL,
        env=environment(**defaults) | variables,
    )
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


MNEMONIC = "legal winner thank year wave sausage worth useful legal winner thank yellow"
WRONG_PLACES = (
    *(("serve", flag) for flag in ("--hotkey-file", "--feed.ttl", "--api.timeout", "--log.level")),
    *(("serve", flag) for flag in ("--gpu.cost", "--server.cost", "--web.listen-address")),
    *(("serve", flag) for flag in ("--hotkey", "--api.url", "--chain.url")),
    ("query",),
)


@pytest.mark.parametrize("place", WRONG_PLACES, ids=" ".join)
@pytest.mark.parametrize(
    ("value", "secret"),
    [
        (MNEMONIC, "sausage"),
        (f"{MNEMONIC} {MNEMONIC}", "sausage"),
        ("https://user:pass/word@host/x", "word"),
        ("x" * 100_000, "x" * 300),
    ],
    ids=["12 words", "24 words", "password", "long"],
)
def test_a_value_in_a_wrong_place_shows_no_secret_and_not_all_of_a_long_text(
    place: tuple[str, ...], value: str, secret: str
) -> None:
    ended = run(*place, value)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    # "word" is also a part of this advice.
    assert secret not in ended.stderr.replace("without a password", "")


@pytest.mark.parametrize("model", ["x" * 100_000, MNEMONIC])
def test_an_unknown_gpu_model_is_not_shown_as_a_whole(model: str) -> None:
    settings = make_settings(gpu_costs={model: 1.5})
    (warning,) = settings.warnings
    assert "--gpu.cost has an unknown GPU model" in warning
    assert model not in warning


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--help",),
        *((name, "--help") for name in cli.commands),
        ("help",),
        ("check", "--api.url", "http://127.0.0.1:9"),
        ("status", "--api.url", "http://127.0.0.1:9", "--hotkey", HOTKEY),
    ],
    ids=" ".join,
)
def test_output_that_cannot_be_written_is_said_in_a_sentence(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr.endswith("Error: cannot write the output: No space left on device\n")
    assert "Traceback" not in ended.stderr


def test_another_error_of_the_system_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "main", Mock(side_effect=PermissionError(errno.EACCES, "no")))
    with pytest.raises(PermissionError):
        main([])


@pytest.mark.parametrize(
    ("words", "completed"),
    [("chutes-exporter sta", "status"), ("chutes-exporter --hotkey X --web.l", "--web.listen-a")],
)
def test_tab_completes_commands_and_the_flags_of_the_default_command(
    words: str, completed: str
) -> None:
    variables = {
        "_CHUTES_EXPORTER_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    assert run(**variables).stdout.startswith(f"plain,{completed}")


def test_a_reader_of_the_output_that_has_gone_does_not_mean_that_action_is_needed() -> None:
    process = start("help", "collectors")
    assert process.stdout is not None
    # As `head` does, after it has read enough.
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_with_too_few_open_files_nothing_starts() -> None:
    command = f"ulimit -n 30; exec {COMMAND} {shlex.join(LISTEN)} --api.url http://127.0.0.1:9"
    ended = subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,  # before, it never ended
        check=False,
    )
    assert ended.returncode == 2
    assert "the limit of open files is 30" in ended.stderr
    assert "ulimit -n 1024" in ended.stderr
