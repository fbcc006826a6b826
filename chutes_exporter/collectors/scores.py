"""Scores: each miner's share, rank and components."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope
from chutes_exporter.feeds.table import SCORES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

METRICS = Metrics("GET /miner/scores", ("hotkey",))

SHARE = METRICS.declare(
    "chutes_miner_score_ratio",
    "The miner's share of all scores: its compute units of the past day divided by those of all miners. The service "
    "computes it every 10 minutes.",
    "final_scores",
)
RANK = METRICS.declare(
    "chutes_miner_score_rank",
    "The miner's rank by share, 1 for the highest. Equal shares have equal ranks.",
    "the order of final_scores",
)
NEXT_BETTER = METRICS.declare(
    "chutes_miner_score_next_better_ratio",
    "The share of the next better miner, which the miner must exceed to gain a rank. Absent for the best.",
    "the order of final_scores",
    stability="experimental",
)
NEXT_WORSE = METRICS.declare(
    "chutes_miner_score_next_worse_ratio",
    "The share of the next worse miner. Absent for the last.",
    "the order of final_scores",
    stability="experimental",
)
INSTANCES = METRICS.declare(
    "chutes_miner_score_instances",
    "Instances of the past day that count for the score. Public instances that ended within their first hour do not "
    "count, and private ones that their miner deleted do not count either.",
    "raw_values.total_instances",
)
BOUNTIES = METRICS.declare(
    "chutes_miner_score_bounties",
    "Instances that count for the score and were activated with a bounty. The number itself earns nothing.",
    "raw_values.bounty_score",
)
INSTANCE_SECONDS = METRICS.declare(
    "chutes_miner_score_instance_seconds",
    "Seconds of the instances that count for the score within the past day, including their start-up.",
    "raw_values.instance_seconds",
)
COMPUTE_UNITS = METRICS.declare(
    "chutes_miner_score_compute_units",
    "Compute units of the past day: seconds of each instance that counts, times its compute multiplier. The score "
    "share is the miner's part of all miners' units.",
    "raw_values.instance_compute_units",
)
SCORED = METRICS.declare("chutes_scored_miners", "Miners with a score.", "final_scores that are not null", labels=())


def ranks(values: Mapping[str, float | None]) -> dict[str, int]:
    """Return the rank of each known value, 1 for the highest. Equal values have equal ranks."""
    ordered = sorted((value for value in values.values() if value is not None), reverse=True)
    rank = {value: position for position, value in reversed(list(enumerate(ordered, start=1)))}
    return {key: rank[value] for key, value in values.items() if value is not None}


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    scores = answers[SCORES]
    shares = {hotkey: share for hotkey, share in scores.shares.items() if share is not None}
    exported = {hotkey for hotkey in scores.shares if scope.exports(hotkey, active=bool(shares.get(hotkey)))}
    for hotkey, share in shares.items():
        if hotkey in exported:
            out.add(SHARE, share, hotkey)
    for hotkey, raw in scores.raw.items():
        if raw is not None and hotkey in exported:
            out.add(INSTANCES, raw.total_instances, hotkey)
            out.add(BOUNTIES, raw.bounty_score, hotkey)
            out.add(INSTANCE_SECONDS, raw.instance_seconds, hotkey)
            out.add(COMPUTE_UNITS, raw.instance_compute_units, hotkey)
    # Ranks need the shares of all miners.
    if answers.complete() and shares.keys() >= scores.raw.keys() | scores.shares.keys():
        _add_ranks(shares, exported, out)
        out.add(SCORED, len(shares))


def _add_ranks(shares: Mapping[str, float], exported: AbstractSet[str], out: Samples) -> None:
    steps = sorted(set(shares.values()))
    rank = ranks(shares)
    for hotkey in sorted(shares.keys() & exported):
        step = bisect.bisect_left(steps, shares[hotkey])
        out.add(RANK, rank[hotkey], hotkey)
        out.add(NEXT_BETTER, steps[step + 1] if step + 1 < len(steps) else None, hotkey)
        out.add(NEXT_WORSE, steps[step - 1] if step > 0 else None, hotkey)


COLLECTOR = Collector(
    name="scores",
    summary="each miner's score share, rank and components",
    feeds=(SCORES,),
    metrics=METRICS,
    collect=_collect,
    cost="1, 8 for each miner",
)
