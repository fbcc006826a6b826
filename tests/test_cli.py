from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from chutes_exporter.cli import cli
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY, parse_page, series, unmeasured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import click

COMMAND = str(Path(sys.executable).parent / "chutes-exporter")
LISTEN = ("--web.listen-address", "127.0.0.1:0")
OTHER = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"


def environment(**variables: str) -> dict[str, str]:
    """Return this environment without what the exporter reads, and with the given variables."""
    # The workers of pytest-xdist have COLUMNS.
    ours = ("CHUTES_EXPORTER_", "MINER_", "HOTKEY", "VALIDATOR_API", "COLUMNS")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, env=environment(**variables), check=False, timeout=60
    )


@contextlib.contextmanager
def running(
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    command: Sequence[str] = (COMMAND,),
    measured: bool = True,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start the command, with or without coverage; yields the address that it listens on, and the process."""
    complete = environment(**(variables or {}))
    process = subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=complete if measured else unmeasured(complete),
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
        process.communicate(timeout=20)


def test_the_help_has_all_commands_and_examples_on_one_screen() -> None:
    text = run("--help").stdout
    listed = re.findall(r"^  ([a-z-]+)  +[A-Z][^.]+\.$", text, re.MULTILINE)
    assert listed == ["demo", "serve", "check", "status", "advise", "query", "backfill", "release-job", "help"]
    assert text.count("  chutes-exporter ") == 3
    assert len(text.splitlines()) <= 24
    assert run("help").stdout == text
    assert run("--version").stdout.startswith("chutes-exporter 0.")


def test_the_help_of_a_command_groups_its_flags_by_topic() -> None:
    text = run("help", "serve").stdout
    assert text.startswith("Usage: chutes-exporter serve ")
    assert text == run("serve", "--help").stdout
    topics = re.findall(r"^([A-Z].*):$", text, re.MULTILINE)
    assert topics == ["Miners", "Chutes API", "Web server", "Data", "Collectors", "Money", "Log", "Options"]
    assert "VALIDATOR_API" in text
    assert "ENDPOINT is one of chutes, " in run("help", "query").stdout


def test_the_help_says_when_each_collector_is_on() -> None:
    text = " ".join(run("serve", "--help").stdout.split())
    for collector in COLLECTORS:
        assert f"--collector.{collector.name} / --no-collector.{collector.name}" in text
        assert f"Export {collector.summary} [default: {collector.default_in_words}]" in text


def parameters(command: click.Command) -> dict[str, click.Parameter]:
    return {option: parameter for parameter in command.params for option in parameter.opts}


def test_every_flag_has_an_environment_variable_of_its_name() -> None:
    for option, parameter in parameters(cli.commands["serve"]).items():
        if option not in ("--help", "-h"):
            variable = "CHUTES_EXPORTER_" + re.sub(r"[.-]", "_", option.removeprefix("--")).upper()
            assert parameter.envvar[0] == variable  # type: ignore[index]


def test_a_seed_is_never_a_flag() -> None:
    for command in cli.commands.values():
        assert not [option for option in parameters(command) if re.fullmatch(r"--.*(?<!simulator\.)seed", option)]


@pytest.mark.parametrize("command", [(), ("serve",)])
def test_it_serves_with_and_without_naming_the_command_and_ends_cleanly(command: tuple[str, ...]) -> None:
    with running(*command, *LISTEN, "--api.url", "http://127.0.0.1:9") as (url, process):
        page = parse_page(httpx.get(f"{url}/metrics", timeout=60).text)
        assert page[series("chutes_feed_up", feed="metagraph")] == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_sighup_reads_the_hotkey_file_again(tmp_path: Path) -> None:
    path = tmp_path / "hot"
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    path.chmod(0o600)
    with running(*LISTEN, "--api.url", "http://127.0.0.1:9", "--hotkey-file", str(path)) as (url, process):
        path.write_text("{")
        process.send_signal(signal.SIGHUP)
        good = series("chutes_exporter_config_last_reload_successful")
        deadline = time.monotonic() + 120
        while (page := parse_page(httpx.get(f"{url}/metrics", timeout=60).text))[good]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert page[series("chutes_miner_watched", hotkey=HOTKEY)] == 1
        path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
        process.send_signal(signal.SIGHUP)
        while not parse_page(httpx.get(f"{url}/metrics", timeout=60).text)[good]:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_every_setting_can_come_from_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "hot"
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    variables = {
        "HOTKEY": str(path),
        "CHUTES_EXPORTER_HOTKEY": f"{OTHER}",
        "VALIDATOR_API": "http://127.0.0.1:9",
        "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS": "127.0.0.1:0",
        "CHUTES_EXPORTER_WEB_TELEMETRY_PATH": "/other",
        "CHUTES_EXPORTER_COLLECTOR_SCORES": "false",
        "CHUTES_EXPORTER_COLLECTOR_CHUTE_GPUS": "true",
        "CHUTES_EXPORTER_LOG_FORMAT": "logfmt",
    }
    with running(variables=variables) as (url, _):
        page = parse_page(httpx.get(f"{url}/other", timeout=60).text)
    collectors = {dict(labels)["collector"] for name, labels in page if name == "chutes_scrape_collector_success"}
    on = {collector.name for collector in COLLECTORS if collector.default != "off"}
    assert collectors == on - {"scores"} | {"chute_gpus"}


def test_the_miners_own_variables_bring_the_key() -> None:
    variables = {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY, "VALIDATOR_API": "http://127.0.0.1:9"}
    with running(*LISTEN, variables=variables) as (url, _):
        page = parse_page(httpx.get(f"{url}/metrics", timeout=60).text)
    assert series("chutes_scrape_collector_success", collector="servers", hotkey=HOTKEY) in page


def test_the_log_can_be_json() -> None:
    process = subprocess.Popen(
        [COMMAND, *LISTEN, "--log.format", "json"], stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stderr is not None
    first = json.loads(process.stderr.readline())
    process.terminate()
    process.communicate(timeout=20)
    assert (first["msg"], first["level"]) == ("listening", "info")


def cold_key(directory: Path) -> str:
    path = directory / "coldkey"
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (("--hotkey", "nonsense"), {}, "--hotkey: the value (not shown, 8 characters) is not an SS58 address"),
        ((), {"CHUTES_EXPORTER_HOTKEY": "nonsense"}, "CHUTES_EXPORTER_HOTKEY: the value"),
        ((), {"CHUTES_EXPORTER_GPU_COST": "foo"}, "Error: CHUTES_EXPORTER_GPU_COST 'foo' is invalid"),
        ((), {"VALIDATOR_API": "nonsense"}, "Error: VALIDATOR_API 'nonsense' is not an address of an API"),
        (
            (),
            {"CHUTES_EXPORTER_WEB_CONFIG_FILE": "/nowhere/web.yml"},
            "Error: CHUTES_EXPORTER_WEB_CONFIG_FILE: cannot read /nowhere/web.yml",
        ),
        ((), {"HOTKEY": f"{HOTKEY},{OTHER}"}, f"HOTKEY: {HOTKEY},{OTHER} has addresses, not the path"),
        ((), {"HOTKEY": f"{HOTKEY[:-1]}x"}, f"HOTKEY: {HOTKEY[:-1]}x is an address, not the path"),
        ((), {"MINER_SS58": "nonsense"}, "MINER_SS58: the value"),
        (("--hotkey", ""), {}, "--hotkey is empty"),
        (("--hotkey", f"{HOTKEY},{OTHER}"), {}, "repeat --hotkey for each hotkey"),
        ((), {"CHUTES_EXPORTER_HOTKEY": f"{HOTKEY},{OTHER}"}, "separate hotkeys by spaces"),
        ((), {"HOTKEY": HOTKEY}, f"Error: HOTKEY: {HOTKEY} is an address, not the path"),
        ((), {"CHUTES_EXPORTER_HOTKEY_FILE": HOTKEY}, f"CHUTES_EXPORTER_HOTKEY_FILE: {HOTKEY} is an address"),
        (("--hotkey-file", HOTKEY), {}, "Use --hotkey or CHUTES_EXPORTER_HOTKEY for an address"),
        (("--hotkey-file", ""), {}, "--hotkey-file is empty: use the path of a hotkey file"),
        ((), {"CHUTES_EXPORTER_HOTKEY": ""}, "CHUTES_EXPORTER_HOTKEY is empty: set it to a hotkey, or unset it"),
        (
            (),
            {"CHUTES_EXPORTER_HOTKEY_FILE": " "},
            "CHUTES_EXPORTER_HOTKEY_FILE is empty: use the path of a hotkey file",
        ),
        (
            ("query", "servers"),
            {"CHUTES_EXPORTER_HOTKEY_FILE": ":"},
            "Error: CHUTES_EXPORTER_HOTKEY_FILE is empty: use the path of a hotkey file\n",
        ),
        ((), {"CHUTES_EXPORTER_HOTKEY_FILE": ""}, "CHUTES_EXPORTER_HOTKEY_FILE is empty: set it to the path"),
        ((), {"HOTKEY": ""}, "HOTKEY is empty: set it to the path of a hotkey file"),
        ((), {"MINER_SEED": ""}, "MINER_SEED is empty: set it to the seed of the miner's hotkey"),
        ((), {"MINER_SS58": "", "MINER_SEED": ""}, "MINER_SS58 is empty: set it to the address"),
        (("--web.config.file", ""), {}, "--web.config.file is empty: use the path of a web configuration"),
        ((), {"CHUTES_EXPORTER_WEB_CONFIG_FILE": ""}, "CHUTES_EXPORTER_WEB_CONFIG_FILE is empty: set it to the path"),
        (
            (),
            {"CHUTES_EXPORTER_WEB_LISTEN_ADDRESS": ""},
            "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS is empty: set it to an address",
        ),
        ((), {"CHUTES_EXPORTER_WEB_LISTEN_ADDRESS": " "}, "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS is empty: use :10064"),
        (("--web.systemd-socket",), {"CHUTES_EXPORTER_WEB_LISTEN_ADDRESS": ""}, "--web.systemd-socket"),
        (("-hotkey", HOTKEY), {}, "-hotkey has only one dash: write --hotkey"),
        (("serve", f"-hotkey={HOTKEY}"), {}, "write --hotkey="),
        (("-version",), {}, "-version has only one dash: write --version"),
        (("-help",), {}, "-help has only one dash: write --help"),
        (("--api.timeout", "20s"), {}, "'20s' is not a number of seconds: write a plain number"),
        (("--api.timeout", "0"), {}, "'--api.timeout'"),
        (("--feed.ttl", "scores=5m"), {}, "--feed.ttl 'scores=5m' is invalid: write FEED=SECONDS"),
        (("query", "stats", "--json", "--csv"), {}, "--json and --csv exclude each other"),
        (("backfill", "--output", "", "--hotkey", HOTKEY), {}, "--output is empty: write the path of a file, or -"),
        (("--hotkey-file", "/nowhere/hot"), {}, "cannot read the hotkey file"),
        ((), {"MINER_SEED": TEST_SEED, "MINER_SS58": OTHER}, "does not belong"),
        ((), {"MINER_SEED": TEST_SEED}, "without MINER_SS58"),
        ((), {"MINER_SS58": TEST_SEED}, "looks like a seed"),
        ((), {"MINER_SS58": TEST_SEED, "MINER_SEED": HOTKEY}, "64 hexadecimal digits"),
        (("--hotkey", TEST_SEED[2:]), {}, "looks like a seed"),
        ((), {"HOTKEY": TEST_SEED}, "looks like a seed"),
        (("--hotkey-file", "~nosuchuser/hot"), {}, "Could not determine home directory. Check the path"),
        (("--api.timeout", "nan"), {}, "Error: --api.timeout nan is not a number of seconds: write a plain number"),
        (
            (),
            {"CHUTES_EXPORTER_SCRAPE_TIMEOUT_OFFSET": "inf"},
            "Error: CHUTES_EXPORTER_SCRAPE_TIMEOUT_OFFSET inf is not",
        ),
        ((), {"HTTPS_PROXY": "garbage://x"}, "HTTPS_PROXY"),
        (("--api.url", "nonsense"), {}, "not an address of an API"),
        (("--web.listen-address", "nonsense"), {}, "--web.listen-address: 'nonsense' is not an address to listen on"),
        (("--web.listen-address", "192.0.2.1:1"), {}, "Error: --web.listen-address: cannot listen on 192.0.2.1:1: "),
        (
            (),
            {"CHUTES_EXPORTER_WEB_LISTEN_ADDRESS": "192.0.2.1:1"},
            "Error: CHUTES_EXPORTER_WEB_LISTEN_ADDRESS: cannot listen on 192.0.2.1:1: ",
        ),
        (("--web.listen-address", f"127.0.0.1:{'1' * 5000}"), {}, "is not an address to listen on"),
        (("--collector.nonsense",), {}, "No such option"),
        (("nonsense",), {}, "No such command"),
        (("help", "nonsense"), {}, "No such command"),
        (("--api.url", "http://127.0.0.1:9", "check"), {}, "the command must come first: chutes-exporter check"),
        (("--collector.nodes",), {}, "--collector.nodes needs a hotkey's seed"),
        (("--collector.unique_chute_history",), {}, "needs a watched miner: add --hotkey"),
        (("--miners", "watched"), {}, "needs a watched miner: add --hotkey"),
        (
            ("demo", "--simulator.listen-address", "127.0.0.1:0", "--simulator.fault", "nonsense"),
            {},
            "--simulator.fault 'nonsense'",
        ),
        (
            ("demo", "--simulator.listen-address", "nonsense"),
            {},
            "--simulator.listen-address: 'nonsense' is not an address to listen on",
        ),
    ],
)
def test_invalid_settings_are_refused_without_a_traceback(
    arguments: tuple[str, ...], variables: dict[str, str], words: str
) -> None:
    result = run(*arguments, **variables)
    assert result.returncode in (1, 2)
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert TEST_SEED[2:] not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("serve", TEST_SEED), "Got unexpected extra argument (0x[hex]) (see chutes-exporter serve --help)"),
        ((f"--{TEST_SEED}",), "No such option '--0x[hex]' (see chutes-exporter serve --help)"),
        ((f"a\n{TEST_SEED}",), r"No such command 'a\n0x[hex]' (see chutes-exporter --help)"),
        (("status", "--jsn"), "No such option '--jsn'. Did you mean '--json'? (see chutes-exporter status --help)"),
        (("status", "--hotkey"), "Option '--hotkey' requires an argument (see chutes-exporter status --help)"),
    ],
)
def test_an_error_of_the_command_line_is_one_line_without_a_seed(arguments: tuple[str, ...], line: str) -> None:
    result = run(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"Error: {line}\n")


@pytest.mark.parametrize(
    ("arguments", "variables", "line"),
    [
        (
            ("--hotkey-file", "/nowhere/a\nb\x1b[31m"),
            {},
            (
                r"Error: --hotkey-file: cannot read the hotkey file /nowhere/a\nb\x1b[31m: No such file or directory. "
                "Check the path and its permissions"
            ),
        ),
        (
            (),
            {"HOTKEY": "/nowhere/a\rb"},
            (
                r"Error: HOTKEY: cannot read the hotkey file /nowhere/a\rb: No such file or directory. "
                "Check the path and its permissions"
            ),
        ),
        (
            ("--web.config.file", "/nowhere/a\u2028b"),
            {},
            (
                r"Error: --web.config.file: cannot read /nowhere/a\u2028b: No such file or directory. "
                "Check the path and its permissions"
            ),
        ),
        (
            ("--web.listen-address", "unix:/nowhere/a\nb"),
            {},
            (
                r"Error: --web.listen-address: cannot listen on unix:/nowhere/a\nb: No such file or directory. "
                "Choose another address"
            ),
        ),
        (
            ("-hotkey-file=a\nb",),
            {},
            r"Error: -hotkey-file=a\nb has only one dash: write --hotkey-file=a\nb (see chutes-exporter --help)",
        ),
    ],
)
def test_an_error_is_one_line_whatever_a_path_contains(
    arguments: tuple[str, ...], variables: dict[str, str], line: str
) -> None:
    result = run(*arguments, **variables)
    assert result.stderr.rpartition("\n\n")[2] == f"{line}\n"


def first_lines(count: int, *arguments: str, **variables: str) -> str:
    """Return the first lines of the log of the command."""
    process = subprocess.Popen([COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env=environment(**variables))
    assert process.stderr is not None
    lines = "".join(process.stderr.readline() for _ in range(count))
    process.terminate()
    process.communicate(timeout=20)
    return lines


@pytest.mark.parametrize("command", [(), ("demo", "--simulator.listen-address", "127.0.0.1:0")])
def test_an_unknown_variable_causes_a_warning_with_the_nearest_name(command: tuple[str, ...]) -> None:
    line = first_lines(1, *command, *LISTEN, CHUTES_EXPORTER_HOTKEYS=HOTKEY)
    assert "level=warning" in line
    assert "CHUTES_EXPORTER_HOTKEYS is unknown and has no effect: the nearest name is CHUTES_EXPORTER_HOTKEY" in line


def test_the_start_is_logged_with_the_watched_miners_and_the_collectors_that_are_off() -> None:
    line = first_lines(1, *LISTEN, "--no-collector.scores", "--hotkey", HOTKEY, "--api.url", "http://127.0.0.1:9")
    assert f"watched={HOTKEY} " in line
    assert "off_by_flag=scores" in line
    assert re.search(r'off_without_key="[a-z_ ]*servers', line)
    assert "off_by_default" not in line
    assert "off_without_hotkey" not in line


def test_without_a_hotkey_the_start_is_logged_with_the_whole_subnet() -> None:
    line = first_lines(1, *LISTEN, "--api.url", "http://127.0.0.1:9")
    assert 'watched="whole subnet"' in line
    assert 'off_without_hotkey="instance_gpus unique_chute_history"' in line
    assert "off_by_default=stats_per_chute" in line


@pytest.mark.parametrize("arguments", [("--hotkey", HOTKEY), ("--miners", "all")])
def test_an_empty_variable_does_not_matter_beside_an_explicit_choice(arguments: tuple[str, ...]) -> None:
    line = first_lines(
        2, *LISTEN, *arguments, "--api.url", "http://127.0.0.1:9", MINER_SS58="", CHUTES_EXPORTER_HOTKEY=""
    )
    assert "CHUTES_EXPORTER_HOTKEY is empty and has no effect" in line
    assert "msg=listening" in line


def test_a_cold_key_is_refused(tmp_path: Path) -> None:
    result = run("--hotkey-file", cold_key(tmp_path))
    assert result.returncode == 1
    assert "cold key" in result.stderr


def test_serving_without_collectors_logs_a_warning() -> None:
    off = [f"--no-collector.{name}" for name in ("metagraph", "scores", "stats", "metrics", "utilization", "bounties")]
    process = subprocess.Popen([COMMAND, *LISTEN, *off], stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stderr is not None
    line = process.stderr.readline()
    process.terminate()
    process.communicate(timeout=20)
    assert "no collector is on" in line


def test_a_hotkey_file_that_others_can_read_causes_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "hot"
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    path.chmod(0o644)
    process = subprocess.Popen(
        [COMMAND, *LISTEN, "--hotkey-file", str(path)], stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    process.terminate()
    process.communicate(timeout=20)
    assert "level=warning" in line
    assert "chmod 600" in line
