"""Alerts about seat, score and earnings, in scenarios of one miner."""

from __future__ import annotations

from tests.prometheus.history import DAY, HOTKEY, HOUR
from tests.prometheus.scenario import Scenario, scenarios
from tests.prometheus.test_boards import asked

DEREGISTERED, BLACKLISTED = "ChutesMinerDeregistered critical", "ChutesMinerBlacklisted critical"
NOTHING, DOWN = "ChutesMinerEarnsNothing critical", "ChutesScoreHeadingDown warning"
IDLE = ("ChutesGpusIdle warning", "ChutesGpusIdle critical")
LAGS = "ChutesIncentiveLags warning"
NO_KEY = asked("chutes-overview", "What is wrong", 2)
LOST_SEAT, SEAT = (f"ChutesMinerSeatAtRisk {severity}" for severity in ("critical", "warning"))


def with_chain(end: int, away: float, in_a_day: int = 12, *, immune_for: int = -DAY) -> Scenario:
    """A miner whose seat is so many registrations from its loss, from minute 20 on.

    Args:
        end: The last minute of the history.
        away: How many registrations come before the one that takes the seat.
        in_a_day: How many there were in the past day.
        immune_for: The minutes until the immunity of the seat ends, below 0 if it has ended.
    """
    miner = Scenario(end).set("chutes_subnet_window_registrations", in_a_day, window="1d")
    miner.set("chutes_miner_seat_immune", int(immune_for > 0))
    miner.set("chutes_miner_immunity_end_timestamp_seconds", 60 * immune_for)
    miner.set("chutes_miner_registrations_before_loss", 1000)
    return miner.set("chutes_miner_registrations_before_loss", away, at=20)


