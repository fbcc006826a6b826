from __future__ import annotations

from typing import Any

from chutes_exporter.collectors.stats import COLLECTOR, PER_CHUTE
from chutes_exporter.feeds.table import STATS, STATS_PER_CHUTE
from tests.collectors.support import ME, collected


def stats(*past_hour: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that has only the past hour."""
    return {"past_hour": {"instance_stats": list(past_hour)}}


def test_a_watched_miner_without_a_record_computed_nothing() -> None:
    made = collected(COLLECTOR, {STATS: stats({"miner_hotkey": "other", "compute_units": 1.0})})
    assert {key: value for key, value in made.items() if "hotkey" in key} == {
        f"chutes_miner_window_{name}{{hotkey=me,window=1h}}": 0
        for name in ("instances", "bounties", "compute_seconds", "compute_units")
    }


def test_an_empty_list_says_nothing() -> None:
    assert collected(COLLECTOR, {STATS: stats()}) == {}


def test_a_record_without_a_chute_is_a_sum_and_left_out() -> None:
    assert collected(PER_CHUTE, {STATS_PER_CHUTE: stats({"miner_hotkey": ME, "compute_units": 5.0})}) == {}
