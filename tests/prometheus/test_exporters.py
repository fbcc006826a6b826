"""Alerts about exporters, the API and the way between them."""

from __future__ import annotations

import pytest

from tests.prometheus.history import HOTKEY, HOUR, PAIR
from tests.prometheus.scenario import Scenario, scenarios
from tests.promtool import run_promtool

DOWN, UNWATCHED = "ChutesExporterDown warning", "ChutesMinerUnwatched critical"
API, FAILING = "ChutesApiDown warning", "ChutesFeedFailing warning"
REFUSED = "ChutesSignatureRefused critical"


def pair(hours: int = 3) -> Scenario:
    """Two exporters of a miner."""
    return Scenario(hours * HOUR, {"alpha": 8}, exporters=PAIR)


test_alerts_about_exporters = scenarios(
    {
        "one exporter of a pair that is down is a warning": pair(1)
        .fail_scrapes(at=range(20, HOUR + 1), exporter="one:1")
        .expect_alerts({20: [], 35: [DOWN]}),
        "a pair that is down is critical, and one alert says it": pair(1)
        .fail_scrapes(at=range(20, HOUR + 1))
        .expect_alerts({20: [], 35: [UNWATCHED], HOUR: [UNWATCHED]}),
        "an exporter that leaves the targets is critical": Scenario(50)
        .be_target(at=range(20), exporter="one:1")
        .expect_alerts({20: [], 35: [UNWATCHED]}),
        "a restart at another address is silent": Scenario(2 * HOUR, {"alpha": 8}, exporters=PAIR)
        .set_gpus("alpha", starting=1, earning=7)
        .start_instance("i-1", server="alpha")
        .activate_instance("i-1", at=30)
        .be_target(at=range(50), exporter="one:1")
        .be_target(at=range(52, 2 * HOUR), exporter="two:2")
        .expect_alerts({80: []}),
        # Nobody can do anything about it at night.
        "an API without an answer is a warning, also when all data has expired": Scenario(80)
        .fail_feed("metagraph", at=20)
        .fail_feed("scores", at=20)
        .fail_feed("instances", at=20)
        .drop("chutes_feed_records", at=35, hotkey=HOTKEY)
        .expect_alerts({30: [], 40: [API], 60: [API, FAILING]})
        .expect_text(
            API,
            at=40,
            summary="Chutes API: no answer for 15 minutes (exporter one:1)",
            description=(
                "Every request of an exporter to the Chutes API has failed for 15 minutes. Its "
                "metrics disappear at their maximum age. Then alerts about its miners are silent, "
                "unless another exporter watches them. First, on the exporter's host: "
                "`chutes-exporter check`."
            ),
            job="chutes",
            instance="one:1",
        ),
        "a feed that fails at one exporter of a pair is silent": pair(1)
        .fail_feed("instances", at=20, reason="timed_out", exporter="two:2")
        .drop("chutes_feed_records", at=30, feed="instances", exporter="two:2")
        .expect_alerts({HOUR: []}),
        "a feed that fails alone is named with its reason": Scenario(HOUR)
        .fail_feed("instances", at=20, reason="timed_out")
        .drop("chutes_feed_records", at=30, feed="instances")
        .expect_alerts({30: [], 55: [FAILING]})
        .expect_text(
            FAILING,
            at=55,
            summary="Feed instances fails (timed_out)",
            job="chutes",
            feed="instances",
        ),
        # Some of its records cannot be read, or the list is doubted.
        "a feed whose records are incomplete is a warning": Scenario(HOUR)
        .drop("chutes_feed_records", at=20, feed="instances")
        .expect_alerts({34: [], 45: [FAILING]})
        .expect_text(
            FAILING, at=45, summary="Feed instances lacks records", job="chutes", feed="instances"
        ),
        "signatures that are refused are critical": Scenario(HOUR)
        .fail_feed("instances", at=20, reason="signature_refused")
        .drop("chutes_feed_records", at=30, feed="instances")
        .expect_alerts({25: [], 40: [REFUSED]}),
        # Each fourth scrape succeeds.
        "missed scrapes end no alert": Scenario(50, interval=1)
        .fail_scrapes(at=(minute for minute in range(51) if minute % 4))
        .set("chutes_scrape_collector_cut", 1, at=12, collector="nodes")
        .set("chutes_miner_blacklisted", 1, at=12)
        .fail_feed("instances", at=12, reason="signature_refused")
        .expect_alerts(
            {50: [DOWN, "ChutesCollectorCut warning", "ChutesMinerBlacklisted critical", REFUSED]}
        ),
        "a feed that works again is named for 10 minutes": Scenario(50)
        .drop("chutes_feed_records", at=6, feed="instances")
        .set("chutes_feed_records", 1, at=32, feed="instances", hotkey=HOTKEY)
        .expect_alerts({40: [FAILING], 46: []}),
        "a collector that is left out is a warning": Scenario(50)
        .set("chutes_scrape_collector_cut", 1, at=20, collector="nodes")
        .expect_alerts({20: [], 40: ["ChutesCollectorCut warning"]}),
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
