from __future__ import annotations

from typing import Any

from chutes_exporter.collectors.stats import COLLECTOR, PER_CHUTE
from chutes_exporter.feeds.table import STATS, STATS_PER_CHUTE
from tests.collectors.support import ME, Collected, collected

UNITS = "chutes_miner_chute_window_compute_units"


def record(hotkey: str, units: float | None, chute_id: str | None = None) -> dict[str, Any]:
    return {
        "miner_hotkey": hotkey,
        "chute_id": chute_id,
        "total_instances": 3,
        "bounty_count": 1,
        "compute_seconds": 100.5,
        "compute_units": units,
    }


def run(*past_hour: dict[str, Any]) -> Collected:
    """Run the collector on an answer that has only the past hour."""
    return collected(COLLECTOR, {STATS: {"past_hour": {"instance_stats": list(past_hour)}}})


def run_per_chute(*past_hour: dict[str, Any]) -> Collected:
    return collected(PER_CHUTE, {STATS_PER_CHUTE: {"past_hour": {"instance_stats": list(past_hour)}}})


def test_a_watched_miner_without_a_record_computed_nothing() -> None:
    made = run(record("other", 1.0))
    assert {key: value for key, value in made.samples.items() if "hotkey" in key} == {
        "chutes_miner_window_instances{hotkey=me,window=1h}": 0,
        "chutes_miner_window_bounties{hotkey=me,window=1h}": 0,
        "chutes_miner_window_compute_seconds{hotkey=me,window=1h}": 0,
        "chutes_miner_window_compute_units{hotkey=me,window=1h}": 0,
    }


def test_an_empty_list_says_nothing() -> None:
    assert run().samples == {}


def test_the_first_record_of_a_miner_counts() -> None:
    made = run(record(ME, 1.0), record(ME, 2.0))
    assert made.samples["chutes_miner_window_compute_units{hotkey=me,window=1h}"] == 1
    assert made.samples["chutes_platform_window_compute_units{window=1h}"] == 1
    assert made.duplicates == 1


def test_a_record_without_a_chute_is_a_sum_and_left_out() -> None:
    assert run_per_chute(record(ME, 5.0)).samples == {}


def test_the_first_record_of_a_miner_on_a_chute_counts() -> None:
    made = run_per_chute(record(ME, 1.0, "c"), record(ME, 2.0, "c"), record(ME, 3.0, "d"))
    assert made.of(UNITS) == {
        f"{UNITS}{{hotkey=me,chute_id=c,window=1h}}": 1,
        f"{UNITS}{{hotkey=me,chute_id=d,window=1h}}": 3,
    }
    assert made.duplicates == 1
