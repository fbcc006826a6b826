"""The life of each instance (starts, the first hour, purges, multipliers) and the private gate."""

from __future__ import annotations

from typing import Final

from grafana.parts import WATCHED, Board, Column, Query, lines, miner, or_absence, platform, rows, tile, with_chute_name
from grafana.states import FLAG, INSTANCE, ORANGE, RED
from grafana.worlds import BUSY, FADING_KEYED, KEYED, SICK, STOCKED

INSTANCES: Final = Board(
    "chutes-instances",
    "Chutes instances",
    "The life of each instance of the watched miners, from its start to its end. All of it needs the miner's key.",
)

ACTIVE: Final = miner("chutes_instance_active", "instance_id")
CREATED: Final = miner("chutes_instance_created_timestamp_seconds", "instance_id")
ACTIVATED: Final = miner("chutes_instance_activated_timestamp_seconds", "instance_id")
SECURED: Final = miner("chutes_instance_secured_timestamp_seconds", "instance_id")
PURGE: Final = miner("chutes_instance_purge_timestamp_seconds", "instance_id")
ERRORS: Final = miner("chutes_instance_verification_error_info", "instance_id")
STARTING: Final = f"{ACTIVE} == 0 unless on (hotkey, instance_id) {ACTIVATED}"
INFO: Final = "topk by (hotkey, instance_id) (1, {})".format(
    miner("chutes_instance_info", "instance_id", "chute_id", "version", "chutes_version", "billed_to")
)
STATE: Final = (
    f"(3 * ({ACTIVE} == 1))\n"
    f"or on (hotkey, instance_id) (0 * ({ACTIVE} == 0 and on (hotkey, instance_id) {ERRORS}))\n"
    f"or on (hotkey, instance_id) (1 + ({STARTING}))\n"
    f"or on (hotkey, instance_id) (2 + ({ACTIVE} == 0))"
)
"""The number of each instance's state in `grafana.states.INSTANCE`."""
TEE_INSTANCES: Final = (
    f"sum by (hotkey) ({ACTIVE} * on (hotkey, instance_id) group_left (chute_id) {INFO}"
    f" and on (chute_id) {platform('chutes_chute_info', 'chute_id', tee='true')})\n"
    f"or on (hotkey) 0 * {miner('chutes_miner_private_gate_instances')}"
)
"""Active instances of TEE chutes, by miner. One of them opens the private gate."""


def _in(state: str) -> str:
    return f"sum({miner('chutes_fleet_instances', 'state', state=state)})"


def _pace(metric: str) -> str:
    return f"max by (hotkey) (increase({metric}{{{WATCHED}}}[1h]))"


INSTANCES.row(
    "Which instances run, and which do not?",
    tile(
        "Active",
        "Instances that serve and earn. When it falls, the Fleet board shows which GPUs are free.",
        or_absence(_in("active"), "instances"),
        decimals=0,
    ),
    tile(
        "Starting",
        "Instances that hold GPUs and were never active. Minutes are normal; another tile says how long the longest "
        "has taken.",
        or_absence(_in("starting"), "instances"),
        decimals=0,
    ),
    tile(
        "Disabled",
        "Instances that were active and that their miner disabled. They serve no requests, and keep earning until they "
        "are deleted. The service purges them by the rule for starting ones.",
        or_absence(_in("disabled"), "instances"),
        decimals=0,
    ),
    tile(
        "Longest start",
        "How long the oldest instance that was never active has been starting. Beyond half an hour it is stuck: look "
        "at its log, then delete it.",
        or_absence(f"max(time() - {CREATED} and on (hotkey, instance_id) ({STARTING}))", "instances"),
        unit="s",
        thresholds=[(1800, ORANGE), (3600, RED)],
        decimals=0,
    ),
    tile(
        "Next purge",
        "Time until the service purges an instance that is still starting, for the one that is next: 3.5 hours after "
        "its creation, or 3 hours after its verification.",
        or_absence(f"min({PURGE} - time())", "instances"),
        unit="s",
        thresholds=[(float("-inf"), RED), (1800, ORANGE), (5400, "text")],
        decimals=0,
    ),
    tile(
        "In their first hour",
        "Active public instances that lose everything they scored if they end now: their activation is less than an "
        "hour ago. Private ones lose it at any age when their miner deletes them.",
        or_absence(f"count({SECURED} > time()) or on () 0 * count({CREATED})", "instances"),
        decimals=0,
    ),
    tile(
        "Mean multiplier",
        "Compute units that a second of an active instance earns, on average. From 2 to 8 hours after its activation "
        "an instance approaches the chute's present value without the bounty, so it falls after a bounty.",
        or_absence(
            f"avg({miner('chutes_instance_compute_multiplier', 'instance_id')}"
            f" and on (hotkey, instance_id) {ACTIVE} == 1)",
            "instances",
        ),
        decimals=2,
    ),
    tile(
        "GPU rates, an hour",
        "The sum of the hourly rates of the active instances' GPUs, in US dollars, as they were at the launch. The "
        "multiplier follows from them; nobody is paid by them.",
        or_absence(
            f"sum({miner('chutes_instance_price_usd_per_hour', 'instance_id')}"
            f" and on (hotkey, instance_id) {ACTIVE} == 1)",
            "instances",
        ),
        unit="currencyUSD",
        decimals=2,
    ),
)

