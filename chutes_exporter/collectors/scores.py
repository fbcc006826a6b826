"""Scores: each miner's share, rank, and what they are made of."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Scope
from chutes_exporter.metric import Metric, Samples
from chutes_exporter.sources import SCORES

_SOURCE = "GET /miner/scores"
_MINER = ("hotkey",)

SHARE = Metric(
    "chutes_miner_score_ratio",
    "The miner's share of all scores; the shares of all miners sum to 1.",
    _MINER,
    f"{_SOURCE}: final_scores",
)
RANK = Metric(
    "chutes_miner_score_rank",
    "The miner's place by share, 1 being the best; equal shares have equal places.",
    _MINER,
    f"{_SOURCE}: the order of final_scores",
)
INSTANCES = Metric(
    "chutes_miner_score_instances",
    "Instances that count in the scoring interval.",
    _MINER,
    f"{_SOURCE}: raw_values.total_instances",
)
BOUNTIES = Metric(
    "chutes_miner_score_bounties",
    "Bounties that count in the scoring interval.",
    _MINER,
    f"{_SOURCE}: raw_values.bounty_score",
)
INSTANCE_SECONDS = Metric(
    "chutes_miner_score_instance_seconds",
    "Seconds of active instances that count in the scoring interval.",
    _MINER,
    f"{_SOURCE}: raw_values.instance_seconds",
)
COMPUTE_UNITS = Metric(
    "chutes_miner_score_compute_units",
    "Compute units (seconds weighted by compute multiplier) that count in the scoring interval.",
    _MINER,
    f"{_SOURCE}: raw_values.instance_compute_units",
)
SCORED = Metric("chutes_scored_miners", "Miners that have a score.", (), f"{_SOURCE}: final_scores that are not null")


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Translate the scores."""
    scores = answers[SCORES]
    shares = {hotkey: share for hotkey, share in scores.shares.items() if share is not None}
    place = 0
    previous: float | None = None
    for position, (hotkey, share) in enumerate(sorted(shares.items(), key=lambda item: item[1], reverse=True), start=1):
        if share != previous:
            place, previous = position, share
        if scope.exports(hotkey):
            out.add(SHARE, share, hotkey)
            out.add(RANK, place, hotkey)
    for hotkey, raw in scores.raw.items():
        if raw is not None and scope.exports(hotkey):
            out.add(INSTANCES, raw.total_instances, hotkey)
            out.add(BOUNTIES, raw.bounty_score, hotkey)
            out.add(INSTANCE_SECONDS, raw.instance_seconds, hotkey)
            out.add(COMPUTE_UNITS, raw.instance_compute_units, hotkey)
    out.add(SCORED, len(shares))


COLLECTOR = Collector(
    name="scores",
    summary="each miner's score share, rank and what they are made of",
    sources=(SCORES,),
    metrics=(SHARE, RANK, INSTANCES, BOUNTIES, INSTANCE_SECONDS, COMPUTE_UNITS, SCORED),
    collect=collect,
)
