"""The signing miner's instances: state, times, compute multiplier."""

from __future__ import annotations

from chutes_exporter.api.records import Instance
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, Total
from chutes_exporter.feeds.table import INSTANCES
from chutes_exporter.rules.instances import (
    INSTANCE_STATES,
    instance_state,
    is_public,
    purged_at,
    secured_at,
)

INSTANCE = Table[Instance](
    INSTANCES,
    key="instance_id",
    chutes_instance_info=Info(
        "The chute that the instance runs, its version, that of the chutes library, the billed "
        "user (empty for public "
        "instances), and the launch's config_id, which the label chutes/config-id of the "
        "instance's pod has too.",
        {
            "chute_id": "chute_id",
            "version": "version",
            "chutes_version": "chutes_version",
            "config_id": "config_id",
            "billed_to": "billed_to",
        },
        # An empty label for an unknown value would mean that the instance is public.
        only=lambda instance: is_public(instance) is not None,
    ),
    chutes_instance_active=Row(
        "Whether the instance serves requests (1). A disabled instance does not, but keeps "
        "earning until it is "
        "deleted.",
        "active",
    ),
    chutes_instance_verified=Row(
        "Whether the instance passed its first verification (1).", "verified"
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
    chutes_instance_secured_timestamp_seconds=Row(
        "Time from which the public instance keeps its score when it is deleted: an hour after "
        "its activation. An "
        "instance that ends earlier loses its whole score. Absent for private instances, which "
        "lose their score at "
        "any age when the miner deletes them.",
        secured_at,
    ),
    chutes_instance_purge_timestamp_seconds=Row(
        "When the service purges the instance, at the next run of its autoscaler: a starting one "
        "unless it becomes "
        "active, 3.5 hours after its creation, or 3 hours after its verification if that is "
        "earlier; a disabled one 3 "
        "hours after its verification. Absent for active instances.",
        purged_at,
    ),
    chutes_instance_last_verified_timestamp_seconds=Row(
        "When the instance was verified. The service's prober checks only instances without TEE "
        "again, and moves the "
        "time at each passed check.",
        "last_verified_at",
    ),
    chutes_instance_stop_billing_timestamp_seconds=Row(
        "When the service deletes the private instance unless it gets requests. Absent for "
        "public instances.",
        "stop_billing_at",
    ),
    chutes_instance_compute_multiplier=Row(
        "Compute units that the instance earns per second. From 2 to 8 hours after its "
        "activation, it approaches the "
        "chute's current value without the bounty.",
        "compute_multiplier",
    ),
    chutes_instance_price_usd_per_hour=Row(
        "Rate of the instance's GPUs at its launch, in US dollars per hour. It determines the "
        "compute multiplier and "
        "is not paid out.",
        "hourly_rate",
    ),
    chutes_instance_bounty=Row(
        "Whether the instance was activated with a bounty (1), which raises its multiplier "
        "for the first 8 hours.",
        "bounty",
    ),
    chutes_fleet_instances=Total(
        "Instances of the miner by state. Each instance is in exactly one state: active, starting "
        "(never active so "
        "far), disabled (the miner disabled it after it was active, and it keeps earning until it "
        "is deleted).",
        len,
        by=instance_state,
        label="state",
        among=INSTANCE_STATES,
    ),
)

COLLECTOR = Collector(
    "instances", "the miner's instances: state, times, compute multiplier", (INSTANCE,)
)
