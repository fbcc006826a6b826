"""Rolling updates: chutes with a new version, and the miner's instances that will be replaced."""

from __future__ import annotations

from chutes_exporter.api.records import RollingUpdate
from chutes_exporter.collectors.base import Answers, Collector, Miners, Samples, distinct, metrics_of
from chutes_exporter.collectors.table import Row, Table
from chutes_exporter.feeds.table import INSTANCES, ROLLING_UPDATES
from chutes_exporter.rules.instances import is_outdated

UPDATE = Table[RollingUpdate](
    ROLLING_UPDATES,
    key="chute_id",
    chutes_rolling_update_started_timestamp_seconds=Row(
        "When the rolling update of the chute started. Within 12 hours (2 hours for private chutes) the service "
        "replaces all active instances of older versions, one after another. They keep their score.",
        "started_at",
    ),
)

INSTANCE = metrics_of(ROLLING_UPDATES, labels=("hotkey", "instance_id"), each="instance")
OUTDATED = INSTANCE.declare(
    "chutes_instance_outdated",
    "Whether a rolling update will replace the instance (1), because the instance does not run the new version.",
)


def _collect(answers: Answers, miners: Miners, out: Samples) -> None:
    UPDATE.collect(answers, miners, out)
    updates = {update.chute_id: update for update in answers[ROLLING_UPDATES][::-1]}
    for hotkey, instances in answers.by_hotkey(INSTANCES).items():
        if miners.exports(hotkey, active=False):
            for instance in distinct(instances or [], lambda instance: instance.instance_id, out):
                out.add(OUTDATED, is_outdated(instance, updates), hotkey, instance.instance_id)


COLLECTOR = Collector(
    "rolling_updates",
    "chutes that get a new version, and the miner's instances that will be replaced",
    feeds=(ROLLING_UPDATES,),
    metrics=[*UPDATE.metrics, *INSTANCE],
    collect=_collect,
    default="key",
    extra=(INSTANCES,),
)
