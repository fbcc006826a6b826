"""Scores of miners, where they are heading, and the statistics behind them."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from chutes_exporter.api.records import HistoryPoint, MinerStats
from chutes_exporter.collectors.base import Answers, Collector, Miners, Part, Samples
from chutes_exporter.collectors.table import Row, Table, Total
from chutes_exporter.feeds.definitions import (
    ACTIVE_INSTANCES,
    METAGRAPH,
    SCORES,
    STATS,
    STATS_PER_CHUTE,
    UNIQUE_CHUTE_HISTORY,
)
from chutes_exporter.fleet.answers import first_of_each
from chutes_exporter.rules.score import is_blacklisted, shares_of
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.records import RawScore


class Score(NamedTuple):
    """The score of one miner."""

    hotkey: str
    final_scores: float | None
    raw_values: RawScore | None

    @property
    def share(self) -> tuple[str, float] | None:
        """The miner and its share, None if it is unknown."""
        return None if self.final_scores is None else (self.hotkey, self.final_scores)


def ranks(values: Mapping[str, float]) -> dict[str, int]:
    """Return the rank of each value, 1 for the highest. Equal values have equal ranks."""
    ascending = sorted(values.values())
    # The part of the list from here on is higher.
    return {
        key: 1 + len(ascending) - bisect_right(ascending, value) for key, value in values.items()
    }


def next_better(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return the next better one for each value, None for the best one."""
    better = dict(pairwise(sorted(set(values.values()))))
    return {key: better.get(value) for key, value in values.items()}


SCORE = Table[Score](
    SCORES,
    key="hotkey",
    records=lambda scores: [
        Score(hotkey, scores.shares.get(hotkey), scores.raw.get(hotkey))
        for hotkey in scores.shares | scores.raw
    ],
    miner="hotkey",
    chutes_miner_score_ratio=Row(
        "The miner's share of all scores: its compute units of the past day divided by those of "
        "all miners. The service computes it every 10 minutes.",
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
        # In the order of hotkeys, the lines of the page keep their places.
        lambda shares: ranks(dict(sorted(shares))),
        of=lambda score: score.share,
        label="hotkey",
    ),
    chutes_miner_score_next_better_ratio=Total(
        "The share of the next better miner, which the miner must exceed to gain a rank. "
        "Absent for the best.",
        lambda shares: next_better(dict(sorted(shares))),
        of=lambda score: score.share,
        stability="experimental",
        label="hotkey",
    ),
    chutes_scored_miners=Total("Miners with a score.", len, of="final_scores"),
)

SCORES_COLLECTOR = Collector("scores", "each miner's score share, rank and components", (SCORE,))


_HEADING_FEEDS = (ACTIVE_INSTANCES, METAGRAPH)
_HEADING_PART = Part(*_HEADING_FEEDS)
HEADING = _HEADING_PART.metric(
    "chutes_miner_score_heading_ratio",
    "The score share that the miner approaches if its active instances continue: its compute "
    "units per second, without disabled instances, divided by those of all miners.",
    ("hotkey",),
    complete=_HEADING_FEEDS,
    stability="experimental",
)


@_HEADING_PART.function
def score_heading(answers: Answers, miners: Miners, out: Samples) -> None:
    """Add each exported miner's part of what all miners earn. It has no value if nobody earns.

    Miners can have a score with a seat that is not on the blacklist, and with an active instance or
    if they are watched. Nothing is known if what any miner earns, or the blacklist, is unknown.
    """
    blacklist = {seat.hotkey: is_blacklisted(seat) for seat in answers[METAGRAPH]}
    units_per_second: dict[str | None, float | None] = dict.fromkeys(miners.watched, 0.0)
    active = answers[ACTIVE_INSTANCES]
    for instance in first_of_each(active, "instance_id").values():
        hotkey = instance.miner_hotkey
        # An instance earns as many compute units per second as its multiplier.
        units = [units_per_second.get(hotkey, 0.0), instance.compute_multiplier]
        units_per_second[hotkey] = total(units)
    # An instance of an unknown miner may be of any miner.
    if None in (*units_per_second, *units_per_second.values(), *blacklist.values()):
        return
    units_by_seat = {
        hotkey: units_per_second[hotkey]
        for hotkey in sorted(blacklist)
        if hotkey in units_per_second and not blacklist[hotkey]
    }
    shares = shares_of(units_by_seat)
    for hotkey in filter(miners.exports, shares):
        out.add(HEADING, shares[hotkey], hotkey)


