"""What the boards say first: the verdict, what is lost in a day, whether the seat is safe, and
whether the boards can be trusted.
"""

from __future__ import annotations

import pytest

from grafana.alerts import verdict_query
from grafana.boards.exporter import TRUSTED
from tests.grafana.answers import filled_in
from tests.prometheus.history import HOTKEY, PAIR
from tests.prometheus.scenario import Scenario
from tests.prometheus.test_boards import ME, asked
from tests.promtool import run_promtool

BLIND = "hotkey_feed:chutes_feed:blind"


def test_the_verdict_says_that_not_all_is_known_or_that_the_exporter_is_down() -> None:
    verdict = filled_in(verdict_query("$hotkey"), [HOTKEY])
    # 1005 is "not all is known".
    for topic in ("gpus", "reports"):
        unknown = Scenario(30).set("chutes_fleet_known", 0, at=10, topic=topic)
        unknown.expect_values(verdict, {20: {"{}": 1005}}).check()
    # The answer does not say whether a job is stuck.
    unclear = Scenario(30).set("chutes_feed_records", 2, feed="jobs")
    unclear.set("chutes_jobs_stuck", 0).drop("chutes_jobs_stuck", at=10)
    unclear.expect_values(verdict, {5: {"{}": 1002}, 20: {"{}": 1005}}).check()
    # Nothing is known until an alert fires.
    gone = Scenario(30).fail_scrapes(at=range(10, 31))
    gone.expect_alerts({12: [], 30: ["ChutesMinerUnwatched critical"]})
    gone.expect_values(verdict, {12: {}, 30: {"{}": 998}}).check()


def test_nothing_is_well_while_prometheus_has_the_recordings_but_not_the_alerts() -> None:
    verdict = filled_in(verdict_query("$hotkey"), [HOTKEY])
    no_alert = asked("chutes-overview", "What is wrong", 1)
    said = [
        {"expr": verdict, "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": 1007}]},
        {"expr": no_alert, "eval_time": "5m", "exp_samples": []},
    ]
    recorded = {"series": f"hotkey:chutes_miner_verdict:number{{{ME}}}", "values": "1002x10"}
    test = {"interval": "1m", "input_series": [recorded], "promql_expr_test": said}
    run_promtool(rule_files=[], tests=[test])


def test_a_feed_is_blind_while_no_exporter_has_a_full_answer() -> None:
    pair = Scenario(30, exporters=PAIR)
    pair.drop("chutes_feed_records", at=10, feed="instances", exporter="one:1")
    pair.drop("chutes_feed_records", at=20, feed="instances", exporter="two:2")
    # Its value is the maximum age of the feed in seconds.
    blind = {f'{BLIND}{{feed="instances",{ME}}}': 600}
    pair.expect_values(BLIND, {15: {}, 25: blind}).check()


def test_the_boards_are_trusted_until_a_feed_is_blind() -> None:
    trusted = filled_in(TRUSTED, [HOTKEY])
    verdict_now = filled_in(verdict_query("$hotkey"), [HOTKEY])
    miner = Scenario(25)
    # A feed with a maximum age is one that the exporter is to have.
    miner.set("chutes_feed_max_age_seconds", 3600, feed="images", hotkey="")
    miner.set("chutes_feed_records", 1, feed="images", hotkey="")
    miner.drop("chutes_feed_records", at=10, feed="images")
    # The stat of trust says "yes" for 2, and "except the feeds below" for 1. The verdict says "all
    # is well" for 1002, and "not all is known" for 1005.
    miner.expect_values(trusted, {5: {"{}": 2}, 15: {"{}": 1}})
    miner.expect_values(verdict_now, {5: {"{}": 1002}, 15: {"{}": 1005}}).check()


@pytest.mark.parametrize(
    ("before", "per_day", "shown"),
    [
        (10, 20, {"Lost within": 43200}),
        (100, 20, {"Lost within": 5 * 86400}),
        (10, 0, {"Registrations": 10}),
        (None, 20, {"Safe": 10**10}),
        # Without a seat, nothing is safe.
        (None, None, {}),
    ],
)
def test_the_seat_is_safe_or_not_and_for_how_long(
    before: int | None, per_day: int | None, shown: dict[str, int]
) -> None:
    # The exporter asks the chain. At 20 registrations a day, 10 take half a day, and 100 take 5.
    miner = Scenario(10).set("chutes_chain_block", 5)
    # Without a number of registrations, a seat cannot be lost.
    if before is not None:
        miner.set("chutes_miner_registrations_before_loss", before)
    # Only a miner with a seat has this metric of its immunity.
    if per_day is not None:
        miner.set("chutes_miner_seat_immune", 0)
        miner.set("chutes_subnet_window_registrations", per_day, window="1d")
    # The queries of the panel, in this order. Of a seat that cannot be lost, the last one returns
    # 10**10, which the panel shows as a text.
    names = ("Lost within", "Registrations", "Immune until", "Safe")
    for number, name in enumerate(names):
        query = asked("chutes-overview", "Is the seat safe?", number)
        miner.expect_values(query, {5: {"{}": shown[name]} if name in shown else {}})
    miner.check()
