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
from chutes_exporter.feeds.table import ACTIVE_INSTANCES, AUDIT_REPORT, HELD_GPUS, METAGRAPH
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import ActiveInstance, AuditInstance

_FEEDS = (ACTIVE_INSTANCES, METAGRAPH, AUDIT_REPORT, HELD_GPUS)
HEADING = metric_of(*_FEEDS)(
    "chutes_miner_score_heading_ratio",
    "Estimate of the miner's score share in a day if all active instances continue unchanged: its "
    "compute units per "
    "second, divided by those of all miners. Disabled instances count too. docs/earnings.md "
    "describes how far the "
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
    """Return the compute units per second of all miners that can have a score, None if one is
    unknown.

    Watched miners are returned even if they earn nothing.
    """
    seats = answers[METAGRAPH]
    scored = {node.hotkey for node in seats if not node.blacklist_reason}
    multipliers: dict[str | None, list[float | None]] = defaultdict(list)
    earning: list[ActiveInstance | AuditInstance] = [
        *answers[ACTIVE_INSTANCES],
        *_disabled_instances(answers),
    ]
    for instance in distinct(earning, lambda instance: instance.instance_id):
        multipliers[instance.miner_hotkey].append(instance.compute_multiplier)
    rates = {hotkey: total(of_miner) for hotkey, of_miner in multipliers.items()}
    if (
        None in rates
        or None in rates.values()
        or any(node.blacklist_reason is UNSET for node in seats)
    ):
        return None
    return {hotkey: rates.get(hotkey) or 0.0 for hotkey in scored & (rates.keys() | watched)}


def _disabled_instances(answers: Answers) -> list[AuditInstance]:
    """Return the instances of the newest audit report that are disabled, and maybe some that are
    active.

    A disabled instance was activated. The report may be hours old, so an instance that holds no GPU
    now has ended.
    """
    held, instances = answers[HELD_GPUS], answers[AUDIT_REPORT].instances
    activated = {gpu.instance_id for gpu in held if gpu.activated_at}
    activated |= {instance.instance_id for instance in instances if instance.activated_at}
    kept = activated & {gpu.instance_id for gpu in held}
    return [
        instance
        for instance in instances
        if instance.instance_id in kept and not instance.deleted_at
    ]


COLLECTOR = Collector(
    "score_heading",
    "the score share that each miner approaches",
    (Part(_FEEDS, (HEADING,), _collect),),
)
