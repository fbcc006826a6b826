"""Alerts about instances and jobs, in scenarios of one miner."""

from __future__ import annotations

from tests.prometheus.scenario import CHUTE, DEADLINE, HOUR, Scenario, scenarios

PURGE = "ChutesInstancePurgeNear critical"
RISK = "ChutesPrivateInstanceAtRisk warning"
DAY_LOSS, DAY_LOSS_NOW = "ChutesDayLoss warning", "ChutesDayLoss critical"
FAILS, VAIN = "ChutesChuteFails warning", "ChutesStartInVain warning"
PAIR = ("one:1", "two:2")
PLACE = {"instance_id": "i-1", **CHUTE, "private": "true"}


def disabled() -> Scenario:
    """A private and a public instance, which are disabled at 0:20."""
    miner = Scenario(50, {"alpha": 8})
    for number, private in (("i-1", True), ("i-2", False)):
        miner.instance(number, server="alpha", private=private).activate(number, 0)
        miner.disable(number, 20)
    return miner


def bleeding(miner: Scenario, hours: int) -> Scenario:
    """Let an instance of each hour lose 19 of the 1000 compute units of a day."""
    miner.set("chutes_miner_window_compute_units", 1000, window="1d")
    miner.set("chutes_compute_unit_usd", 1).set("chutes_miner_unknown_losses", 0, window="1d")
    miner.set("chutes_chute_info", 1, chute_id="chute-1", name="glm-5")
    lost_scores = {"window": "6h", "chute_id": "chute-1", "outcome": "lost"}
    for hour in range(1, hours):
        # The audit report comes 2 minutes after its hour.
        at, lost = hour * HOUR + 2, 19 * hour
        miner.set("chutes_miner_window_total_lost_compute_units", lost, at, window="1d")
        by_reason, by_chute = {"reason": "probes"}, {"chute_id": "chute-1"}
        miner.set("chutes_miner_window_lost_compute_units", lost, at, window="1d", **by_reason)
        miner.set("chutes_miner_chute_window_lost_compute_units", lost, at, window="1d", **by_chute)
        miner.set("chutes_miner_chute_window_ended_instances", hour, at, **lost_scores)
    return miner


def failures(miner: Scenario, count: int) -> Scenario:
    """Let starts of a chute fail, by the report at 0:22."""
    miner.set("chutes_chute_info", 1, chute_id="chute-1", name="glm-5")
    labels = {"window": "6h", "chute_id": "chute-1", "outcome": "never_active"}
    miner.set("chutes_miner_chute_window_ended_instances", 0, **labels)
    return miner.set("chutes_miner_chute_window_ended_instances", count, 22, **labels)


test_alerts_about_instances = scenarios(
    {
        # Every third scrape fails.
        "it is named without its server and in spite of missed scrapes": Scenario(
            2 * HOUR, {"alpha": 8}
        )
        .instance("i-1", 20, purge=100)
        .fail("one:1", range(0, 2 * HOUR, 3))
        .fires({45: [], 60: [PURGE]})
        .says(
            PURGE,
            60,
            "glm-5 is purged from 01:40 UTC on, unless it becomes active",
            **PLACE,
        ),
        "one that starts in vain is to be stopped, and nothing else": Scenario(
            2 * HOUR, {"alpha": 8}
        )
        .instance("i-1", 20, purge=100)
        .set("chutes_instance_start_in_vain", 1, 20, **PLACE)
        .fires({20: [], 40: [VAIN], 60: [VAIN], 90: [VAIN]}),
        "one that no longer starts in vain is named for 10 minutes": Scenario(50)
        .instance("i-1", 2)
        .set("chutes_instance_start_in_vain", 1, 2, **PLACE)
        .set("chutes_instance_start_in_vain", 0, 30, **PLACE)
        .fires({38: [VAIN], 46: []}, ever=[VAIN]),
        # The second exporter has an old answer, in which the instance starts and is to be purged.
        "an instance that one of two exporters sees active does not start": Scenario(
            2 * HOUR, {"alpha": 8}, PAIR
        )
        .instance("i-1", 0, purge=2 * HOUR)
        .activate("i-1", 50)
        .set("chutes_instance_state", 1, 50, **PLACE, state="starting", instance="two:2")
        .set("chutes_instance_state", 0, 50, **PLACE, state="active", instance="two:2")
        .set(DEADLINE, 120 * 60, **PLACE, deadline="purge", instance="two:2")
        .fires({2 * HOUR: []}),
        "a disabled private instance is at risk": disabled().fires({25: [], 40: [RISK]}),
        "a loss of 1.9 % of a day's units in each hour is seen as that of the day": bleeding(
            Scenario(9 * HOUR, {"alpha": 8}, PAIR), hours=9
        )
        .fires(
            {
                2 * HOUR + 30: [],
                3 * HOUR + 30: [DAY_LOSS, FAILS],
                9 * HOUR: [DAY_LOSS, DAY_LOSS_NOW, FAILS],
            }
        )
        .says(
            DAY_LOSS,
            3 * HOUR + 30,
            "In a day, ended instances lost 57 compute units (57.00 US dollars)",
            "That is 5.7% of the day's units. Most by the reason probes: 57. Most with the chute "
            "glm-5: 57. First, on the exporter's host: `chutes-exporter incidents --hotkey 5Me`.",
        ),
        "a loss of a day says that it is not all of it": bleeding(
            Scenario(4 * HOUR, {"alpha": 8}, PAIR), hours=4
        )
        # The loss of one end is unknown, and then a report is.
        .set("chutes_miner_unknown_losses", 1, 3 * HOUR + 10, window="1d")
        .drop(3 * HOUR + 50, "chutes_miner_unknown_losses", window="1d")
        .drop(3 * HOUR + 10, "chutes_miner_window_lost_compute_units", window="1d", reason="probes")
        .fires({3 * HOUR + 30: [DAY_LOSS, FAILS], 4 * HOUR: [DAY_LOSS, FAILS]})
        .says(
            DAY_LOSS,
            3 * HOUR + 30,
            "In a day, ended instances lost at least 57 compute units (57.00 US dollars)",
            "That is 5.7% of the day's units. Most with the chute glm-5: 57. First, on the "
            "exporter's host: `chutes-exporter incidents --hotkey 5Me`.",
        ),
        "without a key, the chute that fails has no name": failures(
            Scenario(2 * HOUR, {"alpha": 8}), 3
        )
        .drop(0, "chutes_chute_info")
        .fires({20: [], HOUR: [FAILS]}),
    }
)
