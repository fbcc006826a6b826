"""Where each miner's score is heading, while the score itself averages over a day."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import UNSET

from chutes_exporter.api.meaning import active_rates, instance_state
from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct, total
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import ACTIVE_INSTANCES, INSTANCES, METAGRAPH

if TYPE_CHECKING:
    from chutes_exporter.api.records import Instance

METRICS = Metrics()
HEADING = METRICS.gauge(
    "chutes_miner_score_heading_ratio",
    "The score share that the miner approaches within a day if all active instances go on unchanged: its compute units "
    "per second now, divided by everybody's. Its own disabled instances count where they are known. An estimate; "
    "docs/earnings.md tells its error.",
    ("hotkey",),
    "GET /miner/active_instances/: compute_multiplier; GET /miner/metagraph: who is registered and not blacklisted; "
    "GET /miner/instances/: the watched miners' disabled ones",
    stability="experimental",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Divide what each miner earns per second by what all earn."""
    seats = answers[METAGRAPH]
    active = distinct(answers[ACTIVE_INSTANCES], lambda one: one.instance_id, out)
    rates = active_rates(active)
    disabled = {hotkey: _disabled_rate(instances, out) for hotkey, instances in answers.by_hotkey(INSTANCES).items()}
    if rates is None or None in disabled.values() or not answers.complete():
        return
    if any(node.blacklist_reason is UNSET for node in seats):
        return
    scored = {node.hotkey for node in seats if not node.blacklist_reason}
    earned = {
        hotkey: rates.get(hotkey, 0.0) + (disabled.get(hotkey) or 0.0)
        for hotkey in scored & (rates.keys() | disabled.keys() | scope.watched)
    }
    everybody = math.fsum(earned.values())
    for hotkey in sorted(earned):
        if everybody and scope.exports(hotkey, active=earned[hotkey] > 0):
            out.add(HEADING, earned[hotkey] / everybody, hotkey)


def _disabled_rate(instances: list[Instance] | None, out: Samples) -> float | None:
    """Return what a miner's disabled instances earn per second, None where that is unknown."""
    if instances is None:
        return None
    instances = distinct(instances, lambda one: one.instance_id, out)
    states = [instance_state(one) for one in instances]
    if None in states:
        return None
    return total([one.compute_multiplier for one, state in zip(instances, states, strict=True) if state == "disabled"])


COLLECTOR = Collector(
    name="score_heading",
    summary="the score share that each miner approaches",
    feeds=(ACTIVE_INSTANCES, METAGRAPH),
    metrics=METRICS,
    collect=collect,
    cost=Cost(miner=1),
    extra=(INSTANCES,),
)
