from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.scores import SCORES_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import SCORES
from tests.collectors.support import ME, Samples, collected, of

RAW = {
    "total_instances": 12.0,
    "bounty_score": 2.0,
    "instance_seconds": 3600.0,
    "instance_compute_units": 7200.0,
}
ORDER = ("chutes_miner_score_rank", "chutes_miner_score_next_better_ratio")


def run(shares: dict[str, Any], raw: dict[str, Any] | None = None, **options: Any) -> Samples:
    return collected(COLLECTOR, {SCORES: {"final_scores": shares, "raw_values": raw}}, **options)


def test_equal_shares_have_equal_places_and_the_best_has_no_better() -> None:
    made = run({"a": 0.4, "b": 0.25, "c": 0.25, "d": 0.1}, miners="all")
    assert of(made, *ORDER) == {
        "chutes_miner_score_rank{hotkey=a}": 1,
        "chutes_miner_score_rank{hotkey=b}": 2,
        "chutes_miner_score_next_better_ratio{hotkey=b}": 0.4,
        "chutes_miner_score_rank{hotkey=c}": 2,
        "chutes_miner_score_next_better_ratio{hotkey=c}": 0.4,
        "chutes_miner_score_rank{hotkey=d}": 4,
        "chutes_miner_score_next_better_ratio{hotkey=d}": 0.25,
    }


@pytest.mark.parametrize(
    ("shares", "raw"),
    [
        ({"other": None}, {}),
        ({"other": "0.5"}, {}),
        ({}, {"other": RAW}),
        ({}, {"other": {"total_instances": "1"}}),
    ],
    ids=["null", "unreadable", "missing", "unreadable parts"],
)
def test_the_unknown_share_of_one_miner_hides_all_places(
    shares: dict[str, Any], raw: dict[str, Any]
) -> None:
    made = run({ME: 0.5} | shares, {ME: RAW} | raw)
    assert made == {
        "chutes_miner_score_ratio{hotkey=me}": 0.5,
        "chutes_miner_score_window_instances{hotkey=me,window=1d}": 12,
        "chutes_miner_score_window_bounties{hotkey=me,window=1d}": 2,
        "chutes_miner_score_window_instance_seconds{hotkey=me,window=1d}": 3600,
        "chutes_miner_score_window_compute_units{hotkey=me,window=1d}": 7200,
    }
