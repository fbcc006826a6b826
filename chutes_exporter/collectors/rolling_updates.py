"""Rolling updates: chutes with a new version, and the miner's instances that will be replaced."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import INSTANCES, ROLLING_UPDATES
from chutes_exporter.rules.instances import is_outdated

METRICS = Metrics("GET /chutes/rolling_updates", ("chute_id",))

STARTED = METRICS.declare(
    "chutes_rolling_update_started_timestamp_seconds",
    "When the rolling update of the chute started. Within 12 hours (2 hours for private chutes) the service replaces "
    "all active instances of older versions, one after another. They keep their score.",
    "started_at",
)
OUTDATED = METRICS.declare(
    "chutes_instance_outdated",
    "Whether a rolling update will replace the instance (1), because the instance does not run the new version.",
    "new_version; GET /miner/instances/: version, chute_id",
    labels=("hotkey", "instance_id"),
)


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    updates = distinct(answers[ROLLING_UPDATES], lambda update: update.chute_id, out)
    for update in updates:
        out.add(STARTED, update.started_at, update.chute_id)
    if not answers.complete():
        # The update of any chute may be missing.
        return
    by_chute = {update.chute_id: update for update in updates}
    for hotkey, instances in answers.by_hotkey(INSTANCES).items():
        if not scope.exports(hotkey, active=False):
            continue
        for instance in distinct(instances or [], lambda instance: instance.instance_id, out):
            out.add(OUTDATED, is_outdated(instance, by_chute), hotkey, instance.instance_id)


COLLECTOR = Collector(
    name="rolling_updates",
    summary="chutes that get a new version, and the miner's instances that will be replaced",
    feeds=(ROLLING_UPDATES,),
    metrics=METRICS,
    collect=_collect,
    cost="1 for each chute, 1 for each instance",
    default="key",
    extra=(INSTANCES,),
)
