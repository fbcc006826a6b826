"""The life of each instance: stuck starts, failures, verification errors, multipliers, cooldowns."""

from __future__ import annotations

from typing import Final

from grafana.parts import WATCHED, Board, Column, Query, lines, mine, named, rows, tile, told
from grafana.states import FLAG, INSTANCE, ORANGE, RED
from grafana.worlds import FADING_KEYED, KEYED, SICK, STOCKED

INSTANCES: Final = Board(
    "chutes-instances",
    "Chutes instances",
    "The life of each instance of the watched miners, from its start to its end. All of it needs the miner's key.",
)

ACTIVE: Final = mine("chutes_instance_active", "instance_id")
CREATED: Final = mine("chutes_instance_created_timestamp_seconds", "instance_id")
FAILURES: Final = mine("chutes_instance_consecutive_failures", "instance_id")
ERRORS: Final = mine("chutes_instance_verification_error_info", "instance_id")
INFO: Final = "topk by (hotkey, instance_id) (1, {})".format(
    mine("chutes_instance_info", "instance_id", "chute_id", "version", "chutes_version", "region", "billed_to")
)
STATE: Final = (
    f"(1 + ({ACTIVE} == 1))\n"
    f"or on (hotkey, instance_id) (0 * ({ACTIVE} == 0 and on (hotkey, instance_id) {ERRORS}))\n"
    f"or on (hotkey, instance_id) (1 + ({ACTIVE} == 0))"
)
"""A number for each instance, as the table of states has it: failed, starting, active."""


def _in(state: str) -> str:
    return f"sum({mine('chutes_fleet_instances', 'state', state=state)})"


def _pace(metric: str) -> str:
    return f"max by (hotkey) (increase({metric}{{{WATCHED}}}[1h]))"


