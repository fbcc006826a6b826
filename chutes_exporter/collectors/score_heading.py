"""The score share that each miner approaches. The score itself is an average over a day."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import UNSET

from chutes_exporter.collectors.base import Answers, Collector, Miners, Part, Samples, distinct, metric_of
from chutes_exporter.feeds.table import ACTIVE_INSTANCES, AUDIT_REPORT, HELD_GPUS, METAGRAPH
from chutes_exporter.rules.score import active_rates
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_FEEDS = (ACTIVE_INSTANCES, METAGRAPH, AUDIT_REPORT, HELD_GPUS)
HEADING = metric_of(*_FEEDS)(
    "chutes_miner_score_heading_ratio",
    "Estimate of the miner's score share in a day if all active instances continue unchanged: its compute units per "
    "second, divided by those of all miners. Disabled instances count too. docs/earnings.md describes how far the "
    "estimate can be wrong.",
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
    """Return the compute units per second of all miners that can have a score, None if one is unknown.

    Watched miners are returned even if they earn nothing.
    """
    seats = answers[METAGRAPH]
    scored = {node.hotkey for node in seats if not node.blacklist_reason}
    active = distinct(answers[ACTIVE_INSTANCES], lambda instance: instance.instance_id)
    rates = active_rates(active)
    disabled = _reported_rates(answers, {instance.instance_id for instance in active})
    if rates is None or None in disabled.values() or any(node.blacklist_reason is UNSET for node in seats):
        return None
    return {
        hotkey: rates.get(hotkey, 0.0) + (disabled.get(hotkey) or 0.0)
        for hotkey in scored & (rates.keys() | disabled.keys() | watched)
    }


def _reported_rates(answers: Answers, active: set[str]) -> dict[str, float | None]:
    """Return the compute units per second of each miner's disabled instances in the newest audit report.

    A disabled instance was activated and is not in ``active``. The report may be hours old, so an instance that holds
    no GPU now has ended since.
    """
    held, instances = answers[HELD_GPUS], answers[AUDIT_REPORT].instances
    activated = {gpu.instance_id for gpu in held if gpu.activated_at}
    activated |= {instance.instance_id for instance in instances if instance.activated_at}
    disabled = activated & {gpu.instance_id for gpu in held} - active
    multipliers: dict[str, list[float | None]] = defaultdict(list)
    for instance in distinct(instances, lambda instance: instance.instance_id):
        if instance.instance_id in disabled and not instance.deleted_at:
            multipliers[instance.miner_hotkey].append(instance.compute_multiplier)
    return {hotkey: total(of_miner) for hotkey, of_miner in multipliers.items()}


COLLECTOR = Collector(
    "score_heading",
    "the score share that each miner approaches",
    (Part(_FEEDS, (HEADING,), _collect),),
)
