"""The documents list every flag of ``serve`` with its default, and every command."""

from __future__ import annotations

import re
from dataclasses import fields

import click
import pytest

from chutes_exporter.cli import cli
from chutes_exporter.config import Settings
from tests.support import ROOT

ROWS = re.findall(
    r"^\| `(--[\w.-]+)[^|]*\| ([^|]+) \|",
    (ROOT / "docs" / "configuration.md").read_text(),
    re.MULTILINE,
)
DOCUMENTED = dict(ROWS)
FLAGS = {
    parameter.opts[0]: parameter
    for parameter in cli.commands["serve"].params
    if isinstance(parameter, click.Option) and not parameter.opts[0].startswith("--collector.")
}


def test_every_flag_is_listed_once() -> None:
    assert [flag for flag, _ in ROWS if flag != "--collector.NAME"] == list(FLAGS)


def test_no_flag_is_dropped() -> None:
    settings = {field.name for field in fields(Settings)}
    # The hotkeys become the watched miners, and the others are used without the settings.
    others = {"hotkeys", "hotkey_files", "log_level", "log_format"}
    assert {flag.name for flag in FLAGS.values()} <= settings | others


# A flag that needs no value has False.
DEFAULTS = {
    flag: option.default
    for flag, option in FLAGS.items()
    if isinstance(option.default, str | int | float | list) and option.default is not False
}


@pytest.mark.parametrize("flag", DEFAULTS)
def test_the_default_of_a_flag_is_listed(flag: str) -> None:
    default = DEFAULTS[flag]
    value = default[0] if isinstance(default, list) else default
    listed = DOCUMENTED[flag].strip("`")
    assert listed == (f"{value:g}" if isinstance(value, float) else str(value))


def test_every_command_is_listed_once() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert "serves metrics, like `chutes-exporter serve` |" in text
    listed = re.findall(r"^\| `chutes-exporter ([\w-]+)", text, re.MULTILINE)
    assert sorted(["serve", *listed]) == sorted(cli.commands)
