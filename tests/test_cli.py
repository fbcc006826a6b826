from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import click
import httpx
import pytest

from chutes_exporter.cli import cli
from chutes_exporter.commands.serve import Service
from tests.pages import parse_page, series
from tests.program import run, running, start
from tests.support import HOTKEY, PATIENCE, PATIENT, TEST_SEED
from tests.test_credentials import OTHER, PRIVATE_KEY

MINE = f"MINER_SEED={TEST_SEED} MINER_SS58={HOTKEY}"


def test_a_seed_is_never_a_flag() -> None:
    flags: set[str] = set()
    for command in cli.commands.values():
        for parameter in command.params:
            flags.update(parameter.opts)
    like_secrets = {flag for flag in flags if flag.endswith(("seed", "key"))}
    # It takes an address.
    assert like_secrets == {"--hotkey"}


NO_API = "VALIDATOR_API=http://127.0.0.1:9"
ONE_WRONG = HOTKEY[:-1] + "j"
# A line as in a shell, and what is printed.
REFUSED = {
    # Hotkeys and their files.
    "--hotkey nonsense": "(not shown, 8 characters) is not an SS58 address of Bittensor: copy it",
    f"CHUTES_EXPORTER_HOTKEY={ONE_WRONG}": "Error: Invalid value for '--hotkey' (env var: "
    f"'CHUTES_EXPORTER_HOTKEY'): '{ONE_WRONG}' is not an SS58 address of Bittensor: copy it again",
    f"--hotkey {TEST_SEED[2:]}": "is not an SS58 address",
    f"HOTKEY={TEST_SEED}": "Error: --hotkey-file (CHUTES_EXPORTER_HOTKEY_FILE or HOTKEY): cannot "
    "read the hotkey file 0x[hex]: No such file or directory",
    # Keys in variables. The Secret of the first three has neither entry.
    f"MINER_SS58={HOTKEY}": "Error: MINER_SS58 needs a key: set MINER_SEED or MINER_PRIVATE_KEY",
    f"MINER_SS58={HOTKEY} {NO_API} check": "MINER_SS58 needs a key: set MINER_SEED or MINER_PRI",
    f"MINER_SS58={OTHER} MINER_PRIVATE_KEY={PRIVATE_KEY}": "the key does not belong to the given "
    f"address, but to {HOTKEY}",
    f"MINER_SS58={HOTKEY} MINER_PRIVATE_KEY={'f' * 128}": "no key of the type sr25519",
    f"MINER_SEED=0x12 MINER_SS58={HOTKEY}": "MINER_SEED and MINER_SS58: a seed has 64 hexadecima",
    f"MINER_SEED={TEST_SEED}": f"the address is missing: the key is that of {HOTKEY}",
    f"MINER_SEED=0x12 {NO_API} check --hotkey {HOTKEY}": f"If you remove it, {HOTKEY} is watched",
    f"CHUTES_EXPORTER_HOTKEY={HOTKEY} HOTKEY=/x": "Error: --hotkey-file (CHUTES_EXPORTER_HOTKEY_FI",
    f"HOTKEY=/nowhere {NO_API} check": "HOTKEY): cannot read the hotkey file /nowhere: No such",
    f"HOTKEY={HOTKEY} {NO_API} check": "No such file or directory. For an address, use --hotkey",
    # The whole subnet is never watched by accident.
    "status": "Error: status needs a miner: add --hotkey or --hotkey-file",
    "--miners WATCHED": "Error: --miners watched needs a watched miner: add --hotkey or --hotkey-",
    "CHUTES_EXPORTER_CHUTES=relevant": "Error: --chutes (CHUTES_EXPORTER_CHUTES) relevant needs a",
    "CHUTES_EXPORTER_HOTKEY=' '": "Error: CHUTES_EXPORTER_HOTKEY is empty: set it or unset it",
    # Addresses.
    "VALIDATOR_API=nonsense": "'VALIDATOR_API'): it is not an address of an API (its form is wrong",
    f"--api.url=https://u:{TEST_SEED[2:22]}@x": "it is not an address of an API",
    f"{MINE} VALIDATOR_API=HTTP://x query chute x": "Warning: --api.url (CHUTES_EXPORTER_API_URL "
    "or VALIDATOR_API): signatures go to http://x without encryption",
    "HTTPS_PROXY=garbage://x": "HTTPS_PROXY",
    f"HTTPS_PROXY=garbage://x CHUTES_EXPORTER_HOTKEY={HOTKEY} status": "HTTPS_PROXY",
    # Numbers.
    "--api.timeout=nan": "'nan' is not a number above 0",
    "--gpu.cost=h200=nan": "Invalid value for '--gpu.cost' (env var: 'CHUTES_EXPORTER_GPU_COST'): "
    "'nan' is not a number above 0",
    # The web server and collectors.
    "--web.config.file /dev/zero": "--web.config.file: cannot read /dev/zero: it is not a regular",
    "CHUTES_EXPORTER_WEB_CONFIG_FILE=/nowhere": "--web.config.file (CHUTES_EXPORTER_WEB_CONFIG_FI"
    "LE): cannot read /nowhere",
    f"CHUTES_EXPORTER_WEB_CONFIG_FILE=/nowhere {NO_API} check": "cannot read /nowhere",
    "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS=192.0.2.1:1": "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS): cannot"
    " listen on 192.0.2.1:1: ",
    "--collector.chain": "Error: --collector.chain needs a node of the chain: add --chain.url",
    "CHUTES_EXPORTER_COLLECTOR_NODES=1": "(CHUTES_EXPORTER_COLLECTOR_NODES) needs a hotkey's key",
    # Other commands.
    "demo --from 25:00": "'25:00' is no time of the day: write",
    "demo --from 6": "'6' is no time of the day: write hours and minutes, as in 06:00",
    "query nodes": "the request must be signed: add --hotkey-file, or set MINER_SS58 with a key",
    f"advise --hotkey {HOTKEY}": "add --hotkey-file, or set MINER_SS58 with a key",
    f"{MINE} query chute x": "the IDs do not fit: write query chute CHUTE_ID VERSION",
    f"serve {TEST_SEED}": "unexpected extra argument (0x[hex]) (see chutes-exporter serve --help)",
    f"--{TEST_SEED}": "No such option '--0x[hex]'",
    "status --jsn": "Did you mean '--json'?",
}


