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
    """Add each exported miner's part of what all miners earn. It has no value if nobody earns."""
    rates = earned_rates(answers, miners.watched) or {}
    rate_of_all = total(rates.values())
    for hotkey, rate in sorted(rates.items()):
        if rate_of_all and miners.exports(hotkey):
            out.add(HEADING, rate / rate_of_all, hotkey)


def earned_rates(answers: Answers, watched: AbstractSet[str]) -> dict[str, float] | None:
    """Return the compute units per second that each miner's active instances earn, by hotkey.

    It has the miners that can have a score: those with a seat that are not on the blacklist, and
    that have an active instance or are watched. None if the rate of any miner, or the blacklist, is
    unknown.
    """
    seats = answers[METAGRAPH]
    rates = _rates(answers[ACTIVE_INSTANCES])
    if rates is None or any(seat.blacklist_reason is UNSET for seat in seats):
        return None
    can_have_score = {seat.hotkey for seat in seats if not seat.blacklist_reason}
    hotkeys = can_have_score & (rates.keys() | watched)
    return {hotkey: rates.get(hotkey, 0.0) for hotkey in hotkeys}


def _rates(instances: list[ActiveInstance]) -> dict[str, float] | None:
    """Return the sum of the multipliers of each miner's instances, None if one is unknown.

    An instance earns as many compute units per second as its multiplier.
    """
    multipliers_by_miner: dict[str | None, list[float | None]] = defaultdict(list)
    for instance in distinct(instances, lambda instance: instance.instance_id):
        multipliers_by_miner[instance.miner_hotkey].append(instance.compute_multiplier)
    rates = {}
    for hotkey, multipliers in multipliers_by_miner.items():
        rate = total(multipliers)
        if hotkey is None or rate is None:
            # Instances of an unknown miner may be of any miner.
            return None
        rates[hotkey] = rate
    return rates


COLLECTOR = Collector(
    "score_heading",
    "the score share that each miner approaches",
    (Part(_FEEDS, (HEADING,), _collect),),
)
