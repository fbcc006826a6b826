"""Instances: those of the signing miner, the active ones of all miners, updates, and cooldowns."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from chutes_exporter.api.records import ActiveInstance, Instance, RollingUpdate, ThrashCooldown
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, Total, fields_named
from chutes_exporter.feeds.definitions import (
    ACTIVE_INSTANCES,
    INSTANCES,
    ROLLING_UPDATES,
    THRASH_COOLDOWNS,
)
from chutes_exporter.rules.instances import disabled_units_per_second, is_outdated
from chutes_exporter.rules.sums import total

INSTANCE = Table[Instance](
    INSTANCES,
    key="instance_id",
    chutes_instance_info=Info(
        "The version of the instance and of the chutes library, and the ids of its launch and "
        "deployment, which its pod has in the labels chutes/config-id and chutes/deployment-id.",
        fields_named("version", "chutes_version", "config_id", "deployment_id"),
    ),
    chutes_instance_created_timestamp_seconds=Row(
        "When the instance claimed its launch token. Once the instance becomes active, its score "
        "counts from this time.",
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
        of=disabled_units_per_second,
    ),
)

INSTANCES_COLLECTOR = Collector(
    "instances", "versions, times, verification and price of the miner's instances", (INSTANCE,)
)


ACTIVE_INSTANCE = Table[ActiveInstance](
    ACTIVE_INSTANCES,
    key="instance_id",
    miner="miner_hotkey",
    chutes_platform_active_instances=Total("Active and verified instances of all miners.", len),
    chutes_platform_active_compute_multiplier=Total(
        "Sum of the compute multipliers of all miners' active instances, which is their "
        "compute units per second.",
        total,
        of="compute_multiplier",
    ),
    chutes_miner_active_instances=Total(
        "Active and verified instances of the miner. 0 is only exported for watched miners.",
        len,
        by="miner_hotkey",
        label="hotkey",
    ),
    chutes_miner_active_compute_multiplier=Total(
        "Sum of the compute multipliers of the miner's active instances, which is its compute "
        "units per second.",
        total,
        of="compute_multiplier",
        by="miner_hotkey",
        label="hotkey",
    ),
    chutes_miner_last_activation_timestamp_seconds=Total(
        "When the newest of the miner's active instances became active.",
        partial(max, default=None),
        of="activated_at",
        by="miner_hotkey",
        label="hotkey",
    ),
)

ACTIVE_INSTANCES_COLLECTOR = Collector(
    "active_instances",
    "active instances of the whole platform, by miner and by chute",
    (ACTIVE_INSTANCE,),
)


UPDATE = Table[RollingUpdate](
    ROLLING_UPDATES,
    key="chute_id",
    chutes_rolling_update_started_timestamp_seconds=Row(
        "When the rolling update of the chute started. Within 12 hours (2 hours for private "
        "chutes) the service replaces all active instances of older versions, one after another. "
        "They keep their score.",
        "started_at",
    ),
)


class _Update(NamedTuple):
    instance_id: str
    is_needed: bool | None


INSTANCE_UPDATE = Table[_Update](
    INSTANCES,
    ROLLING_UPDATES,
    key="instance_id",
    records=lambda instances, updates: [
        _Update(instance.instance_id, is_outdated(instance, updates)) for instance in instances
    ],
    chutes_instance_outdated=Row(
        "Whether a rolling update will replace the instance (1), because the instance does "
        "not run the new version.",
        lambda update: update.is_needed,
    ),
)

ROLLING_UPDATES_COLLECTOR = Collector(
    "rolling_updates",
    "chutes that get a new version, and the miner's instances that will be replaced",
    (UPDATE, INSTANCE_UPDATE),
)


COOLDOWN = Table[ThrashCooldown](
    THRASH_COOLDOWNS,
    key="chute_id",
    chutes_thrash_cooldown_expires_timestamp_seconds=Row(
        "When the cooldown of the chute ends, in which a new instance of the miner gets no boost "
        "or bounty. Services since May 2026 have none.",
        "cooldown_expires_at",
    ),
)

THRASH_COOLDOWNS_COLLECTOR = Collector(
    "thrash_cooldowns", "chutes in a cooldown, of services before May 2026", (COOLDOWN,)
)
