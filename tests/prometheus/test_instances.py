"""Alerts about instances and jobs, in scenarios of one miner."""

from __future__ import annotations

from tests.prometheus.history import CHUTE, DEADLINE, HOUR, PAIR
from tests.prometheus.scenario import Scenario, scenarios

PURGE = "ChutesInstancePurgeNear critical"
RISK = "ChutesPrivateInstanceAtRisk warning"
RISKS = 'count(ALERTS{alertname="ChutesPrivateInstanceAtRisk",alertstate="firing"})'
DAY_LOSS, DAY_LOSS_NOW = "ChutesDayLoss warning", "ChutesDayLoss critical"
FAILS, VAIN = "ChutesChuteFails warning", "ChutesStartInVain warning"
FAILED_STARTS = {"window": "6h", "chute_id": "chute-1", "outcome": "never_active"}
PLACE = {"instance_id": "i-1", **CHUTE, "private": "true"}


def bleeding(hours: int) -> Scenario:
    """In each hour, an instance ends that loses 19 of the 1000 compute units of a day."""
    miner = Scenario(hours * HOUR, {"alpha": 8}, PAIR)
    miner.set("chutes_miner_window_compute_units", 1000, window="1d")
    miner.set("chutes_compute_unit_usd", 1).set("chutes_miner_unknown_losses", 0, window="1d")
    miner.set("chutes_chute_info", 1, chute_id="chute-1", name="glm-5")
    lost_scores = {"window": "6h", "chute_id": "chute-1", "outcome": "lost"}
    for hour in range(1, hours):
        # The audit report comes 2 minutes after its hour.
        at, lost = hour * HOUR + 2, 19 * hour
        miner.set("chutes_miner_window_total_lost_compute_units", lost, at=at, window="1d")
        by_reason, by_chute = {"reason": "probes"}, {"chute_id": "chute-1"}
        miner.set("chutes_miner_window_lost_compute_units", lost, at=at, window="1d", **by_reason)
        miner.set(
            "chutes_miner_chute_window_lost_compute_units", lost, at=at, window="1d", **by_chute
        )
        miner.set("chutes_miner_chute_window_ended_instances", hour, at=at, **lost_scores)
    return miner


test_alerts_about_instances = scenarios(
    {
        # Every third scrape fails.
        "it is named without its server and in spite of missed scrapes": Scenario(
            2 * HOUR, {"alpha": 8}
        )
        .start_instance("i-1", at=20, purge_at=100)
        .fail_scrapes(at=range(0, 2 * HOUR, 3))
        .expect_alerts({45: [], 60: [PURGE]})
        .expect_text(
            PURGE,
            at=60,
            summary="glm-5 is purged from 01:40 UTC on, unless it becomes active",
            **PLACE,
        ),
        "one that starts in vain is to be stopped, and nothing else": Scenario(
            2 * HOUR, {"alpha": 8}
        )
        .start_instance("i-1", at=20, purge_at=100)
        .set("chutes_instance_start_in_vain", 1, at=20, **PLACE)
        .expect_alerts({20: [], 40: [VAIN], 60: [VAIN], 90: [VAIN]}),
        "one that no longer starts in vain is named for 10 minutes": Scenario(50)
        .start_instance("i-1", at=2)
        .set("chutes_instance_start_in_vain", 1, at=2, **PLACE)
        .set("chutes_instance_start_in_vain", 0, at=30, **PLACE)
        .expect_alerts({38: [VAIN], 46: []}),
        # The second exporter has an old answer, in which the instance starts and is to be purged.
        "an instance that one of two exporters sees active does not start": Scenario(
            2 * HOUR, {"alpha": 8}, PAIR
        )
        .start_instance("i-1", purge_at=2 * HOUR)
        .activate_instance("i-1", at=50)
        .set("chutes_instance_state", 1, at=50, **PLACE, state="starting", exporter="two:2")
        .set("chutes_instance_state", 0, at=50, **PLACE, state="active", exporter="two:2")
        .set(DEADLINE, 120 * 60, at=50, **PLACE, deadline="purge", exporter="two:2")
        .expect_alerts({2 * HOUR: []}),
        "a disabled private instance is at risk, and a public one is not": Scenario(
            50, {"alpha": 8}
        )
        .start_instance("i-1", server="alpha")
        .activate_instance("i-1")
        .disable_instance("i-1", at=20)
        .start_instance("i-2", server="alpha", private=False)
        .activate_instance("i-2")
        .disable_instance("i-2", at=20)
        .expect_alerts({25: [], 40: [RISK]})
        .expect_values(RISKS, {40: {"{}": 1}}),
        "a loss of 1.9 % of a day's units in each hour is seen as that of the day": bleeding(
            hours=9
        )
        .expect_alerts(
            {
                2 * HOUR + 30: [],
                3 * HOUR + 30: [DAY_LOSS, FAILS],
                9 * HOUR: [DAY_LOSS, DAY_LOSS_NOW, FAILS],
            }
        )
        .expect_text(
            DAY_LOSS,
            at=3 * HOUR + 30,
            summary="In a day, ended instances lost 57 compute units (57.00 US dollars)",
            description=(
                "That is 5.7% of the day's units. Most by the reason probes: 57. Most with the "
                "chute glm-5: 57. First, on the exporter's host: `chutes-exporter incidents "
                "--hotkey 5Me`."
            ),
        ),
        "a loss of a day says that it is not all of it": bleeding(hours=4)
        # The loss of one end is unknown, and then a report is.
        .set("chutes_miner_unknown_losses", 1, at=3 * HOUR + 10, window="1d")
        .drop("chutes_miner_unknown_losses", at=3 * HOUR + 50, window="1d")
        .drop(
            "chutes_miner_window_lost_compute_units", at=3 * HOUR + 10, window="1d", reason="probes"
        )
        .expect_alerts({3 * HOUR + 30: [DAY_LOSS, FAILS], 4 * HOUR: [DAY_LOSS, FAILS]})
        .expect_text(
            DAY_LOSS,
            at=3 * HOUR + 30,
            summary="In a day, ended instances lost at least 57 compute units (57.00 US dollars)",
            description=(
                "That is 5.7% of the day's units. Most with the chute glm-5: 57. First, on the "
                "exporter's host: `chutes-exporter incidents --hotkey 5Me`."
            ),
        ),
        "without a key, the chute that fails has no name": Scenario(2 * HOUR)
        .set("chutes_miner_chute_window_ended_instances", 0, at=0, **FAILED_STARTS)
        .set("chutes_miner_chute_window_ended_instances", 3, at=22, **FAILED_STARTS)
        .expect_alerts({20: [], HOUR: [FAILS]}),
    }
)
