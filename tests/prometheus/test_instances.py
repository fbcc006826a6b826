"""Alerts about instances and jobs, in scenarios of one miner."""

from __future__ import annotations

from tests.prometheus.scenario import HOUR, Scenario, scenarios

SLOW, PURGE, RISK, EARLY, UNITS = (
    f"Chutes{name} warning"
    for name in (
        "InstanceStartSlow",
        "InstancePurgeNear",
        "PrivateInstanceAtRisk",
        "InstancesLostEarly",
        "ComputeUnitsLost",
    )
)
STUCK = "ChutesJobStuck info"
PLACE = {
    "chute_id": "chute-1",
    "name": "glm-5",
    "server": "alpha",
    "gpu": "pro_6000",
    "instance_id": "i-1",
}
KUBECTL = "First: `kubectl --context alpha -n chutes get pods -l chutes/chute-id=chute-1`."


def early(*, counts: bool) -> Scenario:
    """Two public instances end within their first hour.

    A third one is older. The report of 2:00 comes last.
    """
    miner = Scenario(3 * HOUR, {"alpha": 8}, step=2)
    for number, activated, ended in (("i-1", 20, 60), ("i-2", 40, 90), ("i-3", 5, 90)):
        miner.instance(number, 0, private=False, server="alpha").activate(number, activated)
        miner.remove(number, ended)
    uncounted = 0 if counts else 1
    miner.report(0, 0).report(HOUR + 2, HOUR, lost=300 * uncounted, uncounted=uncounted)
    return miner.report(2 * HOUR + 2, 2 * HOUR, lost=200 * uncounted, uncounted=uncounted)


def disabled() -> Scenario:
    """A private and a public instance, which are disabled at 0:20."""
    miner = Scenario(50, {"alpha": 8})
    for number, private in (("i-1", True), ("i-2", False)):
        miner.instance(number, -5 * HOUR, server="alpha", private=private).activate(number, 0)
        miner.set("chutes_instance_active", 0, 20, instance_id=number)
    return miner


