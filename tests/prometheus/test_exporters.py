"""Alerts about exporters, the API and the way between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.prometheus.scenario import HOTKEY, HOUR, Scenario, Text

if TYPE_CHECKING:
    from pathlib import Path

ME = {"hotkey": HOTKEY}
PAIR = ("one:1", "two:2")
DOWN, UNWATCHED = ("ChutesExporterDown", "warning"), ("ChutesMinerUnwatched", "critical")
REMOVED = ("ChutesMinerUnwatched", "info")
API, API_CRITICAL = ("ChutesApiDown", "warning"), ("ChutesApiDown", "critical")
FAILING, REFUSED = ("ChutesFeedFailing", "warning"), ("ChutesSignatureRefused", "critical")
FEEDS = (("metagraph", ""), ("scores", ""), ("instances", HOTKEY))


def stop(miner: Scenario, at: int, feed: str, hotkey: str, reason: str = "unavailable") -> None:
    """Let the requests of a feed fail."""
    labels = {"feed": feed, "hotkey": hotkey}
    miner.set("chutes_feed_up", 0, at, **labels)
    miner.set("chutes_feed_last_success_timestamp_seconds", 60 * at, at, **labels)
    miner.set("chutes_feed_failure_info", 1, at, **labels, reason=reason)


def test_one_exporter_of_a_pair_that_is_down_is_a_warning_that_names_it(tmp_path: Path) -> None:
    miner = Scenario(HOUR, {"alpha": 8}, exporters=PAIR)
    miner.fail("two:2", range(20, HOUR + 1))
    said = 'ALERTS{alertname="ChutesExporterDown",alertstate="firing",severity="warning",job="chutes",instance="two:2"}'
    miner.check(tmp_path, {20: [], 35: [DOWN]}, values={'ALERTS{alertname="ChutesExporterDown"}': (35, {said: 1})})


def test_a_pair_that_is_down_is_critical(tmp_path: Path) -> None:
    miner = Scenario(HOUR, {"alpha": 8}, exporters=PAIR)
    for exporter in PAIR:
        miner.fail(exporter, range(20, HOUR + 1))
    said = (
        f"No exporter has reported about {HOTKEY} for 10 minutes, so all other alerts about this miner are silent. "
        "Prometheus cannot scrape the exporter that watches it."
    )
    text = Text(UNWATCHED, 35, {}, "no exporter watches it", said)
    miner.check(tmp_path, {20: [], 35: [DOWN, UNWATCHED]}, ever=[DOWN, UNWATCHED, REMOVED], texts=[text])


def test_an_exporter_that_leaves_the_targets_is_critical(tmp_path: Path) -> None:
    miner = Scenario(50)
    miner.target("one:1", 0, 20)
    miner.check(tmp_path, {20: [], 35: [UNWATCHED]})


def test_a_restart_at_another_address_is_silent(tmp_path: Path) -> None:
    miner = Scenario(2 * HOUR, {"alpha": 8}, exporters=PAIR)
    miner.state(0, ["alpha-0"], "starting")
    miner.instance("i-1", 0, server="alpha")
    miner.activate("i-1", 30)
    miner.target("one:1", 0, 50)
    miner.target("two:2", 52, 2 * HOUR)
    miner.check(tmp_path, {80: []})


def test_a_hotkey_that_is_removed_from_the_configuration_is_info(tmp_path: Path) -> None:
    miner = Scenario(2 * HOUR)
    for name in ("chutes_miner_watched", "chutes_miner_registered", "chutes_miner_score_heading_ratio"):
        miner.drop(20, name)
    miner.check(tmp_path, {50: [], 70: [REMOVED]})


def test_an_api_without_an_answer_is_a_warning_and_critical_when_all_data_has_expired(tmp_path: Path) -> None:
    miner = Scenario(80)
    for feed, hotkey in FEEDS:
        stop(miner, 20, feed, hotkey)
    miner.check(tmp_path, {30: [], 40: [API], 60: [API, API_CRITICAL, FAILING]})


def test_a_feed_that_fails_alone_is_named_with_its_reason(tmp_path: Path) -> None:
    miner = Scenario(HOUR)
    stop(miner, 20, "instances", HOTKEY, "timed_out")
    said = (
        f"The requests of the feed instances of {HOTKEY} fail (timed_out), and the last answer is older than its "
        "maximum age. Alerts that need it are silent."
    )
    labels = {"job": "chutes", "feed": "instances"}
    text = Text(FAILING, 45, labels, "no data from instances", said)
    miner.check(tmp_path, {30: [], 45: [FAILING]}, texts=[text])


def test_a_feed_that_never_succeeded_fails(tmp_path: Path) -> None:
    miner = Scenario(40)
    miner.set("chutes_feed_up", 0, feed="jobs", **ME)
    miner.set("chutes_feed_max_age_seconds", 600, feed="jobs", **ME)
    miner.check(tmp_path, {40: [FAILING]})


def test_incomplete_answers_are_a_warning_after_30_minutes(tmp_path: Path) -> None:
    rejected = Scenario(HOUR)
    rejected.set("chutes_feed_rejected_records", 2, 20, feed="nodes", **ME)
    rejected.check(tmp_path, {34: [], 55: [("ChutesDataIncomplete", "warning")]})
    doubted = Scenario(HOUR)
    doubted.set("chutes_feed_doubted", 1, 20, feed="nodes", **ME, reason="shrunk")
    doubted.set("chutes_feed_doubted", 1, 0, feed="bounties", hotkey="", reason="no_bounties")
    doubted.check(tmp_path, {34: [], 55: [("ChutesDataIncomplete", "warning")]})


def test_signatures_that_are_refused_are_critical(tmp_path: Path) -> None:
    miner = Scenario(HOUR)
    stop(miner, 20, "instances", HOTKEY, "signature_refused")
    miner.check(tmp_path, {25: [], 40: [REFUSED]})


def test_signatures_that_only_one_of_a_pair_can_make_are_silent(tmp_path: Path) -> None:
    miner = Scenario(HOUR)
    miner.set("chutes_feed_failure_info", 1, 20, **ME, feed="jobs", reason="signature_refused")
    miner.check(tmp_path, {HOUR: []})


def test_a_clock_that_is_wrong_is_a_warning(tmp_path: Path) -> None:
    miner = Scenario(50)
    miner.set("chutes_api_clock_offset_seconds", 0)
    miner.set("chutes_api_clock_offset_seconds", -300, 20)
    miner.check(tmp_path, {20: [], 40: [("ChutesClockOff", "warning")]})


def test_a_collector_that_is_left_out_and_a_failed_reload_are_warnings(tmp_path: Path) -> None:
    miner = Scenario(50)
    miner.set("chutes_scrape_collector_cut", 1, 20, collector="nodes")
    miner.set("chutes_exporter_config_last_reload_successful", 1)
    miner.set("chutes_exporter_config_last_reload_successful", 0, 20)
    miner.check(tmp_path, {20: [], 40: [("ChutesCollectorCut", "warning"), ("ChutesReloadFailed", "warning")]})


@pytest.mark.parametrize(
    ("metric", "field"),
    [
        ("chutes_api_unknown_fields", {}),
        ("chutes_api_missing_fields", {}),
        ("chutes_api_unknown_values", {"field": "status"}),
    ],
)
def test_a_change_of_the_api_is_info_that_names_the_endpoint(
    metric: str, field: dict[str, str], tmp_path: Path
) -> None:
    changed = ("ChutesApiChanged", "info")
    miner = Scenario(4 * HOUR)
    for name in ("chutes_api_unknown_fields", "chutes_api_missing_fields"):
        miner.set(name, 0, endpoint="nodes")
        miner.set(name, 0, endpoint="images")
    miner.set("chutes_api_unknown_values", 0, endpoint="images", field="status")
    miner.set(metric, 2, HOUR, endpoint="images", **field)
    said = 'ALERTS{alertname="ChutesApiChanged",alertstate="firing",severity="info",job="chutes",endpoint="images"}'
    values = {'ALERTS{alertname="ChutesApiChanged"}': (3 * HOUR, {said: 1})}
    miner.check(tmp_path, {HOUR: [], 3 * HOUR: [changed]}, ever=[changed], values=values)