INSTANCES.row(
    "Every instance, those that do not earn first",
    rows(
        "Instances",
        "Starting ones first. A public one is secured an hour after its activation: deleted earlier, it loses all that "
        "it scored. The last check is the prober's. A private one ends when its time is over and no requests come.",
        [
            Query(f"({STATE}) * on (hotkey, instance_id) group_left (chute_id) {INFO}", data=STOCKED),
            Query(
                with_chute_name(INFO),
                data=STOCKED,
            ),
            Query(f"time() - {CREATED}", data=STOCKED),
            Query(
                f"{ACTIVATED} - on (hotkey, instance_id) {CREATED}",
                data=STOCKED,
            ),
            Query(f"clamp_min({SECURED} - time(), 0)", data=STOCKED),
            Query(miner("chutes_instance_compute_multiplier", "instance_id"), data=STOCKED),
            Query(miner("chutes_instance_price_usd_per_hour", "instance_id"), data=STOCKED),
            Query(miner("chutes_instance_bounty", "instance_id"), data=STOCKED),
            Query(miner("chutes_instance_verified", "instance_id"), data=STOCKED),
            Query(f"time() - {miner('chutes_instance_last_verified_timestamp_seconds', 'instance_id')}", data=STOCKED),
            Query(f"{PURGE} - time()", data=SICK),
            Query(f"{miner('chutes_instance_stop_billing_timestamp_seconds', 'instance_id')} - time()", data=STOCKED),
        ],
        [
            Column("A", "State", states=INSTANCE, width=80),
            Column("name", "Chute"),
            Column("C", "Age", "s", width=85),
            Column("D", "Start took", "s", width=90),
            Column("E", "Secured in", "s", width=95),
            Column("K", "Purged in", "s", width=95),
            Column("F", "Multiplier", "none", width=90),
            Column("G", "GPU rate", "currencyUSD", width=85),
            Column("H", "Bounty", states=FLAG, width=75),
            Column("I", "Verified", states=FLAG, width=80),
            Column("J", "Last check", "s", width=100),
            Column("L", "Ends in", "s", width=90),
            Column("instance_id", "Id", width=300),
        ],
        empty="No instance known: there is none, the exporter has no key, or the API has not answered (see the tiles)",
        sort=("State", False),
        size=(24, 13),
    ),
)

INSTANCES.row(
    "How does it move?",
    lines(
        "Instances by state",
        "Every instance in exactly one state. A growing band of starting ones is a chute that does not come up.",
        [
            Query(
                f"sum by (state) ({miner('chutes_fleet_instances', 'state')})",
                "{{state}}",
                KEYED,
            )
        ],
        unit="none",
        states=INSTANCE,
        stacked=True,
        empty="Nothing known: the exporter has no key, or the API has not answered",
    ),
    lines(
        "Starts and ends, past hour",
        "Instances that began and ended while the exporter watched, in the hour before. Many of both cost score: a "
        "public instance that ends within its first hour takes back everything that it scored.",
        [
            Query(_pace("chutes_observed_instances_started_total"), "started by {{hotkey}}", FADING_KEYED),
            Query(_pace("chutes_observed_instances_stopped_total"), "ended of {{hotkey}}", FADING_KEYED),
        ],
        unit="none",
        empty="Nothing observed: the exporter has no key, or Prometheus has not scraped it twice",
    ),
    rows(
        "Private gate",
        "Launching private chutes needs 4 active public instances with 12 GPUs, an activation 3 days ago (of one that "
        "ended, too), and 16 active GPUs on average over 7 days; or one active TEE instance instead of all that.",
        [
            Query(miner("chutes_miner_private_gate_instances"), data=KEYED),
            Query(miner("chutes_miner_private_gate_gpus"), data=KEYED),
            Query(
                f"time() - {miner('chutes_miner_private_gate_oldest_activation_timestamp_seconds')}",
                data=STOCKED,
            ),
            Query(miner("chutes_miner_average_active_gpus"), data=BUSY),
            Query(TEE_INSTANCES, data=KEYED),
        ],
        [
            Column("hotkey", "Miner"),
            Column("A", "Public instances", "none", width=120),
            Column("B", "Their GPUs", "none", width=90),
            Column("C", "Oldest activation", "s", width=120),
            Column("D", "Average GPUs", "none", width=105),
            Column("E", "TEE", "none", width=60),
        ],
        empty="Nothing known: the exporter has no key, or the API has not answered",
        sort=("Miner", False),
        size=(12, 8),
    ),
    lines(
        "Time to become active",
        "How long the instances that are active now took to start: the mean and the longest. When it grows, look at "
        "image pulls, disks and the network.",
        [
            Query(
                f"{calc}({ACTIVATED} - on (hotkey, instance_id) {CREATED} and on (hotkey, instance_id) {ACTIVE} == 1)",
                legend,
                STOCKED,
            )
            for calc, legend in (("avg", "mean"), ("max", "longest"))
        ],
        unit="s",
        empty="No active instance known",
    ),
    lines(
        "Units a second",
        "The sum of the compute multipliers of the active instances: compute units that a second earns, as the list of "
        "all miners has them. Disabled instances keep earning and are not in it.",
        [
            Query(miner("chutes_miner_active_compute_multiplier"), "{{hotkey}}", KEYED),
        ],
        unit="none",
        empty="Nothing known: the exporter has no key, or the API has not answered",
    ),
    lines(
        "Active instances by the platform's count",
        "Active instances in the list of all miners', which has only verified ones, and in the miner's own list. They "
        "are asked at different times, so they differ for some minutes after a change.",
        [
            Query(miner("chutes_miner_active_instances"), "{{hotkey}}", KEYED),
            Query(
                f"sum by (hotkey) ({miner('chutes_fleet_instances', 'state', state='active')})",
                "own list of {{hotkey}}",
                KEYED,
            ),
        ],
        unit="none",
        empty="Nothing known: the exporter has no key, or the API has not answered",
    ),
)