@pytest.mark.parametrize(("line", "words"), REFUSED.items(), ids=REFUSED)
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


MNEMONIC = "legal winner thank year wave sausage worth useful legal winner thank yellow"
PLACES = "--hotkey-file --api.timeout --log.level --gpu.cost --web.listen-address"


@pytest.mark.parametrize("flag", [*PLACES.split(), "--hotkey", "--api.url", "--chain.url"])
def test_a_value_in_a_wrong_place_shows_no_secret_and_not_all_of_a_long_text(flag: str) -> None:
    values = {
        MNEMONIC: "sausage",
        "https://user:pass/word@host/x": "s/word",
        "x" * 10**5: "x" * 300,
    }
    for value, secret in values.items():
        ended = run("serve", flag, value)
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr
        assert secret not in ended.stderr


def test_a_reader_of_the_output_that_has_gone_does_not_mean_that_action_is_needed() -> None:
    process = start("serve", "--help")
    assert process.stdout is not None
    # As `head` does, after it has read enough.
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_every_flag_has_a_variable_of_its_name_and_both_are_in_the_help() -> None:
    for name, command in cli.commands.items():
        words = "".join(run(name, "--help").stdout.split())
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.envvar is not None:
                flag = parameter.opts[0].removeprefix("--")
                assert parameter.envvar[0] == "CHUTES_EXPORTER_" + re.sub(r"\W", "_", flag).upper()
                assert f"--{flag}" in words
                assert f"[envvar:{','.join(parameter.envvar)}" in words


def test_every_setting_can_come_from_the_environment() -> None:
    variables = {
        "MINER_SEED": TEST_SEED,
        "MINER_SS58": HOTKEY,
        "CHUTES_EXPORTER_HOTKEY": OTHER,
        "VALIDATOR_API": "http://127.0.0.1:9",
        "CHUTES_EXPORTER_CHAIN_URL": "http://127.0.0.1:9",
        "CHUTES_EXPORTER_WEB_LISTEN_ADDRESS": "127.0.0.1:0",
        "CHUTES_EXPORTER_COLLECTOR_SCORES": "false",
        "CHUTES_EXPORTER_COLLECTOR_IMAGE_DETAILS": "true",
        "CHUTES_EXPORTER_HOTKEYS": HOTKEY,
        # Those of a Service in Kubernetes are no mistake.
        "CHUTES_EXPORTER_SERVICE_HOST": "10.0.0.1",
        "CHUTES_EXPORTER_PORT": "tcp://10.0.0.1:10064",
    }
    with running("serve", "--log.format", "json", **variables) as service:
        answer = httpx.get(f"{service.url}/metrics", headers=PATIENT, timeout=PATIENCE)
    page = parse_page(answer.text)
    assert page[series("chutes_miner_watched", hotkey=OTHER)] == 1
    assert series("chutes_scrape_collector_success", collector="servers", hotkey=HOTKEY) in page
    lines = [json.loads(line) for line in service.lines]
    (start,) = (line for line in lines if line["msg"] == "listening")
    assert start["watched"].split() == sorted([HOTKEY, OTHER])
    assert start["off_by_flag"] == "scores"
    assert "image_details" in start["collectors"].split()
    # Only the misspelt variable, which ends with an S too many, is unknown.
    (unknown,) = (line["reason"] for line in lines if "is unknown" in line.get("reason", ""))
    reason = "is unknown and has no effect: see chutes-exporter --help"
    assert unknown == f"CHUTES_EXPORTER_HOTKEYS {reason}"


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "chutes_exporter", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert result.stdout.startswith("chutes-exporter 0.")


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