SCORE_HEADING_COLLECTOR = Collector(
    "score_heading", "the score share that each miner approaches", (_HEADING_PART,)
)


MINER = Table[MinerStats](
    STATS,
    key="miner_hotkey window",
    label="hotkey window",
    miner="miner_hotkey",
    chutes_miner_window_instances=Row(
        "Counting instances that overlap the window, including deleted ones.",
        "total_instances",
        missing=0,
    ),
    chutes_miner_window_bounties=Row(
        "Counting instances in the window that were activated with a bounty.",
        "bounty_count",
        missing=0,
    ),
    chutes_miner_window_compute_seconds=Row(
        "Seconds of counting instances within the window, including their start-up.",
        "compute_seconds",
        missing=0,
    ),
    chutes_miner_window_compute_units=Row(
        "Compute units in the window: seconds of counting instances times their compute "
        "multiplier. The 1d window equals the score.",
        "compute_units",
        missing=0,
    ),
    chutes_platform_window_miners=Total(
        "Miners with compute units in the window.", len, of="compute_units", by="window"
    ),
    chutes_platform_window_instances=Total(
        "Counting instances of all miners that overlap the window.",
        total,
        of="total_instances",
        by="window",
    ),
    chutes_platform_window_bounties=Total(
        "Counting instances of all miners in the window that were activated with a bounty.",
        total,
        of="bounty_count",
        by="window",
    ),
    chutes_platform_window_compute_seconds=Total(
        "Seconds of all miners' counting instances within the window.",
        total,
        of="compute_seconds",
        by="window",
    ),
    chutes_platform_window_compute_units=Total(
        "Compute units of all miners in the window, including blacklisted miners.",
        total,
        of="compute_units",
        by="window",
    ),
)

MINER_CHUTE = Table[MinerStats](
    STATS_PER_CHUTE,
    key="miner_hotkey chute_id window",
    label="hotkey chute_id window",
    records=lambda stats: [record for record in stats if record.chute_id is not None],
    miner="miner_hotkey",
    chutes_miner_chute_window_instances=Row(
        "Counting instances of the miner on the chute that overlap the window, including deleted "
        "ones.",
        "total_instances",
    ),
    chutes_miner_chute_window_bounties=Row(
        "Counting instances of the miner on the chute in the window that were activated with a "
        "bounty.",
        "bounty_count",
    ),
    chutes_miner_chute_window_compute_seconds=Row(
        "Seconds of the miner's counting instances on the chute within the window, including "
        "their start-up.",
        "compute_seconds",
    ),
    chutes_miner_chute_window_compute_units=Row(
        "Compute units of the miner on the chute in the window: seconds times the compute "
        "multiplier.",
        "compute_units",
    ),
)

STATS_COLLECTOR = Collector(
    "stats",
    "the compute of each miner, and of all miners, in the past hour, day and week",
    (MINER,),
)
STATS_PER_CHUTE_COLLECTOR = Collector(
    "stats_per_chute",
    "the compute of each watched miner on each chute in the past hour, day and week",
    (MINER_CHUTE,),
)


NEWEST_POINT = Table[HistoryPoint](
    UNIQUE_CHUTE_HISTORY,
    records=lambda points: sorted(points, key=lambda point: point.time)[-1:],
    chutes_miner_unique_chute_gpus=Row(
        "GPUs of the distinct chutes that the miner ran at the newest full hour. Public instances"
        " count from the age of one hour, so the newest numbers still rise.",
        "count",
        complete=True,
    ),
    chutes_miner_active_gpus=Row(
        "GPUs of all the miner's instances that were active at the newest full hour. Public "
        "instances count from the age of one hour.",
        "total_count",
        complete=True,
    ),
    chutes_miner_history_timestamp_seconds=Row(
        "The newest full hour of the miner's history. It stops when the miner has had no "
        "activity for 7 days.",
        "time",
        complete=True,
    ),
)
WEEK = Table[HistoryPoint](
    UNIQUE_CHUTE_HISTORY,
    key="time",
    chutes_miner_average_active_gpus=Total(
        "Average of the GPUs that were active at each full hour of the past 7 days.",
        lambda counts: {"7d": fmean(counts)} if counts else {},
        of="total_count",
        label="window",
    ),
)

UNIQUE_CHUTE_HISTORY_COLLECTOR = Collector(
    "unique_chute_history",
    "GPUs that each watched miner had active, at the newest full hour and on average over 7 days",
    (NEWEST_POINT, WEEK),
)
