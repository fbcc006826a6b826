"""The signing miner's instances: their lives, verification and pay."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, get_args

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.metric import Metric, Samples, info
from chutes_exporter.sources import INSTANCES

if TYPE_CHECKING:
    from chutes_exporter.api.records import Instance

_SOURCE = "GET /miner/instances/"
_INSTANCE = ("hotkey", "instance_id")

State = Literal["active", "starting", "failed"]
"""What an instance does: serves; is not active yet; is not active and its verification failed."""
STATES: tuple[State, ...] = get_args(State)

COUNT = Metric(
    "chutes_fleet_instances",
    "Instances of the miner by state, each in exactly one: active, starting (not known to be active), failed "
    "(starting, with a verification error).",
    ("hotkey", "state"),
    f"{_SOURCE}: active, verification_error",
)
INFO = info(
    "chutes_instance_info",
    "The chute that the instance runs, and where.",
    ("hotkey", "instance_id", "chute_id", "version", "chutes_version", "region", "billed_to"),
    f"{_SOURCE}: chute_id, version, chutes_version, region, billed_to",
)
ACTIVE = Metric("chutes_instance_active", "Whether the instance serves and earns (1).", _INSTANCE, f"{_SOURCE}: active")
VERIFIED = Metric(
    "chutes_instance_verified",
    "Whether the instance is verified (1). Verified but not active is still starting.",
    _INSTANCE,
    f"{_SOURCE}: verified",
)
CREATED = Metric(
    "chutes_instance_created_timestamp_seconds",
    "When the instance was created.",
    _INSTANCE,
    f"{_SOURCE}: created_at",
)
ACTIVATED = Metric(
    "chutes_instance_activated_timestamp_seconds",
    "When the instance became active.",
    _INSTANCE,
    f"{_SOURCE}: activated_at",
)
LAST_VERIFIED = Metric(
    "chutes_instance_last_verified_timestamp_seconds",
    "When the instance was last verified.",
    _INSTANCE,
    f"{_SOURCE}: last_verified_at",
)
LAST_QUERIED = Metric(
    "chutes_instance_last_queried_timestamp_seconds",
    "When the instance last got a request.",
    _INSTANCE,
    f"{_SOURCE}: last_queried_at",
)
STOP_BILLING = Metric(
    "chutes_instance_stop_billing_timestamp_seconds",
    "When billing for the instance stops.",
    _INSTANCE,
    f"{_SOURCE}: stop_billing_at",
)
FAILURES = Metric(
    "chutes_instance_consecutive_failures",
    "Verifications of the instance that failed in a row; after 3 it is removed.",
    _INSTANCE,
    f"{_SOURCE}: consecutive_failures",
)
MULTIPLIER = Metric(
    "chutes_instance_compute_multiplier",
    "Compute units that a second of the instance earns.",
    _INSTANCE,
    f"{_SOURCE}: compute_multiplier",
)
PRICE = Metric(
    "chutes_instance_price_usd_per_hour",
    "Hourly rate of the instance, in US dollars.",
    _INSTANCE,
    f"{_SOURCE}: hourly_rate",
)
BOUNTY = Metric("chutes_instance_bounty", "Whether the instance earned a bounty (1).", _INSTANCE, f"{_SOURCE}: bounty")
ERROR_INFO = info(
    "chutes_instance_verification_error_info",
    "Why the instance's verification failed; only for instances with an error.",
    ("hotkey", "instance_id", "error"),
    f"{_SOURCE}: verification_error",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Translate the miner's instances."""
    hotkey = scope.hotkey
    count: Counter[State] = Counter()
    for instance in distinct(answers[INSTANCES], lambda instance: instance.instance_id, out):
        count[_state(instance)] += 1
        key = instance.instance_id
        out.add(
            INFO,
            1,
            hotkey,
            key,
            instance.chute_id,
            instance.version,
            instance.chutes_version,
            instance.region,
            instance.billed_to,
        )
        out.add(ACTIVE, instance.active, hotkey, key)
        out.add(VERIFIED, instance.verified, hotkey, key)
        out.add(CREATED, instance.created_at, hotkey, key)
        out.add(ACTIVATED, instance.activated_at, hotkey, key)
        out.add(LAST_VERIFIED, instance.last_verified_at, hotkey, key)
        out.add(LAST_QUERIED, instance.last_queried_at, hotkey, key)
        out.add(STOP_BILLING, instance.stop_billing_at, hotkey, key)
        out.add(FAILURES, instance.consecutive_failures, hotkey, key)
        out.add(MULTIPLIER, instance.compute_multiplier, hotkey, key)
        out.add(PRICE, instance.hourly_rate, hotkey, key)
        out.add(BOUNTY, instance.bounty, hotkey, key)
        if instance.verification_error:
            out.add(ERROR_INFO, 1, hotkey, key, instance.verification_error)
    if answers.complete():
        for state in STATES:
            out.add(COUNT, count[state], hotkey, state)


def _state(instance: Instance) -> State:
    if instance.active:
        return "active"
    return "failed" if instance.verification_error else "starting"


COLLECTOR = Collector(
    name="instances",
    summary="the miner's instances: state, verification, failures, multiplier, pay",
    sources=(INSTANCES,),
    metrics=(
        COUNT,
        INFO,
        ACTIVE,
        VERIFIED,
        CREATED,
        ACTIVATED,
        LAST_VERIFIED,
        LAST_QUERIED,
        STOP_BILLING,
        FAILURES,
        MULTIPLIER,
        PRICE,
        BOUNTY,
        ERROR_INFO,
    ),
    collect=collect,
    cost=Cost(fixed=3, instance=13),
)
