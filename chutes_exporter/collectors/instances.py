"""The signing miner's instances: state, times, compute multiplier."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import INSTANCES
from chutes_exporter.rules.instances import INSTANCE_STATES, instance_state, is_public, purged_at, secured_at

METRICS = Metrics("GET /miner/instances/", ("hotkey", "instance_id"))

COUNT = METRICS.declare(
    "chutes_fleet_instances",
    "Instances of the miner by state. Each instance is in exactly one state: active, starting (never active so far), "
    "disabled (the miner disabled it after it was active, and it keeps earning until it is deleted).",
    "active, activated_at",
    labels=("hotkey", "state"),
)
INFO = METRICS.declare(
    "chutes_instance_info",
    "The chute that the instance runs, its version, and the billed user (empty for public instances).",
    "chute_id, version, chutes_version, billed_to",
    labels=("hotkey", "instance_id", "chute_id", "version", "chutes_version", "billed_to"),
)
ACTIVE = METRICS.declare(
    "chutes_instance_active",
    "Whether the instance serves requests (1). A disabled instance does not, but keeps earning until it is deleted.",
    "active",
)
VERIFIED = METRICS.declare(
    "chutes_instance_verified",
    "Whether the instance passed its first verification (1).",
    "verified",
)
CREATED = METRICS.declare(
    "chutes_instance_created_timestamp_seconds",
    "When the instance claimed its launch token. Once the instance becomes active, its score counts from this time.",
    "created_at",
)
ACTIVATED = METRICS.declare(
    "chutes_instance_activated_timestamp_seconds",
    "When the instance became active for the first time.",
    "activated_at",
)
SECURED = METRICS.declare(
    "chutes_instance_secured_timestamp_seconds",
    "Time from which the public instance keeps its score when it is deleted: an hour after its activation. An instance "
    "that ends earlier loses its whole score. Absent for private instances, which lose their score at any age when the "
    "miner deletes them.",
    "activated_at, billed_to",
)
PURGE = METRICS.declare(
    "chutes_instance_purge_timestamp_seconds",
    "When the service purges the instance, at the next run of its autoscaler: a starting one unless it becomes active, "
    "3.5 hours after its creation, or 3 hours after its verification if that is earlier; a disabled one 3 hours after "
    "its verification. Absent for active instances.",
    "active, activated_at, created_at, verified, last_verified_at",
)
LAST_VERIFIED = METRICS.declare(
    "chutes_instance_last_verified_timestamp_seconds",
    "When the instance was verified. The service's prober checks only instances without TEE again, and moves the time "
    "at each passed check.",
    "last_verified_at",
)
STOP_BILLING = METRICS.declare(
    "chutes_instance_stop_billing_timestamp_seconds",
    "When the service deletes the private instance unless it gets requests. Absent for public instances.",
    "stop_billing_at",
)
MULTIPLIER = METRICS.declare(
    "chutes_instance_compute_multiplier",
    "Compute units that the instance earns per second. From 2 to 8 hours after its activation, it approaches the "
    "chute's current value without the bounty.",
    "compute_multiplier",
)
PRICE = METRICS.declare(
    "chutes_instance_price_usd_per_hour",
    "Rate of the instance's GPUs at its launch, in US dollars per hour. It determines the compute multiplier and is "
    "not paid out.",
    "hourly_rate",
)
BOUNTY = METRICS.declare(
    "chutes_instance_bounty",
    "Whether the instance was activated with a bounty (1), which raises its multiplier for the first 8 hours.",
    "bounty",
)


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    hotkey = scope.hotkey
    instances = distinct(answers[INSTANCES], lambda instance: instance.instance_id, out)
    for instance in instances:
        key = instance.instance_id
        # An empty label for an unknown value would mean that the instance is public.
        out.add(
            INFO,
            None if is_public(instance) is None else 1,
            hotkey,
            key,
            instance.chute_id,
            instance.version,
            instance.chutes_version,
            instance.billed_to or None,
        )
        out.add(ACTIVE, instance.active, hotkey, key)
        out.add(VERIFIED, instance.verified, hotkey, key)
        out.add(CREATED, instance.created_at, hotkey, key)
        out.add(ACTIVATED, instance.activated_at or None, hotkey, key)
        out.add(SECURED, secured_at(instance), hotkey, key)
        out.add(PURGE, purged_at(instance), hotkey, key)
        out.add(LAST_VERIFIED, instance.last_verified_at, hotkey, key)
        out.add(STOP_BILLING, instance.stop_billing_at, hotkey, key)
        out.add(MULTIPLIER, instance.compute_multiplier, hotkey, key)
        out.add(PRICE, instance.hourly_rate, hotkey, key)
        out.add(BOUNTY, instance.bounty, hotkey, key)
    states = [instance_state(instance) for instance in instances]
    if answers.complete() and None not in states:
        for state in INSTANCE_STATES:
            out.add(COUNT, states.count(state), hotkey, state)


COLLECTOR = Collector(
    name="instances",
    summary="the miner's instances: state, times, compute multiplier",
    feeds=(INSTANCES,),
    metrics=METRICS,
    collect=_collect,
    cost="3 for each hotkey with a key, 13 for each instance",
)