test_alerts_about_the_standing = scenarios(
    {
        "a lost seat is critical alone": Scenario(HOUR)
        .set("chutes_miner_registered", 0, at=20)
        .set(
            "chutes_feed_failure_info",
            1,
            at=22,
            feed="instances",
            reason="not_registered",
            hotkey=HOTKEY,
        )
        .expect_alerts({19: [], 25: [DEREGISTERED]}),
        "a blacklisted miner is critical": Scenario(HOUR)
        .set("chutes_miner_blacklisted", 1, at=20)
        .set("chutes_miner_blacklist_info", 1, at=20, reason='spoofed "GPUs"')
        .set("chutes_miner_blacklisted", 1, hotkey="5Other")
        .expect_alerts({19: [], 30: [BLACKLISTED]}),
        "beside an alert, Overview says that a key is missing": Scenario(HOUR)
        .drop("chutes_feed_up", at=20, feed="instances")
        .set("chutes_miner_blacklisted", 1, at=20)
        .expect_alerts({30: [BLACKLISTED]})
        .expect_values(NO_KEY, {19: {}, 30: {'{alertname="keyless"}': 1}}),
        # The seat comes back after an hour, when all instances have ended.
        "a new seat has an hour to get instances": Scenario(3 * HOUR, {"alpha": 8})
        .set("chutes_miner_registered", 0, at=20)
        .set("chutes_miner_score_heading_ratio", 0, at=20)
        .set_gpus("alpha", at=20, idle=8)
        .set("chutes_miner_registered", 1, at=80)
        .set("chutes_miner_registered_timestamp_seconds", 80 * 60, at=80)
        .expect_alerts(
            {110: [], 80 + HOUR: [], 80 + HOUR + 10: [NOTHING, *IDLE]},
            between=[DEREGISTERED],
        ),
        "a seat is critical below one day of registrations": with_chain(HOUR, 11).expect_alerts(
            {20: [], 40: [LOST_SEAT, SEAT]}
        ),
        "a seat that is safe again is named for an hour": with_chain(100, 11)
        .set("chutes_miner_registrations_before_loss", 1000, at=40)
        .expect_alerts({90: [LOST_SEAT, SEAT]}),
        "an immune seat is silent": with_chain(HOUR, 0, immune_for=2 * DAY).expect_alerts(
            {HOUR: []}
        ),
        "an immunity that ends within a day is a warning for a miner without score": with_chain(
            HOUR, 200, immune_for=DAY + 20
        )
        .drop("chutes_miner_score_ratio")
        .expect_alerts({18: [], 40: [SEAT]})
        .expect_text(
            SEAT, at=40, summary="The seat is at risk: immune for 23h 40m 0s more, without a score"
        ),
        "an immunity that ends is silent while the scores are unknown": with_chain(
            HOUR, 200, immune_for=DAY
        )
        .drop("chutes_miner_score_ratio")
        .drop("chutes_scored_miners")
        .expect_alerts({HOUR: []}),
        (
            "without the chain, a seat is at risk also while it is unknown whether the miner "
            "recovers"
        ): Scenario(2 * HOUR)
        .set("chutes_miner_incentive_rank", 252, at=20)
        .drop("chutes_miner_score_heading_ratio", at=20)
        .expect_alerts({30: [], 100: [LOST_SEAT, SEAT]}),
        "without the chain, one of the 15 lowest seats is a warning": Scenario(HOUR)
        .set("chutes_miner_incentive_rank", 244, at=20)
        .drop("chutes_miner_score_heading_ratio", at=20)
        .expect_alerts({30: [], HOUR: [SEAT]})
        .expect_text(
            SEAT, at=HOUR, summary="The seat is at risk: fewer than 15 seats are paid less"
        ),
        "without the chain, a miner that recovers is silent": Scenario(3 * HOUR)
        .set("chutes_miner_incentive_rank", 252)
        .set("chutes_miner_incentive_ratio", 0.01)
        .set("chutes_miner_score_ratio", 0.01)
        .expect_alerts({3 * HOUR: []}),
        "a miner without an earning instance is critical within 15 minutes": Scenario(50)
        .set("chutes_miner_score_heading_ratio", 0, at=30)
        .set("chutes_miner_window_compute_units", 4800, window="1d")
        .expect_alerts({30: [], 45: [NOTHING]}),
        "a miner that has not earned yet is silent": Scenario(2 * HOUR)
        .set("chutes_miner_score_heading_ratio", 0)
        .set("chutes_miner_window_compute_units", 0, window="7d")
        .expect_alerts({2 * HOUR: []}),
        "a heading that is 0 at one scrape is still down": Scenario(50)
        .set("chutes_miner_score_heading_ratio", 0.008, at=30)
        .set("chutes_miner_score_heading_ratio", 0, at=38)
        .set("chutes_miner_score_heading_ratio", 0.008, at=40)
        .expect_alerts({50: [DOWN]}),
        # They earn until the service deletes them.
        "a miner whose instances are all disabled still earns": Scenario(2 * HOUR)
        .set("chutes_miner_score_heading_ratio", 0, at=30)
        .set("chutes_miner_disabled_compute_units_per_second", 3)
        .set("chutes_miner_disabled_compute_units_per_second", 0, at=HOUR)
        .expect_alerts({HOUR: [DOWN], HOUR + 40: [NOTHING]}),
        "an incentive below half of the score is a warning after 6 hours": Scenario(7 * HOUR)
        .set("chutes_miner_incentive_ratio", 0.009, at=20)
        .set("chutes_miner_registrations_before_loss", 100)
        .expect_alerts({6 * HOUR: [], 20 + 6 * HOUR + 15: [LAGS]}),
        "an incentive of an old metagraph is silent": Scenario(7 * HOUR)
        .set("chutes_miner_incentive_ratio", 0.009)
        .set("chutes_feed_last_success_timestamp_seconds", 0, feed="metagraph", hotkey="")
        .set("chutes_feed_max_age_seconds", 10**6, feed="metagraph", hotkey="")
        .expect_alerts({7 * HOUR: []}),
    }
)
