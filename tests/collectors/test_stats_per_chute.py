from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.collectors.stats_per_chute import COLLECTOR
from chutes_exporter.feeds.table import STATS_PER_CHUTE
from tests.collectors.support import ME, UNREADABLE, Collected, collected

if TYPE_CHECKING:
    from chutes_exporter.collectors import MinersChoice

UNITS = "chutes_miner_chute_window_compute_units"


def record(hotkey: str, chute_id: str | None, units: float | None = 5.0) -> dict[str, Any]:
    return {
        "miner_hotkey": hotkey,
        "chute_id": chute_id,
        "total_instances": 2,
        "bounty_count": 1,
        "compute_seconds": 100.5,
        "compute_units": units,
    }


def run(past_hour: list[dict[str, Any]], **options: Any) -> Collected:
    """Run the collector on an answer that has only the past hour."""
    return collected(COLLECTOR, {STATS_PER_CHUTE: {"past_hour": {"instance_stats": past_hour}}}, **options)


def test_a_miner_has_its_sums_of_a_window_on_each_chute() -> None:
    assert run([record(ME, "c"), record(ME, "d", 7.0)]).samples == {
        "chutes_miner_chute_window_instances{hotkey=me,chute_id=c,window=1h}": 2,
        "chutes_miner_chute_window_bounties{hotkey=me,chute_id=c,window=1h}": 1,
        "chutes_miner_chute_window_compute_seconds{hotkey=me,chute_id=c,window=1h}": 100.5,
        "chutes_miner_chute_window_compute_units{hotkey=me,chute_id=c,window=1h}": 5,
        "chutes_miner_chute_window_instances{hotkey=me,chute_id=d,window=1h}": 2,
        "chutes_miner_chute_window_bounties{hotkey=me,chute_id=d,window=1h}": 1,
        "chutes_miner_chute_window_compute_seconds{hotkey=me,chute_id=d,window=1h}": 100.5,
        "chutes_miner_chute_window_compute_units{hotkey=me,chute_id=d,window=1h}": 7,
    }


def test_the_windows_are_an_hour_a_day_and_seven_days() -> None:
    answer = {name: {"instance_stats": [record(ME, "c")]} for name in ("past_hour", "past_day", "all")}
    assert collected(COLLECTOR, {STATS_PER_CHUTE: answer}).of(UNITS).keys() == {
        f"{UNITS}{{hotkey=me,chute_id=c,window={window}}}" for window in ("1h", "1d", "7d")
    }


def test_a_miner_without_records_has_no_samples() -> None:
    assert run([]).samples == {}
    assert run([record("other", "c")]).samples == {}


@pytest.mark.parametrize(
    ("miners", "exported"), [("watched", {"me"}), ("active", {"me", "a"}), ("all", {"me", "a", "zero"})]
)
def test_other_miners_are_exported_where_the_user_wants_them(miners: MinersChoice, exported: set[str]) -> None:
    made = run([record(ME, "c"), record("a", "c"), record("zero", "c", 0.0)], miners=miners)
    assert made.of(UNITS).keys() == {f"{UNITS}{{hotkey={hotkey},chute_id=c,window=1h}}" for hotkey in exported}


def test_a_record_without_a_chute_is_a_sum_and_left_out() -> None:
    assert run([record(ME, None)]).samples == {}


def test_an_unknown_value_makes_no_sample() -> None:
    made = run([record(ME, "c", None)])
    assert made.of(UNITS) == {}
    assert len(made.samples) == 3


def test_the_first_record_of_a_miner_on_a_chute_counts() -> None:
    made = run([record(ME, "c", 1.0), record(ME, "c", 2.0), record(ME, "d", 3.0)])
    assert made.of(UNITS) == {
        f"{UNITS}{{hotkey=me,chute_id={chute},window=1h}}": n for chute, n in (("c", 1), ("d", 3))
    }
    assert made.duplicates == 1


def test_the_records_that_are_known_stay_where_the_answer_is_incomplete() -> None:
    whole = run([record(ME, "c")])
    assert run([record(ME, "c"), UNREADABLE]) == whole
    assert run([record(ME, "c")], doubted=[STATS_PER_CHUTE]) == whole
