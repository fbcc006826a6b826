"""Recorded values: names, states, costs and estimates. Each number is worked out by hand."""

from __future__ import annotations

from tests.prometheus.history import CHUTE, HOTKEY, server_labels
from tests.prometheus.scenario import Scenario

ME = {"hotkey": HOTKEY}


def labels(name: str, /, **more: str) -> str:
    """Write a series of the miner."""
    return (
        name + "{" + ",".join(f'{label}="{value}"' for label, value in {**ME, **more}.items()) + "}"
    )


def test_a_start_that_was_planned_to_end_or_in_vain_for_a_moment_has_not_failed() -> None:
    miner = Scenario(60)
    name = "hotkey_server_id_chute_id:chutes_failed_starts:count6h"
    # One of these starts was in vain for a moment, and one was ended by a scale-down.
    servers = {"loop": 3, "raced": 2, "planned": 2}
    found = {}
    miner.set("chutes_instance_start_in_vain", 1, at=5, instance_id="raced-0")
    miner.set("chutes_instance_start_in_vain", 0, at=7, instance_id="raced-0")
    miner.drop("chutes_instance_start_in_vain", at=20, instance_id="raced-0")
    for server, failed in servers.items():
        found[labels(name, **server_labels(server), **CHUTE)] = float(failed)
        for number in range(3):
            instance = f"{server}-{number}"
            miner.start_instance(instance, server=server).end_instance(instance, at=20)
    miner.set("chutes_instance_planned_start_end", 1, at=30, instance_id="planned-0")
    miner.expect_values(name, {40: found}).check()


def test_a_start_that_was_in_vain_9_hours_ago_has_not_failed() -> None:
    miner = Scenario(600)
    miner.set("chutes_instance_start_in_vain", 1, at=8, instance_id="raced")
    miner.set("chutes_instance_start_in_vain", 0, at=32, instance_id="raced")
    miner.start_instance("raced", server="alpha").end_instance("raced", at=208)
    count = "hotkey_server_id_chute_id:chutes_failed_starts:count6h"
    alerts = ["ChutesStartInVain warning", "ChutesInstancePurgeNear critical"]
    miner.expect_alerts({}, between=alerts).expect_values(count, {544: {}}).check()


def test_the_pay_of_a_seat_that_cannot_score_is_unknown() -> None:
    pay = "hotkey:chutes_miner_estimated_usd:next24h"
    for name, number, alert in (
        ("chutes_miner_registered", 0, "ChutesMinerDeregistered critical"),
        ("chutes_miner_blacklisted", 1, "ChutesMinerBlacklisted critical"),
    ):
        miner = Scenario(30).set("chutes_subnet_emission_alpha_per_day", 100)
        miner.set("chutes_alpha_price_usd", 10).set(name, number, at=10)
        # The score and the heading are 2 %, and all miners are paid 1,000 dollars a day.
        miner.expect_values(f"round({pay})", {5: {labels(""): 20}, 20: {}})
        miner.expect_alerts({}, between=[alert]).check()


def test_the_pay_of_the_next_day_is_unknown_in_a_collapse() -> None:
    miner = Scenario(30).set("chutes_subnet_emission_alpha_per_day", 100)
    miner.set("chutes_alpha_price_usd", 10)
    # The score is 2 %, and all miners are paid 1,000 dollars a day.
    miner.set("chutes_miner_score_heading_ratio", 0.011, at=10)
    miner.set("chutes_miner_score_heading_ratio", 0.009, at=20)
    pay = "round(hotkey:chutes_miner_estimated_usd:next24h, 0.01)"
    miner.expect_values(pay, {15: {labels(""): 17.66}, 25: {}})
    miner.expect_alerts({}, between=["ChutesScoreHeadingDown warning"]).check()


def test_the_pay_of_the_next_day_is_unknown_without_a_key() -> None:
    miner = Scenario(30).set("chutes_subnet_emission_alpha_per_day", 100)
    miner.set("chutes_alpha_price_usd", 10).drop("chutes_miner_score_heading_ratio", at=10)
    # The share of the past hour, which replaces the heading, is 2 %, too.
    miner.set("chutes_miner_window_compute_units", 2, window="1h")
    miner.set("chutes_platform_window_compute_units", 100, window="1h")
    heading = "hotkey:chutes_miner_score_heading_ratio:max"
    miner.expect_values(heading, {20: {labels(heading): 0.02}})
    miner.expect_values("hotkey:chutes_miner_estimated_usd:next24h", {20: {}}).check()