INSTANCES.row(
    "What runs, and what does not?",
    tile(
        "Active",
        "Instances that serve and earn. When it falls, the table below shows what ended or starts, and the Fleet board "
        "which GPUs are free.",
        told(_in("active"), "instances"),
        decimals=0,
    ),
    tile(
        "Starting",
        "Instances that hold GPUs and are not active yet. Minutes are normal; the tile beside it says how long the "
        "longest has taken.",
        told(_in("starting"), "instances"),
        decimals=0,
    ),
    tile(
        "Failed",
        "Instances whose verification failed before they became active. Their errors are below; delete what will not "
        "come up, so that its GPUs can earn.",
        told(_in("failed"), "instances"),
        thresholds=[(1, RED)],
        decimals=0,
    ),
    tile(
        "Longest start",
        "How long the oldest instance that is not active has been starting. Beyond half an hour it is stuck: look at "
        "its log, then delete it.",
        told(f"max(time() - {CREATED} and on (hotkey, instance_id) {ACTIVE} == 0)", "instances"),
        unit="s",
        thresholds=[(1800, ORANGE), (3600, RED)],
        decimals=0,
    ),
    tile(
        "About to be removed",
        "Instances that failed two verifications in a row; after the third they are removed. Look at their errors and "
        "at the machine's network at once.",
        told(f"count({FAILURES} >= 2) or on () 0 * count({FAILURES})", "instances"),
        thresholds=[(1, RED)],
        decimals=0,
    ),
    tile(
        "Cooldowns",
        "Chutes that may not be deployed for now, because an instance was deleted early. The table below says until "
        "when; avoid deleting what has just started.",
        told(f"sum({mine('chutes_miner_thrash_cooldowns')})", "thrash_cooldowns"),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
    tile(
        "Mean multiplier",
        "Compute units that a second of an active instance earns, on average. When it falls, better paid chutes ended: "
        "the Market board says what pays now.",
        told(
            f"avg({mine('chutes_instance_compute_multiplier', 'instance_id')}"
            f" and on (hotkey, instance_id) {ACTIVE} == 1)",
            "instances",
        ),
        decimals=2,
    ),
    tile(
        "Price of all, an hour",
        "The sum of the hourly rates of the active instances, in US dollars: what users pay for them, not what the "
        "miner gets.",
        told(
            f"sum({mine('chutes_instance_price_usd_per_hour', 'instance_id')}"
            f" and on (hotkey, instance_id) {ACTIVE} == 1)",
            "instances",
        ),
        unit="currencyUSD",
        decimals=2,
    ),
)

INSTANCES.row(
    "Every instance, what is in trouble first",
    rows(
        "Instances",
        "Failed ones first, then those that start. Two failures in a row are the last warning. An active one that was "
        "long not queried earns by the second all the same.",
        [
            Query(f"({STATE}) * on (hotkey, instance_id) group_left (chute_id) {INFO}", data=STOCKED),
            Query(
                named(INFO),
                data=STOCKED,
            ),
            Query(f"time() - {CREATED}", data=STOCKED),
            Query(
                f"{mine('chutes_instance_activated_timestamp_seconds', 'instance_id')}"
                f" - on (hotkey, instance_id) {CREATED}",
                data=STOCKED,
            ),
            Query(FAILURES, data=STOCKED),
            Query(mine("chutes_instance_compute_multiplier", "instance_id"), data=STOCKED),
            Query(mine("chutes_instance_price_usd_per_hour", "instance_id"), data=STOCKED),
            Query(mine("chutes_instance_bounty", "instance_id"), data=STOCKED),
            Query(mine("chutes_instance_verified", "instance_id"), data=STOCKED),
            Query(f"time() - {mine('chutes_instance_last_verified_timestamp_seconds', 'instance_id')}", data=STOCKED),
            Query(f"time() - {mine('chutes_instance_last_queried_timestamp_seconds', 'instance_id')}", data=STOCKED),
            Query(f"{mine('chutes_instance_stop_billing_timestamp_seconds', 'instance_id')} - time()", data=STOCKED),
        ],
        [
            Column("A", "State", states=INSTANCE, width=80),
            Column("name", "Chute"),
            Column("C", "Age", "s", width=85),
            Column("D", "Start took", "s", width=90),
            Column("E", "Failures", "none", width=80, thresholds=[(1, ORANGE), (2, RED)]),
            Column("F", "Multiplier", "none", width=90),
            Column("G", "An hour", "currencyUSD", width=80),
            Column("H", "Bounty", states=FLAG, width=75),
            Column("I", "Verified", states=FLAG, width=80),
            Column("J", "Last verified", "s", width=105),
            Column("K", "Last queried", "s", width=105),
            Column("L", "Billing stops in", "s", width=115),
            Column("region", "Region", width=80),
            Column("instance_id", "Id", width=300),
        ],
        empty="No instance known: there is none, the exporter has no key, or the API has not answered (see the tiles)",
        sort=("State", False),
        size=(24, 13),
    ),
    rows(
        "Verification errors",
        "Why instances failed, as the API has it. The same error on every server is the chute's; on one server it is "
        "the machine's.",
        [
            Query(
                named(
                    f"{mine('chutes_instance_verification_error_info', 'instance_id', 'error')}"
                    f" * on (hotkey, instance_id) group_left (chute_id) {INFO}"
                ),
                data=SICK,
            )
        ],
        [
            Column("error", "Error"),
            Column("name", "Chute", width=240),
            Column("instance_id", "Id", width=300),
        ],
        empty="No instance has an error, if the tiles above have numbers",
        sort=("Chute", False),
        size=(14, 8),
    ),
    rows(
        "Cooldowns",
        "Chutes that may not be deployed before the time is over.",
        [
            Query(named(f"{mine('chutes_thrash_cooldown_expires_timestamp_seconds', 'chute_id')} - time()"), data=SICK),
            Query(f"time() - {mine('chutes_thrash_cooldown_deleted_timestamp_seconds', 'chute_id')}", data=SICK),
        ],
        [
            Column("name", "Chute"),
            Column("A", "Over in", "s", width=110),
            Column("B", "Deleted", "s", width=110),
        ],
        empty="No cooldown, if the tile above has a number",
        sort=("Over in", True),
        size=(10, 8),
    ),
)

INSTANCES.row(
    "How does it move?",
    lines(
        "Instances by state",
        "Every instance in exactly one state. A growing band of starting ones is a chute that does not come up.",
        [
            Query(
                f"sum by (state) ({mine('chutes_fleet_instances', 'state')})",
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
        "Instances that began and ended while the exporter watched, in the hour before. Many of both is thrashing: "
        "it costs start times, and brings cooldowns.",
        [
            Query(_pace("chutes_observed_instances_started_total"), "started by {{hotkey}}", FADING_KEYED),
            Query(_pace("chutes_observed_instances_stopped_total"), "ended of {{hotkey}}", FADING_KEYED),
        ],
        unit="none",
        empty="Nothing observed: the exporter has no key, or Prometheus has not scraped it twice",
    ),
    lines(
        "Verification failures of instances, past hour",
        "Verifications that failed while the exporter watched, in the hour before. A rhythm is a machine or a "
        "network in trouble.",
        [Query(_pace("chutes_observed_instance_verification_failures_total"), "{{hotkey}}", FADING_KEYED)],
        unit="none",
        empty="Nothing observed: the exporter has no key, or Prometheus has not scraped it twice",
    ),
    lines(
        "Time to become active",
        "How long the instances that are active now took to start: the mean and the longest. When it grows, look at "
        "image pulls, disks and the network.",
        [
            Query(
                f"{calc}({mine('chutes_instance_activated_timestamp_seconds', 'instance_id')}"
                f" - on (hotkey, instance_id) {CREATED})",
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
        "The sum of the compute multipliers of the active instances, which is what a second earns, as the platform "
        "counts it.",
        [
            Query(mine("chutes_miner_active_compute_multiplier"), "{{hotkey}}", KEYED),
        ],
        unit="none",
        empty="Nothing known: the exporter has no key, or the API has not answered",
    ),
    lines(
        "Active instances by the platform's count",
        "Active instances as the list of all miners' has them. It differs from the miner's own list for moments only; "
        "when it stays lower, validators do not see some.",
        [
            Query(mine("chutes_miner_active_instances"), "{{hotkey}}", KEYED),
            Query(
                f"sum by (hotkey) ({mine('chutes_fleet_instances', 'state', state='active')})",
                "own list of {{hotkey}}",
                KEYED,
            ),
        ],
        unit="none",
        empty="Nothing known: the exporter has no key, or the API has not answered",
    ),
)
