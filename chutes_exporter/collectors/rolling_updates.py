"""Rolling updates: chutes with a new version, and the miner's instances that will be replaced."""

from __future__ import annotations

from typing import NamedTuple

from chutes_exporter.api.records import Instance, RollingUpdate
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table
from chutes_exporter.feeds.definitions import INSTANCES, ROLLING_UPDATES
from chutes_exporter.rules.instances import is_outdated

UPDATE = Table[RollingUpdate](
    ROLLING_UPDATES,
    key="chute_id",
    of_chutes=True,
    chutes_rolling_update_started_timestamp_seconds=Row(
        "When the rolling update of the chute started. Within 12 hours (2 hours for private "
        "chutes) the service "
        "replaces all active instances of older versions, one after another. They keep their "
        "score.",
        "started_at",
    ),
)


class _Instance(NamedTuple):
    instance_id: str
    is_outdated: bool | None


def _instances(instances: list[Instance], updates: list[RollingUpdate]) -> list[_Instance]:
    """Return each instance with whether a rolling update of its chute will replace it."""
    # Of two updates of a chute, the first counts.
    by_chute = {update.chute_id: update for update in reversed(updates)}
    return [
        _Instance(instance.instance_id, is_outdated(instance, by_chute)) for instance in instances
    ]


INSTANCE = Table[_Instance](
    INSTANCES,
    ROLLING_UPDATES,
    key="instance_id",
    records=_instances,
    chutes_instance_outdated=Row(
        "Whether a rolling update will replace the instance (1), because the instance does "
        "not run the new version.",
        lambda instance: instance.is_outdated,
    ),
)

COLLECTOR = Collector(
    "rolling_updates",
    "chutes that get a new version, and the miner's instances that will be replaced",
    (UPDATE, INSTANCE),
    default="key",
)
