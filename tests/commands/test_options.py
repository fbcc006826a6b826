from __future__ import annotations

import re

import click
import httpx
import pytest

from chutes_exporter.cli import cli
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.feeds.definitions import FEEDS
from chutes_exporter.simulator.world import TEST_SEED
from tests.support import HOTKEY, PATIENCE, PATIENT, parse_page, series
from tests.test_cli import run, running
from tests.test_credentials import OTHER


def test_the_help_of_a_command_groups_its_flags_by_topic() -> None:
    text = run("help", "serve").stdout
    assert text.startswith("Usage: chutes-exporter serve ")
    assert text == run("serve", "--help").stdout
    topics = re.findall(r"^([A-Z].*):$", text, re.MULTILINE)
    assert topics == ["Miners", "Chutes API", "Web server", "Data", "Money", "Log", "Options"]
    assert text.count("\n") <= 100
    assert "collector.NAME  CHUTES_EXPORTER_COLLECTOR_NAME\n" in text
    assert "[default: https://api.chutes.ai]" in text
    assert "collector" not in run("help", "status").stdout


@pytest.mark.parametrize("topic", [*cli.commands, "collectors", "feeds"])
@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal_and_breaks_no_name(topic: str, columns: int) -> None:
    text = run("help", topic, COLUMNS=str(columns)).stdout
    assert max(map(len, text.splitlines())) <= columns
    assert not re.search("[-_/=]$", text, re.MULTILINE)
    for one in cli.commands[topic].params if topic in cli.commands else ():
        if isinstance(one, click.Option) and not one.hidden:
            assert all(f" {name}" in text for name in (*one.opts, *(one.envvar or ())))


def test_help_lists_the_collectors_and_the_feeds() -> None:
    words = " ".join(run("help", "collectors").stdout.split())
    for collector in COLLECTORS:
        assert (
            f" {collector.name} {collector.summary} [default: {collector.default_in_words}]"
            in words
        )
    assert re.findall(
        r"^(\w+) +.* fresh, dropped after ", run("help", "feeds").stdout, re.MULTILINE
    ) == [feed.name for feed in FEEDS]


def test_every_flag_has_an_environment_variable_of_its_name() -> None:
    for parameter in cli.commands["serve"].params:
        variable = (
            "CHUTES_EXPORTER_" + re.sub(r"[.-]", "_", parameter.opts[0].removeprefix("--")).upper()
        )
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
        page = parse_page(
            httpx.get(f"{service.url}/metrics", headers=PATIENT, timeout=PATIENCE).text
        )
    collectors = {
        dict(labels)["collector"]
        for name, labels in page
        if name == "chutes_scrape_collector_success"
    }
    on = {collector.name for collector in COLLECTORS if collector.default != "off"}
    assert collectors == on - {"scores"} | {"image_details"}
    assert page[series("chutes_miner_watched", hotkey=OTHER)] == 1
    assert series("chutes_scrape_collector_success", collector="servers", hotkey=HOTKEY) in page
    (warning,) = [
        line for line in service.lines if "level=warning" in line and "is unknown" in line
    ]
    assert (
        "CHUTES_EXPORTER_HOTKEYS is unknown and has no effect: the nearest name is "
        "CHUTES_EXPORTER_HOTKEY" in warning
    )
