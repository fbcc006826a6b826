"""The score share that each miner approaches. The score itself is an average over a day."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import UNSET

from chutes_exporter.collectors.base import (
    Answers,
    Collector,
    Miners,
    Part,
    Samples,
    distinct,
    metric_of,
)
from chutes_exporter.feeds.definitions import ACTIVE_INSTANCES, METAGRAPH
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import ActiveInstance

_FEEDS = (ACTIVE_INSTANCES, METAGRAPH)
HEADING = metric_of(*_FEEDS)(
    "chutes_miner_score_heading_ratio",
    "The score share that the miner approaches if all active instances continue unchanged: its "
    "compute units per second, divided by those of all miners. Disabled instances do not count, "
    "because the service deletes them within 3 hours. It is a direction, not tomorrow's score: see "
    "docs/earnings.md.",
    ("hotkey",),
    stability="experimental",
)


def _collect(answers: Answers, miners: Miners, out: Samples) -> None:
    earned = earned_rates(answers, miners.watched) or {}
    everybody = total(earned.values())
    for hotkey, rate in sorted(earned.items()):
        if everybody and miners.exports(hotkey):
            out.add(HEADING, rate / everybody, hotkey)


def earned_rates(answers: Answers, watched: AbstractSet[str]) -> dict[str, float] | None:
    """Return the compute units per second that the active instances of each miner earn, of all
    miners that can have a score. None if one is unknown.

    Watched miners are returned even if they earn nothing.
    """
    seats = answers[METAGRAPH]
    rates = _rates(answers[ACTIVE_INSTANCES])
    if rates is None or any(seat.blacklist_reason is UNSET for seat in seats):
        return None
    scored = {seat.hotkey for seat in seats if not seat.blacklist_reason}
    return {hotkey: rates.get(hotkey, 0.0) for hotkey in scored & (rates.keys() | watched)}


def _rates(instances: list[ActiveInstance]) -> dict[str, float] | None:
    """Return the sum of the multipliers of each miner's instances, None if one is unknown."""
    multipliers: dict[str | None, list[float | None]] = defaultdict(list)
    for instance in distinct(instances, lambda instance: instance.instance_id):
        multipliers[instance.miner_hotkey].append(instance.compute_multiplier)
    rates = {}
    for hotkey, of_miner in multipliers.items():
        rate = total(of_miner)
        if hotkey is None or rate is None:
            return None
        rates[hotkey] = rate
    return rates


COLLECTOR = Collector(
    "score_heading",
    "the score share that each miner approaches",
    (Part(_FEEDS, (HEADING,), _collect),),
)
