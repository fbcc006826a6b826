"""Scores: each miner's share, rank and components."""

from __future__ import annotations

import bisect
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table, Total
from chutes_exporter.feeds.definitions import SCORES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import RawScore, Scores


class Score(NamedTuple):
    """The score of one miner."""

    hotkey: str
    final_scores: float | None
    raw_values: RawScore | None


def _of_miners(scores: Scores) -> list[Score]:
    hotkeys = dict.fromkeys([*scores.shares, *scores.raw])
    return [Score(hotkey, scores.shares.get(hotkey), scores.raw.get(hotkey)) for hotkey in hotkeys]


def ranks(values: Mapping[str, float]) -> dict[str, int]:
    """Return the rank of each value, 1 for the highest. Equal values have equal ranks."""
    ascending = sorted(values.values())
    rank_by_key = {}
    for key, value in values.items():
        not_higher = bisect.bisect_right(ascending, value)
        higher = len(ascending) - not_higher
        rank_by_key[key] = higher + 1
    return rank_by_key


def _shares(scores: list[Score]) -> dict[str, float]:
    """Return the share of each miner, of none if one is unknown, because any rank could be wrong.

    They are in the order of hotkeys, so that the lines of the page keep their places.
    """
    shares: dict[str, float] = {}
    for score in sorted(scores, key=lambda score: score.hotkey):
        if score.final_scores is None:
            return {}
        shares[score.hotkey] = score.final_scores
    return shares


def _next_better(scores: list[Score]) -> dict[str, float | None]:
    """Return the next better share for each miner, None for the best one."""
    shares = _shares(scores)
    ascending = sorted(set(shares.values()))
    next_better = dict(pairwise(ascending))
    return {hotkey: next_better.get(share) for hotkey, share in shares.items()}


SCORE = Table[Score](
    SCORES,
    key="hotkey",
    records=_of_miners,
    miner="hotkey",
    chutes_miner_score_ratio=Row(
        "The miner's share of all scores: its compute units of the past day divided by those of "
        "all miners. The "
        "service computes it every 10 minutes.",
        "final_scores",
    ),
    chutes_miner_score_window_instances=Row(
        "Instances of the past day that count for the score. Public instances that ended within "
        "their first hour do not count, and private ones that their miner deleted do not count "
        "either.",
        {"1d": "raw_values.total_instances"},
        by="window",
    ),
    chutes_miner_score_window_bounties=Row(
        "Instances that count for the score and were activated with a bounty. The number itself "
        "earns nothing.",
        {"1d": "raw_values.bounty_score"},
        by="window",
    ),
    chutes_miner_score_window_instance_seconds=Row(
        "Seconds of the instances that count for the score within the past day, including their "
        "start-up.",
        {"1d": "raw_values.instance_seconds"},
        by="window",
    ),
    chutes_miner_score_window_compute_units=Row(
        "Compute units of the past day: seconds of each instance that counts, times its compute "
        "multiplier. The score share is the miner's part of all miners' units.",
        {"1d": "raw_values.instance_compute_units"},
        by="window",
    ),
    chutes_miner_score_rank=Total(
        "The miner's rank by share, 1 for the highest. Equal shares have equal ranks.",
        lambda scores: ranks(_shares(scores)),
        label="hotkey",
    ),
    chutes_miner_score_next_better_ratio=Total(
        "The share of the next better miner, which the miner must exceed to gain a rank. "
        "Absent for the best.",
        _next_better,
        stability="experimental",
        label="hotkey",
    ),
    chutes_scored_miners=Total("Miners with a score.", len, of="final_scores"),
)

COLLECTOR = Collector("scores", "each miner's score share, rank and components", (SCORE,))
