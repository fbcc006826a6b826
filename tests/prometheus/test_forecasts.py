"""Forecasts of score and pay. Each number is worked out by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.prometheus.scenario import GROUPS, HOTKEY, Scenario, run_promtool
from tests.prometheus.test_boards import asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

PAIR = ("one:1", "two:2")
SCORE, BOUNDS = (
    "hotkey:chutes_miner_score_ratio:in24h",
    "hotkey_bound:chutes_miner_score_ratio:in24h",
)
PAY = "hotkey:chutes_miner_estimated_usd:next24h"
ME = f'{{hotkey="{HOTKEY}"}}'
NEXT_DAY = asked("chutes-overview", "Next 24 h", 0)
ABOUT, AT_LEAST, AT_MOST = (asked("chutes-subnet", "Score in 24 h", number) for number in (1, 2, 3))


def forecast_miner(exporters: Sequence[str] = PAIR) -> Scenario:
    """A miner whose score of 2 % heads for 3 %. All miners are paid 1,000 dollars a day.

    After 43 % of the way, its score in a day is 2.43 %. After 26 %, on average of the day, its pay
    is 2.26 % of the dollars.
    """
    miner = Scenario(30, exporters=exporters).set("chutes_feed_ttl_seconds", 300, feed="nodes")
    miner.set("chutes_miner_score_heading_ratio", 0.03)
    miner.set("chutes_subnet_emission_alpha_per_day", 100).set("chutes_alpha_price_usd", 10)
    return miner


def rounded(name: str) -> str:
    """Return a query whose value a test can write."""
    return f"round({name}, 0.000001)"


def test_score_and_pay_go_a_part_of_the_way_to_the_heading_and_two_exporters_double_nothing(
    tmp_path: Path,
) -> None:
    # 2 % and 43 % of the way to 3 %, and 1,000 dollars times 2 % and 26 % of the way.
    values = {
        rounded(SCORE): (5, {ME: 0.0243}),
        rounded(PAY): (5, {ME: 22.6}),
        rounded(f"sum({NEXT_DAY})"): (5, {"{}": 22.6}),
        rounded(f"sum({ABOUT})"): (5, {"{}": 0.0243}),
    }
    forecast_miner().check(tmp_path, {}, values=values)


def test_a_forecast_is_absent_while_a_part_of_it_is_unknown(tmp_path: Path) -> None:
    needed_by_both = ("chutes_miner_score_ratio", "chutes_miner_score_heading_ratio")
    needed_by_pay = ("chutes_subnet_emission_alpha_per_day", "chutes_alpha_price_usd")
    for name in (*needed_by_both, *needed_by_pay):
        miner = forecast_miner().drop(0, name)
        # The score of 2 % after 43 % of the way to 3 %.
        scores = {} if name in needed_by_both else {ME: 0.0243}
        values = {
            rounded(SCORE): (5, scores),
            PAY: (5, {}),
            # The board says that it is not known.
            NEXT_DAY: (5, {}),
        }
        miner.check(tmp_path, {}, values=values)


def test_the_pay_of_a_seat_that_cannot_score_is_unknown(tmp_path: Path) -> None:
    for name, number, alert in (
        ("chutes_miner_registered", 0, "ChutesMinerDeregistered critical"),
        ("chutes_miner_blacklisted", 1, "ChutesMinerBlacklisted critical"),
    ):
        miner = forecast_miner().set(name, number)
        miner.check(tmp_path, {}, ever=[alert], values={PAY: (5, {}), NEXT_DAY: (5, {})})


DAY = 24
"""Hours."""
CHANGES = (1.0, 1.0, 0.8, 1.25, 0.5, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""What the score of each day is of that of the day before. The worst and the best day of 14 are
beyond the bounds, and the second worst and the second best are the bounds.
"""
LAST = 16 * DAY - 1
GROUPS_OF_FORECASTS = (
    "chutes-recordings",
    "chutes-forecast-recordings",
    "chutes-hourly-recordings",
)
"""The groups of rules that forecasts need, in the order in which they read each other."""


def scores_of_16_days() -> list[float]:
    """Return the score share in each hour."""
    score = 0.02
    hourly = [score] * DAY
    for change in CHANGES:
        score *= change
        hourly += [score] * DAY
    return hourly


def check_history(
    path: Path,
    hours: Iterable[int],
    shown: dict[str, tuple[int, dict[str, float]]],
    watched: str = HOTKEY,
) -> None:
    """Check recordings of a miner whose heading is always its score.

    Args:
        path: Of the file for promtool.
        hours: Those in which two exporters know the score.
        shown: By expression: an hour, and the value of each series.
        watched: The hotkey of the miner that is watched.
    """
    known = set(hours)
    scores = scores_of_16_days()
    values = []
    for hour, score in enumerate(scores):
        values.append(str(score) if hour in known else "stale")
    series = []
    for exporter in PAIR:
        target = f'job="chutes",instance="{exporter}"'
        for name in ("chutes_miner_score_ratio", "chutes_miner_score_heading_ratio"):
            of_miner = f'{name}{{hotkey="{HOTKEY}",{target}}}'
            series.append({"series": of_miner, "values": " ".join(values)})
        is_watched = f'chutes_miner_watched{{hotkey="{watched}",{target}}}'
        series.append({"series": is_watched, "values": f"1x{len(scores)}"})
    tests = []
    for expression, (hour, rows) in shown.items():
        samples = [{"labels": row, "value": value} for row, value in rows.items()]
        tests.append({"expr": expression, "eval_time": f"{hour}h", "exp_samples": samples})
    test = {"interval": "1h", "input_series": series, "promql_expr_test": tests}
    # All other rules would take long.
    rules = path.with_name("rules.yml")
    groups = [group for group in GROUPS if group["name"] in GROUPS_OF_FORECASTS]
    rules.write_text(json.dumps({"groups": groups}))
    run_promtool(
        path,
        rule_files=[str(rules)],
        tests=[test],
        group_eval_order=GROUPS_OF_FORECASTS,
        evaluation_interval="1h",
    )


def bound(name: str) -> str:
    """Write a bound's labels."""
    return f'{{bound="{name}",hotkey="{HOTKEY}"}}'


def test_bounds_are_the_quantiles_of_the_own_errors_from_15_days_of_history_on(
    tmp_path: Path,
) -> None:
    # The second worst and the second best of `CHANGES` are the bounds.
    now = scores_of_16_days()[LAST]
    low, high = round(0.8 * now, 6), round(1.25 * now, 6)
    shown: dict[str, tuple[int, dict[str, float]]] = {
        BOUNDS: (15 * DAY - 1, {}),
        f"count({BOUNDS})": (15 * DAY, {"{}": 2}),
        rounded(BOUNDS): (LAST, {bound("lower"): low, bound("upper"): high}),
        rounded(f"sum({AT_LEAST})"): (LAST, {"{}": low}),
        rounded(f"sum({AT_MOST})"): (LAST, {"{}": high}),
        AT_LEAST: (15 * DAY - 1, {}),
        # The heading is the score, so the estimate is the score of that hour. It is a day before
        # the last one.
        rounded(f"sum({ABOUT})"): (15 * DAY - 1, {"{}": round(scores_of_16_days()[-DAY - 1], 6)}),
    }
    check_history(tmp_path / "test.yml", range(LAST + 1), shown)
