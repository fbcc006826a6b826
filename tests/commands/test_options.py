from __future__ import annotations

import re

import click
import httpx
import pytest

from chutes_exporter.cli import cli
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.feeds.definitions import FEEDS
from tests.support import HOTKEY, PATIENCE, PATIENT, TEST_SEED, parse_page, series
from tests.test_cli import run, running
from tests.test_credentials import OTHER


@pytest.mark.parametrize("name", cli.commands)
def test_the_help_of_a_command_has_its_flags_and_their_variables(name: str) -> None:
    text = run("help", name).stdout
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            for written in (*parameter.opts, *(parameter.envvar or ())):
                assert f" {written}" in text


def test_help_lists_the_collectors_and_the_feeds() -> None:
    words = " ".join(run("help", "collectors").stdout.split())
    for collector in COLLECTORS:
        default = f"[default: {collector.default_in_words}]"
        assert f" {collector.name} {collector.summary} {default}" in words
    text = run("help", "feeds").stdout
    listed = re.findall(r"^(\w+) +.* fresh, dropped after ", text, re.MULTILINE)
    assert listed == [feed.name for feed in FEEDS]


def test_every_flag_has_an_environment_variable_of_its_name() -> None:
    for parameter in cli.commands["serve"].params:
        flag = parameter.opts[0].removeprefix("--")
        variable = "CHUTES_EXPORTER_" + re.sub(r"[.-]", "_", flag).upper()
        assert parameter.envvar[0] == variable  # type: ignore[index]


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
    with running(**variables) as service:
        answer = httpx.get(f"{service.url}/metrics", headers=PATIENT, timeout=PATIENCE)
    page = parse_page(answer.text)
    success = "chutes_scrape_collector_success"
    collectors = {dict(labels)["collector"] for name, labels in page if name == success}
    on = {collector.name for collector in COLLECTORS if collector.default != "off"}
    assert collectors == on - {"scores"} | {"image_details"}
    assert page[series("chutes_miner_watched", hotkey=OTHER)] == 1
    assert series(success, collector="servers", hotkey=HOTKEY) in page
    # Only the misspelt variable, which ends with an S too many, is unknown.
    warnings = [line for line in service.lines if "level=warning" in line]
    (unknown,) = (line for line in warnings if "is unknown" in line)
    reason = "is unknown and has no effect: the nearest name is CHUTES_EXPORTER_HOTKEY"
    assert f"CHUTES_EXPORTER_HOTKEYS {reason}" in unknown
