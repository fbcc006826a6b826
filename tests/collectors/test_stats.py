from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.collectors.stats import COLLECTOR
from chutes_exporter.feeds.table import STATS
from tests.collectors.support import ME, UNREADABLE, Collected, collected

if TYPE_CHECKING:
    from chutes_exporter.collectors import MinersChoice


def record(hotkey: str, units: float | None, **fields: Any) -> dict[str, Any]:
    return {
        "miner_hotkey": hotkey,
        "total_instances": 3,
        "bounty_count": 1,
        "compute_seconds": 100.5,
        "compute_units": units,
    } | fields


def run(past_hour: list[dict[str, Any]], **options: Any) -> Collected:
    """Run the collector on an answer that has only the past hour."""
    return collected(COLLECTOR, {STATS: {"past_hour": {"instance_stats": past_hour}}}, **options)


def test_a_miner_and_the_platform_have_their_sums_of_a_window() -> None:
    assert run([record(ME, 250.0), record("other", 750.0, bounty_count=0)]).samples == {
        "chutes_miner_window_instances{hotkey=me,window=1h}": 3,
        "chutes_miner_window_bounties{hotkey=me,window=1h}": 1,
        "chutes_miner_window_compute_seconds{hotkey=me,window=1h}": 100.5,
        "chutes_miner_window_compute_units{hotkey=me,window=1h}": 250,
        "chutes_platform_window_miners{window=1h}": 2,
        "chutes_platform_window_instances{window=1h}": 6,
        "chutes_platform_window_bounties{window=1h}": 1,
        "chutes_platform_window_compute_seconds{window=1h}": 201,
        "chutes_platform_window_compute_units{window=1h}": 1000,
    }


def test_the_windows_are_an_hour_a_day_and_seven_days() -> None:
    windows = {
        name: {"instance_stats": [record(ME, units)]}
        for name, units in {"past_hour": 1.0, "past_day": 24.0, "all": 168.0}.items()
    }
    assert collected(COLLECTOR, {STATS: windows}).of("chutes_miner_window_compute_units") == {
        "chutes_miner_window_compute_units{hotkey=me,window=1h}": 1,
        "chutes_miner_window_compute_units{hotkey=me,window=1d}": 24,
        "chutes_miner_window_compute_units{hotkey=me,window=7d}": 168,
    }


def test_a_watched_miner_without_a_record_computed_nothing() -> None:
    made = run([record("other", 1.0)])
    assert {key: value for key, value in made.samples.items() if "hotkey" in key} == {
        "chutes_miner_window_instances{hotkey=me,window=1h}": 0,
        "chutes_miner_window_bounties{hotkey=me,window=1h}": 0,
        "chutes_miner_window_compute_seconds{hotkey=me,window=1h}": 0,
        "chutes_miner_window_compute_units{hotkey=me,window=1h}": 0,
    }


def test_an_empty_list_says_nothing() -> None:
    assert run([]).samples == {}


@pytest.mark.parametrize(
    ("miners", "exported"), [("watched", {"me"}), ("active", {"me", "a"}), ("all", {"me", "a", "zero"})]
)
def test_other_miners_are_exported_where_the_user_wants_them(miners: MinersChoice, exported: set[str]) -> None:
    made = run([record(ME, 0.0), record("a", 1.0), record("zero", 0.0)], miners=miners)
    assert made.of("chutes_miner_window_compute_units").keys() == {
        f"chutes_miner_window_compute_units{{hotkey={hotkey},window=1h}}" for hotkey in exported
    }
    assert made.samples["chutes_platform_window_miners{window=1h}"] == 3


@pytest.mark.parametrize(
    ("field", "metric"),
    [
        ("total_instances", "instances"),
        ("bounty_count", "bounties"),
        ("compute_seconds", "compute_seconds"),
        ("compute_units", "compute_units"),
    ],
)
def test_a_sum_with_an_unknown_part_is_unknown(field: str, metric: str) -> None:
    whole = run([record(ME, 1.0), record("other", 1.0)]).samples
    made = run([record(ME, 1.0), record("other", 1.0) | {field: None}]).samples
    # A miner with unknown compute units may have none, and then does not belong to the window.
    unknown = {metric, "miners"} if metric == "compute_units" else {metric}
    assert whole.keys() - made.keys() == {f"chutes_platform_window_{name}{{window=1h}}" for name in unknown}


def test_the_first_record_of_a_miner_counts() -> None:
    made = run([record(ME, 1.0), record(ME, 2.0)])
    assert made.samples["chutes_miner_window_compute_units{hotkey=me,window=1h}"] == 1
    assert made.samples["chutes_platform_window_compute_units{window=1h}"] == 1
    assert made.duplicates == 1


def test_an_incomplete_answer_shows_its_records_and_concludes_nothing() -> None:
    for made in (
        run([record(ME, 1.0), UNREADABLE], watched=[ME, "missing"]),
        run([record(ME, 1.0)], doubted=[STATS], watched=[ME, "missing"]),
    ):
        assert made.samples == {
            "chutes_miner_window_instances{hotkey=me,window=1h}": 3,
            "chutes_miner_window_bounties{hotkey=me,window=1h}": 1,
            "chutes_miner_window_compute_seconds{hotkey=me,window=1h}": 100.5,
            "chutes_miner_window_compute_units{hotkey=me,window=1h}": 1,
        }
