"""The signing miner's instances: versions, times, verification, price."""

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
        "The version that the instance runs, that of the chutes library, and the ids of its launch "
        "and of its deployment, which the labels chutes/config-id and chutes/deployment-id of the "
        "instance's pod have too.",
        {
            "version": "version",
            "chutes_version": "chutes_version",
            "config_id": "config_id",
            "deployment_id": "deployment_id",
        },
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
    chutes_instance_verified=Row(
        "Whether the instance passed its first verification (1).", "verified"
    ),
    chutes_instance_last_verified_timestamp_seconds=Row(
        "When the instance was verified. The service's prober checks only instances without TEE "
        "again, and moves the time at each check that they pass.",
        "last_verified_at",
    ),
    chutes_instance_price_usd_per_hour=Row(
        "Price of the instance's GPUs at its launch, in US dollars per hour. It determines the "
        "compute multiplier, and is not paid out.",
        "hourly_rate",
    ),
    chutes_instance_bounty=Row(
        "Whether the instance was activated with a bounty (1), which raises its multiplier for "
        "the first 8 hours.",
        "bounty",
    ),
    chutes_miner_disabled_compute_units_per_second=Total(
        "Compute units per second that the miner's disabled instances still earn, each until the "
        "deadline purge of chutes_instance_deadline_timestamp_seconds. "
        "chutes_miner_score_heading_ratio leaves them out.",
        total,
        of=disabled_rate,
    ),
)

COLLECTOR = Collector(
    "instances",
    "versions, times, verification and price of the miner's instances",
    (INSTANCE,),
)
