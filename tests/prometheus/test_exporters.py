"""Alerts about exporters, the API and the way between them."""

from __future__ import annotations

from tests.prometheus.scenario import HOTKEY, HOUR, Scenario, scenarios

PAIR = ("one:1", "two:2")
DOWN, UNWATCHED, REMOVED = (
    "ChutesExporterDown warning",
    "ChutesMinerUnwatched critical",
    "ChutesMinerUnwatched info",
)
API, API_CRITICAL = "ChutesApiDown warning", "ChutesApiDown critical"
FAILING, INCOMPLETE, REFUSED = (
    "ChutesFeedFailing warning",
    "ChutesDataIncomplete warning",
    "ChutesSignatureRefused critical",
)
CHANGED = "ChutesApiChanged info"
NODES = {"job": "chutes", "feed": "nodes"}


def firing(alert: str, label: str) -> dict[str, float]:
    """The series of an alert that fires."""
    name, severity = alert.split()
    return {
        f'ALERTS{{alertname="{name}",alertstate="firing",severity="{severity}",'
        f'job="chutes",{label}}}': 1
    }


test_alerts_about_exporters = scenarios(
    {
        "one exporter of a pair that is down is a warning that names it": Scenario(
            HOUR, {"alpha": 8}, exporters=PAIR
        )
        .fail("two:2", range(20, HOUR + 1))
        .fires(
            {20: [], 35: [DOWN]},
            values={
                'ALERTS{alertname="ChutesExporterDown"}': (35, firing(DOWN, 'instance="two:2"'))
            },
        ),
        "a pair that is down is critical": Scenario(HOUR, {"alpha": 8}, exporters=PAIR)
        .fail("one:1", range(20, HOUR + 1))
        .fail("two:2", range(20, HOUR + 1))
        .fires({20: [], 35: [DOWN, UNWATCHED]}, ever=[DOWN, UNWATCHED, REMOVED]),
        "an exporter that leaves the targets is critical": Scenario(50)
        .target("one:1", 0, 20)
        .fires({20: [], 35: [UNWATCHED]}),
        "a restart at another address is silent": Scenario(2 * HOUR, {"alpha": 8}, exporters=PAIR)
        .state(0, ["alpha-0"], "starting")
        .instance("i-1", 0, server="alpha")
        .activate("i-1", 30)
        .target("one:1", 0, 50)
        .target("two:2", 52, 2 * HOUR)
        .fires({80: []}),
        "a hotkey that is removed from the configuration is info": Scenario(2 * HOUR)
        .drop(20, "chutes_miner_watched")
        .drop(20, "chutes_miner_registered")
        .drop(20, "chutes_miner_score_heading_ratio")
        .fires({50: [], 70: [REMOVED]}),
        "an API without an answer is a warning, and critical when all data has expired": Scenario(
            80
        )
        .feed(20, "metagraph", "")
        .feed(20, "scores", "")
        .feed(20, "instances", HOTKEY)
        .fires({30: [], 40: [API], 60: [API, API_CRITICAL, FAILING]}),
        "a feed that fails alone is named with its reason": Scenario(HOUR)
        .feed(20, "instances", HOTKEY, "timed_out")
        .fires({30: [], 45: [FAILING]})
        .says(FAILING, 45, "feed instances fails (timed_out)", job="chutes", feed="instances"),
        "a feed that never succeeded fails": Scenario(40)
        .set("chutes_feed_up", 0, feed="jobs", hotkey=HOTKEY)
        .set("chutes_feed_max_age_seconds", 600, feed="jobs", hotkey=HOTKEY)
        .fires({40: [FAILING]}),
        "records that cannot be read are a warning after 30 minutes": Scenario(HOUR)
        .set("chutes_feed_rejected_records", 2, 20, feed="nodes", hotkey=HOTKEY)
        .fires({34: [], 55: [INCOMPLETE]})
        .says(INCOMPLETE, 55, "feed nodes has 2 records that cannot be read", **NODES),
        "a list that is doubted is a warning after 30 minutes": Scenario(HOUR)
        .set("chutes_feed_doubted", 1, 20, feed="nodes", reason="shrunk", hotkey=HOTKEY)
        .set("chutes_feed_doubted", 1, 0, feed="bounties", hotkey="", reason="no_bounties")
        .fires({34: [], 55: [INCOMPLETE]})
        .says(
            INCOMPLETE,
            55,
            "feed nodes lacks at least a fifth of its records",
            **NODES,
            reason="shrunk",
        ),
        "signatures that are refused are critical": Scenario(HOUR)
        .feed(20, "instances", HOTKEY, "signature_refused")
        .fires({25: [], 40: [REFUSED]}),
        "signatures that only one of a pair can make are silent": Scenario(HOUR)
        .set(
            "chutes_feed_failure_info",
            1,
            20,
            feed="jobs",
            reason="signature_refused",
            hotkey=HOTKEY,
        )
        .fires({HOUR: []}),
        "a clock that is wrong is a warning": Scenario(50)
        .set("chutes_api_clock_offset_seconds", 0)
        .set("chutes_api_clock_offset_seconds", -300, 20)
        .fires({20: [], 40: ["ChutesClockOff warning"]}),
        "a collector that is left out and a failed reload are warnings": Scenario(50)
        .set("chutes_scrape_collector_cut", 1, 20, collector="nodes")
        .set("chutes_exporter_config_last_reload_successful", 1)
        .set("chutes_exporter_config_last_reload_successful", 0, 20)
        .fires({20: [], 40: ["ChutesCollectorCut warning", "ChutesReloadFailed warning"]}),
        **{
            f"a change of the API is info that names the endpoint by {metric}": Scenario(4 * HOUR)
            .set(metric, 0, endpoint="nodes", **field)
            .set(metric, 0, endpoint="images", **field)
            .set(metric, 2, HOUR, endpoint="images", **field)
            .fires(
                {HOUR: [], 3 * HOUR: [CHANGED]},
                ever=[CHANGED],
                values={
                    'ALERTS{alertname="ChutesApiChanged"}': (
                        3 * HOUR,
                        firing(CHANGED, 'endpoint="images"'),
                    )
                },
            )
            for metric, field in (
                ("chutes_api_unknown_fields", {}),
                ("chutes_api_missing_fields", {}),
                ("chutes_api_unknown_values", {"field": "status"}),
            )
        },
    }
)
