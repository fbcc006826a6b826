"""The signing miner's instances: versions and times."""

from __future__ import annotations

from chutes_exporter.api.records import Instance
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, Total
from chutes_exporter.feeds.definitions import INSTANCES
from chutes_exporter.rules.instances import disabled_rate
from chutes_exporter.rules.sums import total

INSTANCE = Table[Instance](
    INSTANCES,
    key="instance_id",
    chutes_instance_info=Info(
        "The version that the instance runs, that of the chutes library, and the launch's "
        "config_id, which the label chutes/config-id of the instance's pod has too.",
        {"version": "version", "chutes_version": "chutes_version", "config_id": "config_id"},
    ),
    chutes_instance_created_timestamp_seconds=Row(
        "When the instance claimed its launch token. Once the instance becomes active, its score "
        "counts from this "
        "time.",
        "created_at",
    ),
    chutes_instance_activated_timestamp_seconds=Row(
        "When the instance became active for the first time.", "activated_at"
    ),
    chutes_miner_disabled_compute_units_per_second=Total(
        "Compute units per second that the miner's disabled instances still earn, each until the "
        "deadline purge of chutes_instance_deadline_timestamp_seconds. "
        "chutes_miner_score_heading_ratio leaves them out.",
        total,
        of=disabled_rate,
    ),
)

COLLECTOR = Collector("instances", "versions and times of the miner's instances", (INSTANCE,))
