"""Which absence a tile tells, for each way in which its number may be missing."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from grafana.parts import or_absence
from grafana.states import ABSENCES, DOWN, NO_DATA, NO_KEY, NOTHING, OFF
from tests.grafana.scenes import filled_in

if TYPE_CHECKING:
    from pathlib import Path

ME = "5Me"


def s(name: str, /, **labels: str) -> str:
    every = {"job": "chutes", "instance": "exporter:10064", **labels}
    return f"{name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in every.items())}}}"


LIVE = {s("chutes_exporter_build_info"): 1, s("up"): 1, s("chutes_miner_watched", hotkey=ME): 1}
KEYED = {s("chutes_feed_ttl_seconds", feed=feed, hotkey=ME): 45 for feed in ("servers", "nodes", "inventory")}
GOOD = s("chutes_scrape_collector_success", collector="fleet", hotkey=ME)
PLATFORM = s("chutes_scrape_collector_success", collector="chutes")
CASES = {
    "all that was asked was answered": ("fleet", {**LIVE, **KEYED, GOOD: 1}, NOTHING),
    "one of its feeds fails": ("fleet", {**LIVE, **KEYED, GOOD: 0}, NO_DATA),
    "records could not be read": (
        "fleet",
        {**LIVE, **KEYED, GOOD: 1, s("chutes_feed_rejected_records", feed="inventory", hotkey=ME): 1},
        NO_DATA,
    ),
    "an answer is doubted": (
        "fleet",
        {**LIVE, **KEYED, GOOD: 1, s("chutes_feed_doubted", feed="nodes", hotkey=ME, reason="disagrees"): 1},
        NO_DATA,
    ),
    "the collector is cut": (
        "fleet",
        {**LIVE, **KEYED, GOOD: 1, s("chutes_scrape_collector_cut", collector="fleet"): 1},
        NO_DATA,
    ),
    "the collector is off": ("fleet", {**LIVE, **KEYED}, OFF),
    "there is no key": ("fleet", LIVE, NO_KEY),
    "there is no key for what is the platform's": ("chutes", LIVE, NO_KEY),
    "the platform has none": ("chutes", {**LIVE, **KEYED, PLATFORM: 1}, NOTHING),
    "what needs no key is off": ("scores", LIVE, OFF),
}


def says(directory: Path, collector: str, series: dict[str, float | str], expected: float | None, minute: int) -> str:
    path = directory / "test.yml"
    samples = [] if expected is None else [{"labels": "{}", "value": expected}]
    test = {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": value if isinstance(value, str) else f"{value}+0x60"}
            for name, value in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": filled_in(f"max({or_absence('chutes_missing', collector)})", [ME]),
                "eval_time": f"{minute}m",
                "exp_samples": samples,
            }
        ],
    }
    path.write_text(json.dumps({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}))
    result = subprocess.run(
        ["promtool", "test", "rules", str(path)],  # noqa: S607 - Debian's, from the path
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if result.returncode == 0 else result.stdout + result.stderr


@pytest.mark.parametrize("case", CASES)
def test_an_empty_tile_says_why_it_is_empty(tmp_path: Path, case: str) -> None:
    collector, series, expected = CASES[case]
    assert says(tmp_path, collector, dict(series), expected, 10) == ""


def test_a_tile_tells_that_the_exporter_is_down_or_that_there_never_was_one(tmp_path: Path) -> None:
    gone: dict[str, float | str] = {s("chutes_exporter_build_info"): "1+0x5 _x60", s("up"): "1+0x5 0+0x60"}
    assert says(tmp_path, "fleet", gone, DOWN, 20) == ""
    assert says(tmp_path, "fleet", {}, None, 20) == ""


def test_every_empty_value_is_explained_in_a_panel() -> None:
    assert {state.value for state in ABSENCES} == {DOWN, *(expected for _, _, expected in CASES.values())}