test_alerts_about_instances = scenarios(
    {
        "an instance that starts for an hour is named within 75 minutes": Scenario(
            2 * HOUR, {"alpha": 8}
        )
        .instance("i-1", 20, 20, server="alpha")
        .set("chutes_instance_compute_multiplier", 2, 20, instance_id="i-1")
        .fires({20 + HOUR: [], 20 + 75: [SLOW]})
        .says(
            SLOW,
            2 * HOUR,
            "glm-5 on server alpha has been starting for 1h 40m 0s",
            "An instance of glm-5 (1 pro_6000 on server alpha) was created more than an hour ago "
            "and is not active yet. Each hour "
            f"costs 7200 compute units. Starts usually take 10 to 35 minutes. {KUBECTL}",
            **PLACE,
            billed_to="user",
        ),
        "an instance that has been starting for 2.9 hours is said to be so old": Scenario(
            3 * HOUR, {"alpha": 8}, ("one:1", "two:2"), step=2
        )
        .instance("i-1", 0, server="alpha", purge=4 * HOUR)
        .fires({174: [SLOW]})
        .says(
            SLOW,
            174,
            "glm-5 on server alpha has been starting for 2h 54m 0s",
            "An instance of glm-5 (1 pro_6000 on server alpha) was created more than an hour ago "
            f"and is not active yet. Starts usually take 10 to 35 minutes. {KUBECTL}",
            **PLACE,
            billed_to="user",
        ),
        # Every third scrape fails.
        "it is named without its server and in spite of missed scrapes": Scenario(
            2 * HOUR, {"alpha": 8}
        )
        .instance("i-1", 20, 20)
        .fail("one:1", range(0, 2 * HOUR, 3))
        .fires({20 + 75: [SLOW]}),
        "an ordinary start is silent": Scenario(2 * HOUR)
        .instance("i-1", 20, 20)
        .activate("i-1", 30)
        .instance("i-2", 20, 20)
        .activate("i-2", 55)
        .fires({2 * HOUR: []}),
        # At the end, the instance is 3 hours old and was verified 20 minutes ago: its 3.5 hours end
        # in 30 minutes.
        "a purge is announced 45 minutes before whichever limit comes first": Scenario(
            3 * HOUR, {"alpha": 8}, step=2
        )
        .instance("i-1", 0, purge=3.5 * HOUR, server="alpha")
        .set("chutes_instance_compute_multiplier", 2, instance_id="i-1")
        .fires({2 * HOUR + 30: [SLOW], 2 * HOUR + 45: [SLOW, PURGE]})
        .says(
            PURGE,
            3 * HOUR,
            "glm-5 on server alpha is purged from 03:30 UTC on, unless it becomes active",
            "The service purges an instance of glm-5 (1 pro_6000 on server alpha) soon, unless it "
            f"becomes active. A purge loses its start-up time (21600 compute units). {KUBECTL}",
            **PLACE,
            billed_to="user",
        ),
        "the purge of a disabled instance is not one of a start": Scenario(HOUR)
        .instance("i-1", -3 * HOUR, private=False)
        .activate("i-1", 0)
        .set("chutes_instance_active", 0, 20, instance_id="i-1")
        .set("chutes_instance_purge_timestamp_seconds", 50 * 60, 20, instance_id="i-1")
        .fires({HOUR: []}),
        # The service does not check TEE instances after their verification, which was 20 hours ago.
        "a healthy private instance that nobody checks is silent": Scenario(HOUR)
        .instance("i-1", -20 * HOUR)
        .activate("i-1", 0)
        .set("chutes_instance_last_verified_timestamp_seconds", -20 * 3600, instance_id="i-1")
        .fires({HOUR: []}),
        "a disabled private instance is at risk": disabled()
        .fires({25: [], 40: [RISK]})
        .says(
            RISK,
            40,
            "the private glm-5 on server alpha is disabled",
            "A private instance of glm-5 (1 pro_6000 on server alpha) is disabled, so the service "
            "will delete it. Then its "
            f"score of the past day is lost. Do not delete it yourself. {KUBECTL}",
            **PLACE,
            billed_to="user",
        ),
        "two public instances whose first hour does not count are a warning": early(counts=False)
        .fires({2 * HOUR: [], 2 * HOUR + 12: [EARLY]})
        .says(
            EARLY,
            2 * HOUR + 30,
            "2 instances of glm-5 ended in their first hour",
            "In the past 6 hours, 2 instances of glm-5 ended in their first hour, on alpha. All "
            "ends "
            "in these 6 "
            "hours together lost at least 500 compute units.",
            chute_id="chute-1",
            name="glm-5",
        ),
        "two instances that end validly within their first hour are silent": early(
            counts=True
        ).fires({3 * HOUR: []}),
        "a stuck job is info": Scenario(2 * HOUR)
        .set("chutes_jobs_stuck", 0)
        .set("chutes_jobs_stuck", 1, 20)
        .fires({40: [], 70: [STUCK]}),
        # The report of 1:00 is out at 1:01, and a scrape at 1:02 has it.
        "lost units from 2 % of a day are a warning within 10 minutes of the report": Scenario(
            HOUR + 20, {"alpha": 8}, step=1
        )
        .set("chutes_miner_window_compute_units", 1000, window="1d")
        .prices()
        .instance("i-1", 0, server="alpha")
        .remove("i-1", 30)
        .report(0, 0, lost=20)
        .report(HOUR + 2, HOUR, lost=21, uncounted=1)
        .fires({HOUR + 1: [], HOUR + 11: [UNITS]})
        .says(
            UNITS,
            HOUR + 11,
            "in an hour, ended instances lost 21 compute units (21.00 US dollars)",
            "In the newest audited hour, ended instances lost 21 compute units, 2.1% of a day's "
            "units. Reasons: probes "
            "(1). Candidates, ended in the past 2 hours: 1 glm-5 on alpha.",
        ),
    }
)
