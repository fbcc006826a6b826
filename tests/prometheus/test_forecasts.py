"""Forecasts of score and pay. Each number is worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.prometheus.scenario import HOTKEY, Scenario
from tests.prometheus.test_boards import asked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAIR = ("one:1", "two:2")
SCORE = "hotkey:chutes_miner_score_ratio:in24h"
PAY = "hotkey:chutes_miner_estimated_usd:next24h"
ME = f'{{hotkey="{HOTKEY}"}}'
NEXT_DAY = asked("chutes-overview", "Next 24 h", 0)
ABOUT = asked("chutes-subnet", "Score in 24 h", 1)


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
