from __future__ import annotations

from typing import Any

from chutes_exporter.collectors.scores import SCORES_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import SCORES
from tests.collectors.support import Samples, collected, of

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
