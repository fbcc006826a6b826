"""The pictures of the README, and how `make pictures` asks what a dashboard asks."""

from __future__ import annotations

import hashlib
import itertools
import time
from typing import TYPE_CHECKING

import pytest

from grafana.boards import BOARDS
from tests.grafana.pictures import HOURS, PICTURES, STEP, SUMS, WORLDS, boards, forget, parse_arguments, rule_levels
from tests.grafana.queries import Variable, Window, all_panels, filled, seconds_back, taken, variable
from tests.support import ROOT, History, Prometheus, series

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 250_000
"""Bytes of a picture, so that the README loads fast."""


def test_the_pictures_are_of_the_boards_as_they_are() -> None:
    drawn = dict(line.split()[::-1] for line in (PICTURES / SUMS).read_text().splitlines())
    assert drawn.keys() == {f"{board.uid}.json" for board in BOARDS}
    for board in BOARDS:
        source = ROOT / "grafana" / "dashboards" / f"{board.uid}.json"
        assert drawn[source.name] == hashlib.sha256(source.read_bytes()).hexdigest(), "run `make pictures`"


def test_every_board_has_a_picture_of_a_healthy_and_of_a_sick_miner() -> None:
    names = {f"{board.uid}{ending}.png" for board in BOARDS for ending in WORLDS.values()}
    assert {path.name for path in PICTURES.iterdir()} == {SUMS, *names}
    for name in names:
        assert 10_000 < (PICTURES / name).stat().st_size < LARGEST, name


def test_the_simulated_day_reaches_back_beyond_the_time_range() -> None:
    assert HOURS[0] > 24
    assert HOURS[-1] == STEP / 3600
    assert {round((a - b) * 3600) for a, b in itertools.pairwise(HOURS)} == {STEP}


def test_a_rule_is_evaluated_after_the_rules_that_it_reads() -> None:
    expressions = {"a:x:sum": "sum(b:x:sum)", "b:x:sum": "sum(x)", "c:x:max": "max(a:x:sum or b:x:sum)", "d:y": "y"}
    assert rule_levels(expressions) == [["b:x:sum", "d:y"], ["a:x:sum"], ["c:x:max"]]
    with pytest.raises(ValueError, match="read each other: a, b"):
        rule_levels({"a": "b", "b": "a"})


def test_series_that_are_replaced_are_forgotten_and_all_others_stay(tmp_path: Path) -> None:
    at = time.time() - 600
    history = History(tmp_path, job="chutes")
    history.add(at, {series("up"): 1.0, series("job:up:sum1d"): 2.0})
    history.load()
    forget(tmp_path, ["job:up:sum1d"])
    with Prometheus(tmp_path) as prometheus:
        prometheus.at = at + 60
        assert list(prometheus.query("up").values()) == [1.0]
        assert not prometheus.query("job:up:sum1d")


def test_without_arguments_everything_of_the_readme_is_drawn() -> None:
    parsed = parse_arguments([])
    assert parsed.board == boards() == sorted(board.uid for board in BOARDS)
    assert parsed.world == list(WORLDS)
    assert parsed.width == [1600]


def test_pictures_of_other_widths_and_worlds_need_a_directory(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--width", "800"], ["--world", "down"], ["--open"]):
        with pytest.raises(SystemExit):
            parse_arguments(arguments)
        assert "need --output" in capsys.readouterr().err
    assert parse_arguments(["--width", "800", "--output", "somewhere"]).width == [800]


def test_variables_are_filled_in_with_and_without_braces() -> None:
    values = {"job": ".+", "__range": "86400s"}
    text = 'a{job=~"$job"}[$__range] + b{job=~"${job}"} + c{job=~"${job:regex}"}'
    assert filled(text, values) == 'a{job=~".+"}[86400s] + b{job=~".+"} + c{job=~".+"}'


def test_a_group_of_label_replace_is_no_variable_and_an_unknown_variable_is_an_error() -> None:
    assert filled('label_replace(a, "name", "$1", "id", "(.+)")', {}) == 'label_replace(a, "name", "$1", "id", "(.+)")'
    with pytest.raises(KeyError, match="jbo"):
        filled('a{job=~"$jbo"}', {"job": ".+"})


def test_all_of_a_variable_is_its_own_value_or_every_option() -> None:
    declared = {"multi": True, "includeAll": True, "current": {"value": ["$__all"]}}
    assert variable({**declared, "allValue": ".+"}, {"a": "A", "b": "B"}) == Variable("All", ".+")
    assert variable(declared, {"a": "A", "b": "B"}) == Variable("All", "(a|b)")
    assert variable({"includeAll": True}, {"a": "A"}) == Variable("All", "(a)")


def test_a_choice_of_values_is_quoted_where_queries_expect_a_regular_expression() -> None:
    several = {"multi": True, "current": {"value": ["a.b", "c"]}}
    options = {"a.b": "first", "c": "second", "d": "third"}
    assert variable(several, options) == Variable("first + second", r"(a\\.b|c)")
    assert variable({"multi": True, "current": {"value": ["a.b"]}}, options) == Variable("first", r"a\\.b")
    assert variable({"current": {"value": "gone"}}, options) == Variable("first", "a.b")


def test_value_and_text_of_an_option_are_taken_by_the_names_of_their_groups() -> None:
    option = '{hotkey="5GNoccccc1Wti", miner="5GNoc…1Wti"} 1 2'
    pattern = '/hotkey="(?<value>[^"]+)|miner="(?<text>[^"]+)/g'
    assert taken(pattern, option) == ("5GNoccccc1Wti", "5GNoc…1Wti")
    assert taken('/hotkey="([^"]+)/', option) == ("5GNoccccc1Wti", "5GNoccccc1Wti")
    assert taken("/nothing/", option) == ("", "")


def test_the_time_range_is_what_grafana_fills_in() -> None:
    window = Window(end=100_000, seconds=seconds_back("now-24h"), step=300)
    assert window.start == 13_600
    assert window.variables["__range"] == "86400s"
    assert window.variables["__rate_interval"] == "1200s"
    with pytest.raises(ValueError, match="no relative time"):
        seconds_back("2026-01-01")


def test_panels_in_collapsed_rows_are_asked_as_well() -> None:
    inside = {"type": "stat", "id": 2}
    after = {"type": "stat", "id": 4}
    dashboard = {"panels": [{"type": "row", "id": 1, "panels": [inside]}, {"type": "row", "id": 3}, after]}
    assert list(all_panels(dashboard)) == [inside, after]
