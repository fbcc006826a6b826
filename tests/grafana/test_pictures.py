"""The pictures of the README, and the simulated day that they show."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from grafana import states
from grafana.__main__ import DASHBOARDS
from grafana.boards import BOARDS
from grafana.draw import PICTURES, SUMS, WORLDS, older, parse_arguments, read_sums
from grafana.worlds import World
from tests.grafana.scenes import END, scene
from tests.support import ROOT

LARGEST = 250_000
"""Bytes of a picture, so that the README loads fast."""
COLORS = """
globalThis.window = globalThis;
const { colors, visualization } = require('@grafana/data').createTheme({ colors: { mode: 'dark' } });
const found = process.argv.slice(1).map((name) => visualization.getColorByName(name));
console.log(JSON.stringify([colors.background.primary, ...found]));
"""
"""Prints the colours of Grafana's dark theme: the background of a panel, and those of the names."""


def test_a_picture_is_older_than_a_dashboard_that_has_changed_or_is_new(tmp_path: Path) -> None:
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in DASHBOARDS.iterdir()}
    dashboards = Path(shutil.copytree(DASHBOARDS, tmp_path / "dashboards"))
    assert older(sums, dashboards) == []
    (dashboards / "chutes-fleet.json").write_text("{}")
    (dashboards / "chutes-new.json").write_text("{}")
    assert older(sums, dashboards) == ["chutes-fleet", "chutes-new"]


def test_every_board_has_a_picture_of_a_healthy_and_of_a_sick_miner() -> None:
    names = {f"{board.uid}{ending}.png" for board in BOARDS for ending in WORLDS.values()}
    assert {path.name for path in PICTURES.iterdir()} == {SUMS.name, *names}
    assert read_sums(SUMS).keys() == {f"{board.uid}.json" for board in BOARDS}
    for name in names:
        assert 10_000 < (PICTURES / name).stat().st_size < LARGEST, name


@pytest.mark.soak
async def test_every_gpu_is_in_one_state_at_every_point(tmp_path: Path) -> None:
    # A time in which instances crash and start again, with two scrapes within Prometheus' look back.
    minutes = range(15, -1, -5)
    async with scene(World.SICK, tmp_path, [before / 60 for before in minutes], readme=True) as found:
        for name in ("hotkey_state:chutes_fleet_gpus:sum", "hotkey_server_id_gpu_state:chutes_gpus:count"):
            answer = found.prometheus.api("query_range", query=f"sum({name})", start=END - 900, end=END, step=300)
            (series,) = answer["data"]["result"]
            assert [float(value) for _, value in series["values"]] == [found.answers.gpus] * len(minutes)


def test_pictures_of_other_widths_and_worlds_need_a_directory(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--width", "800"], ["--world", "down"], ["--open"]):
        with pytest.raises(SystemExit):
            parse_arguments(arguments)
        assert "need --output" in capsys.readouterr().err
    assert parse_arguments(["--width", "800", "--output", "somewhere"]).width == [800]


def luminance(color: str) -> float:
    """Return the relative luminance of a colour, as the Web Content Accessibility Guidelines define it."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_has_enough_contrast() -> None:
    tables = [value for value in vars(states).values() if isinstance(value, tuple)]
    names = sorted({state.color for table in tables for state in table} - {states.PLAIN})
    command = ["node", "-e", COLORS, *names]
    display = ROOT / "grafana" / "display"
    background, *colors = json.loads(subprocess.run(command, cwd=display, check=True, capture_output=True).stdout)
    for name, color in zip(names, colors, strict=True):
        assert (luminance(color) + 0.05) / (luminance(background) + 0.05) >= 4.5, name
    # So that colour-blind people can tell earning from unverified.
    shown = dict(zip(names, map(luminance, colors), strict=True))
    assert (shown[states.GREEN] + 0.05) / (shown[states.RED] + 0.05) >= 2
