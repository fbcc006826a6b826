"""Alerts about seat, score and earnings, in scenarios of one miner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.prometheus.scenario import DAY, HOTKEY, HOUR, Scenario, Text

if TYPE_CHECKING:
    from pathlib import Path

FLEET = {"alpha": 8, "beta": 8, "gamma": 8, "delta": 2}
ME = {"hotkey": HOTKEY}


def test_a_lost_seat_is_critical_alone(tmp_path: Path) -> None:
    miner = Scenario(HOUR)
    miner.set("chutes_miner_registered", 0, 20, **ME)
    miner.set("chutes_feed_failure_info", 1, 22, **ME, feed="instances", reason="not_registered")
    miner.check(tmp_path, {19: [], 25: [("ChutesMinerDeregistered", "critical")]})


def test_a_blacklisted_miner_is_critical(tmp_path: Path) -> None:
    miner = Scenario(HOUR)
    miner.set("chutes_miner_blacklisted", 1, 20, **ME)
    miner.set("chutes_miner_blacklist_info", 1, 20, **ME, reason='spoofed "GPUs"')
    miner.set("chutes_miner_blacklisted", 1, 0, hotkey="5Other")
    critical = ("ChutesMinerBlacklisted", "critical")
    said = f'{HOTKEY} is blacklisted: it has no score, and its launches are refused. Reason: spoofed "GPUs".'
    text = Text(critical, 40, {}, "it is blacklisted", said)
    miner.check(tmp_path, {19: [], 30: [critical]}, texts=[text])


@pytest.mark.soak
@pytest.mark.parametrize(
    ("metric", "value", "alert"),
    [("registered", 0, "ChutesMinerDeregistered"), ("blacklisted", 1, "ChutesMinerBlacklisted")],
)
def test_a_miner_that_cannot_earn_is_critical_and_info_after_a_day(
    tmp_path: Path, metric: str, value: int, alert: str
) -> None:
    miner = Scenario(DAY + HOUR, step=4)
    miner.set(f"chutes_miner_{metric}", value, 20, **ME)
    miner.check(tmp_path, {12 * HOUR: [(alert, "critical")], DAY + HOUR: [(alert, "info")]})


def test_an_old_seat_with_nobody_behind_it_is_critical(tmp_path: Path) -> None:
    miner = Scenario(2 * HOUR)
    miner.set("chutes_miner_seats_behind", 0, 20, **ME)
    miner.check(tmp_path, {HOUR: [], 90: [("ChutesMinerSeatAtRisk", "critical")]})


def test_a_seat_is_at_risk_also_while_it_is_unknown_whether_the_miner_recovers(tmp_path: Path) -> None:
    miner = Scenario(2 * HOUR)
    miner.set("chutes_miner_seats_behind", 0, 20, **ME)
    miner.drop(20, "chutes_miner_score_heading_ratio")
    said = (
        f"All seats of the subnet are taken, and 0 of them have a lower incentive than {HOTKEY}. Newcomers take the "
        "seats with the lowest incentive. Whether the score share recovers is unknown."
    )
    risk = ("ChutesMinerSeatAtRisk", "critical")
    text = Text(risk, 100, {}, "the seat is at risk, seats with a lower incentive: 0", said)
    miner.check(tmp_path, {HOUR: [], 100: [risk]}, texts=[text])


def test_an_old_seat_without_incentive_is_critical_although_the_order_of_these_seats_is_unknown(tmp_path: Path) -> None:
    miner = Scenario(2 * HOUR)
    miner.drop(20, "chutes_miner_seats_behind")
    for name in ("incentive_ratio", "score_ratio", "score_heading_ratio"):
        miner.set(f"chutes_miner_{name}", 0, 20, **ME)
    risk, earns_nothing = ("ChutesMinerSeatAtRisk", "critical"), ("ChutesMinerEarnsNothing", "critical")
    miner.check(tmp_path, {HOUR + 10: [earns_nothing], 100: [risk, earns_nothing]})


def test_a_new_seat_and_a_miner_that_recovers_are_silent(tmp_path: Path) -> None:
    new = Scenario(3 * HOUR)
    new.set("chutes_miner_seats_behind", 0, **ME)
    new.set("chutes_miner_registered_timestamp_seconds", -3600, **ME)
    new.check(tmp_path, {3 * HOUR: []})
    recovering = Scenario(3 * HOUR)
    recovering.set("chutes_miner_seats_behind", 0, **ME)
    recovering.set("chutes_miner_incentive_ratio", 0.01, **ME)
    recovering.set("chutes_miner_score_ratio", 0.01, **ME)
    recovering.check(tmp_path, {3 * HOUR: []})


def test_a_miner_without_an_earning_instance_is_critical_within_15_minutes(tmp_path: Path) -> None:
    miner = Scenario(50)
    miner.set("chutes_miner_score_heading_ratio", 0, 30, **ME)
    miner.check(tmp_path, {30: [], 45: [("ChutesMinerEarnsNothing", "critical")]})


def test_a_miner_that_is_starting_an_instance_gets_more_time(tmp_path: Path) -> None:
    miner = Scenario(80)
    miner.set("chutes_miner_score_heading_ratio", 0, 30, **ME)
    miner.set("chutes_fleet_instances", 1, **ME, state="starting")
    miner.check(tmp_path, {HOUR: [], 80: [("ChutesMinerEarnsNothing", "critical")]})


def test_a_miner_without_earnings_in_the_known_part_of_a_day_is_silent(tmp_path: Path) -> None:
    miner = Scenario(3 * HOUR)
    miner.set("chutes_miner_score_heading_ratio", 0, **ME)
    miner.check(tmp_path, {3 * HOUR: []})


@pytest.mark.soak
def test_a_miner_that_has_earned_nothing_for_a_day_is_info(tmp_path: Path) -> None:
    miner = Scenario(DAY + 60)
    miner.set("chutes_miner_score_heading_ratio", 0, 10, **ME)
    info, critical = ("ChutesMinerEarnsNothing", "info"), ("ChutesMinerEarnsNothing", "critical")
    miner.check(tmp_path, {DAY + 60: [info]}, ever=[info, critical])


def test_a_falling_share_says_what_the_gpus_do(tmp_path: Path) -> None:
    miner = Scenario(60, FLEET)
    miner.set("chutes_miner_score_heading_ratio", 0.01, 30, **ME)
    miner.state(30, [f"alpha-{number}" for number in range(8)], "disabled")
    down = ("ChutesScoreHeadingDown", "warning")
    said = (
        f"The score share of {HOTKEY} is heading for 1%, after 2% on average over the past day. GPUs now: 8 disabled, "
        "18 earning, and those that are gone have ChutesGpusGone. If all earn, other miners have grown or multipliers "
        "have fallen."
    )
    miner.check(tmp_path, {30: [], 50: [down]}, texts=[Text(down, 44, {}, "the score share is heading for 1%", said)])


def test_an_incentive_below_half_of_the_score_is_a_warning_after_6_hours(tmp_path: Path) -> None:
    miner = Scenario(7 * HOUR)
    miner.set("chutes_miner_incentive_ratio", 0.009, 20, **ME)
    miner.check(tmp_path, {6 * HOUR: [], 20 + 6 * HOUR + 15: [("ChutesIncentiveLags", "warning")]})


def test_an_incentive_of_an_old_metagraph_is_silent(tmp_path: Path) -> None:
    miner = Scenario(7 * HOUR)
    miner.set("chutes_miner_incentive_ratio", 0.009, **ME)
    miner.set("chutes_feed_last_success_timestamp_seconds", 0, feed="metagraph", hotkey="")
    miner.set("chutes_feed_max_age_seconds", 10**6, feed="metagraph", hotkey="")
    miner.check(tmp_path, {7 * HOUR: []})


@pytest.mark.soak
def test_a_loss_for_a_day_is_info(tmp_path: Path) -> None:
    miner = Scenario(DAY + HOUR, {"alpha": 8}, step=4)
    miner.set("chutes_gpu_cost_usd_per_hour", 1.5, gpu="pro_6000")
    miner.set("chutes_subnet_emission_alpha_per_day", 1000)
    miner.set("chutes_alpha_price_usd", 10)
    # 8 GPUs cost 288 a day, and 2 % of 10,000 is 200.
    loss = ("ChutesMinerLoss", "info")
    said = (
        f"The estimated earnings of {HOTKEY} have been below the cost of its GPUs for a day, "
        "at best by -88 US dollars a day."
    )
    miner.check(
        tmp_path,
        {DAY: [], DAY + 15: [loss]},
        texts=[Text(loss, DAY + 15, {}, "it costs more than it earns, for a day", said)],
    )


@pytest.mark.soak
def test_a_profit_within_the_day_is_silent(tmp_path: Path) -> None:
    miner = Scenario(DAY + HOUR, {"alpha": 8})
    miner.set("chutes_gpu_cost_usd_per_hour", 1.5, gpu="pro_6000")
    miner.set("chutes_subnet_emission_alpha_per_day", 1000)
    miner.set("chutes_alpha_price_usd", 10)
    miner.set("chutes_miner_incentive_ratio", 0.03, 12 * HOUR, **ME)
    miner.set("chutes_miner_incentive_ratio", 0.02, 13 * HOUR, **ME)
    miner.check(tmp_path, {DAY + HOUR: []})
