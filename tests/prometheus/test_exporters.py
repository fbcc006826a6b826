"""Alerts about exporters, the API and the way between them."""

from __future__ import annotations

import pytest

from tests.prometheus.scenario import HOTKEY, HOUR, Scenario, scenarios
from tests.promtool import run_promtool

PAIR = ("one:1", "two:2")
DOWN, UNWATCHED = "ChutesExporterDown warning", "ChutesMinerUnwatched critical"
API, FAILING = "ChutesApiDown warning", "ChutesFeedFailing warning"
REFUSED = "ChutesSignatureRefused critical"


def pair(hours: int = 3) -> Scenario:
    """Two exporters of a miner."""
    return Scenario(hours * HOUR, {"alpha": 8}, exporters=PAIR)


test_alerts_about_exporters = scenarios(
    {
        "one exporter of a pair that is down is a warning": pair(1)
        .fail("one:1", range(20, HOUR + 1))
        .fires({20: [], 35: [DOWN]}),
        "a pair that is down is critical, and one alert says it": pair(1)
        .fail("one:1", range(20, HOUR + 1))
        .fail("two:2", range(20, HOUR + 1))
        .fires({20: [], 35: [UNWATCHED], HOUR: [UNWATCHED]}),
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
        # Nobody can do anything about it at night.
        "an API without an answer is a warning, also when all data has expired": Scenario(80)
        .feed(20, "metagraph", "")
        .feed(20, "scores", "")
        .feed(20, "instances", HOTKEY)
        .drop(35, "chutes_feed_records", hotkey=HOTKEY)
        .fires({30: [], 40: [API], 60: [API, FAILING]})
        .says(
            API,
            40,
            "Chutes API: no answer for 15 minutes (exporter one:1)",
            "Every request of an exporter to the Chutes API has failed for 15 minutes. Its metrics "
            "disappear at their maximum age. Then alerts about its miners are silent, unless "
            "another exporter watches them. First, on the exporter's host: "
            "`chutes-exporter check`.",
            job="chutes",
            instance="one:1",
        ),
        "a feed that fails at one exporter of a pair is silent": pair(1)
        .feed(20, "instances", HOTKEY, "timed_out", exporter="two:2")
        .drop(30, "chutes_feed_records", feed="instances", instance="two:2")
        .fires({HOUR: []}),
        "a feed that fails alone is named with its reason": Scenario(HOUR)
        .feed(20, "instances", HOTKEY, "timed_out")
        .drop(30, "chutes_feed_records", feed="instances")
        .fires({30: [], 55: [FAILING]})
        .says(
            FAILING,
            55,
            "Feed instances fails (timed_out)",
            job="chutes",
            feed="instances",
        ),
        # Some of its records cannot be read, or the list is doubted.
        "a feed whose records are incomplete is a warning": Scenario(HOUR)
        .drop(20, "chutes_feed_records", feed="instances")
        .fires({34: [], 45: [FAILING]})
        .says(FAILING, 45, "Feed instances lacks records", job="chutes", feed="instances"),
        "signatures that are refused are critical": Scenario(HOUR)
        .feed(20, "instances", HOTKEY, "signature_refused")
        .drop(30, "chutes_feed_records", feed="instances")
        .fires({25: [], 40: [REFUSED]}),
        # Each fourth scrape succeeds.
        "missed scrapes end no alert": Scenario(50, step=1)
        .fail("one:1", (minute for minute in range(51) if minute % 4))
        .set("chutes_scrape_collector_cut", 1, 12, collector="nodes")
        .set("chutes_miner_blacklisted", 1, 12)
        .feed(12, "instances", HOTKEY, "signature_refused")
        .fires(
            {50: [DOWN, "ChutesCollectorCut warning", "ChutesMinerBlacklisted critical", REFUSED]}
        ),
        "a feed that works again is named for 10 minutes": Scenario(50)
        .drop(6, "chutes_feed_records", feed="instances")
        .set("chutes_feed_records", 1, 32, feed="instances", hotkey=HOTKEY)
        .fires({40: [FAILING], 46: []}, ever=[FAILING]),
        "a collector that is left out is a warning": Scenario(50)
        .set("chutes_scrape_collector_cut", 1, 20, collector="nodes")
        .fires({20: [], 40: ["ChutesCollectorCut warning"]}),
    }
)


TARGETS = {
    "a job of its own": {"job": "chutes"},
    # The miners' Prometheus copies the labels of annotated pods.
    "annotated pods": {"job": "kubernetes-pods", "app_kubernetes_io_name": "chutes-exporter"},
}


def up_of(target: dict[str, str], *, instance: str) -> str:
    """Return the series ``up`` of a target."""
    labels = {**target, "instance": instance}
    pairs = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"up{{{pairs}}}"


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_an_exporter_that_was_never_reachable_is_a_warning(target: dict[str, str]) -> None:
    never_reachable = up_of(target, instance="two:2")
    # The job of annotated pods scrapes other programs, too. They lack the exporter's name, so they
    # must not alert although they are down. In the other installations, they have another job.
    has_other_programs = "app_kubernetes_io_name" in target
    job_of_other_program = target["job"] if has_other_programs else "others"
    other_program = up_of({"job": job_of_other_program}, instance="three:3")
    samples = [{"labels": '{instance="two:2",severity="warning"}', "value": 1}]
    down = 'ALERTS{alertstate="firing",alertname="ChutesExporterDown"}'
    expr = f"count by (instance, severity) ({down})"
    test = {
        "interval": "1m",
        "input_series": [
            {"series": up, "values": "0+0x30"} for up in (never_reachable, other_program)
        ],
        "promql_expr_test": [{"expr": expr, "eval_time": "25m", "exp_samples": samples}],
    }
    run_promtool(tests=[test])
