"""Demand and compute units of every chute, and the miner's free GPUs: where to deploy next."""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    Board,
    Column,
    Query,
    lines,
    miner,
    or_absence,
    platform,
    rows,
    tile,
    top_ten_at_end,
    with_chute_name,
)
from grafana.states import IMAGE, ORANGE
from grafana.worlds import KEYED, LIVE, SICK, STOCKED

MARKET: Final = Board(
    "chutes-market",
    "Chutes market",
    "Pay and demand of every chute, beside the watched miners' idle GPUs: where to deploy next. Names, pay and "
    "bounties need a miner's key; demand does not.",
)

PAY: Final = platform("chutes_chute_effective_compute_multiplier", "chute_id")
GPUS: Final = platform("chutes_chute_gpus", "chute_id")
PAY_OF_A_GPU: Final = f"{PAY} / on (chute_id) ({GPUS} > 0)"
UTILIZATION: Final = platform("chutes_chute_utilization_ratio", "chute_id")
SUPPORTED: Final = platform("chutes_chute_supported_gpu_info", "chute_id", "gpu")
IDLE: Final = f"max by (gpu) (sum by (hotkey, gpu) ({miner('chutes_fleet_gpus', 'gpu', 'state', state='idle')}))"
"""Idle GPUs of each model, of the watched miner with the most. An instance runs on the GPUs of one miner."""
OPEN: Final = platform("chutes_chute_info", "chute_id", disabled="!true")
FITTING: Final = (
    f"({SUPPORTED} * on (chute_id) group_left () ({PAY_OF_A_GPU})\n"
    f"and on (chute_id) {OPEN}\n"
    f"and on (chute_id, gpu) ({SUPPORTED} * on (chute_id) group_left () {GPUS} <= on (gpu) group_left () {IDLE}))"
)
"""Compute units per GPU-second, for each chute and model with enough idle GPUs for an instance."""

MARKET.row(
    "Which chutes are in demand?",
    tile(
        "Over capacity",
        "Chutes with more demand than capacity: their average utilisation of the past hour is above 1. Whether the "
        "service admits another instance depends on its target for the chute.",
        or_absence(f"count({UTILIZATION} > 1) or on () 0 * count({UTILIZATION})", "metrics"),
        decimals=0,
    ),
    tile(
        "Bounties on offer",
        "Chutes with a bounty. It raises the multiplier of the first instance that becomes active, by 1.1 when new to "
        "1.5 after 3 hours, and is gone 8 hours after the activation.",
        or_absence(
            f"count({platform('chutes_chute_bounty_age_seconds', 'chute_id')})"
            f" or on () 0 * count({platform('chutes_chute_info', 'chute_id')})",
            "chutes",
        ),
        decimals=0,
    ),
    tile(
        "My idle GPUs",
        "Verified GPUs of the watched miners that are in no instance. The first table says what pays best for each "
        "model.",
        or_absence(f"sum({miner('chutes_fleet_gpus', 'gpu', state='idle')})", "fleet"),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
    tile(
        "Jobs waiting",
        "Jobs of the platform that no miner has claimed. They pay by their multiplier: see the table of jobs.",
        or_absence(platform("chutes_jobs_waiting"), "jobs"),
        decimals=0,
    ),
    tile(
        "Longest job wait",
        "How long the oldest unclaimed job has waited. Nobody may have the GPUs that it asks for, or launches failed.",
        or_absence(f"time() - {platform('chutes_jobs_oldest_created_timestamp_seconds')}", "jobs"),
        unit="s",
        decimals=0,
    ),
    tile(
        "Tried and waiting",
        "Waiting jobs for which a watched miner asked for a launch token. The launch may have failed: the miner's log "
        "names the job.",
        or_absence(f"sum({miner('chutes_jobs_tried')})", "jobs"),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
    tile(
        "Jobs stuck",
        "Unfinished jobs that a watched miner claimed and whose instance is gone. Nobody else can claim them until "
        "chutes-exporter release-job releases them.",
        or_absence(f"sum({miner('chutes_jobs_stuck')})", "jobs"),
        thresholds=[(1, ORANGE)],
        decimals=0,
    ),
    tile(
        "Images that failed",
        "Images of the platform whose build failed. A chute that waits for one cannot start anywhere: it is not the "
        "miner's fault.",
        or_absence(platform("chutes_images", status="error"), "images"),
        decimals=0,
    ),
)

MARKET.row(
    "Where to deploy next",
    rows(
        "Best paid for what is idle",
        "For each model of which the miner has enough idle GPUs, the five chutes that pay most for a GPU now, counted "
        "for the cheapest GPU that the chute allows. The Fleet board says whether the GPUs are in one server.",
        [
            Query(
                f"topk by (gpu) (5, {with_chute_name(FITTING)})",
                data=SICK,
            ),
        ],
        [
            Column("gpu", "Model", width=120),
            Column("name", "Chute"),
            Column("Value", "Units a second and GPU", "none", width=190),
        ],
        empty="Nothing is idle, or the models that chutes take are not asked for: see --collector.chute_gpus",
        sort=("Units a second and GPU", True),
        size=(12, 10),
    ),
    rows(
        "Bounties and boosts",
        "Factors of a chute's multiplier now, besides what its GPUs earn. A bounty goes to the first instance that "
        "becomes active; an instance approaches the present factors, without the bounty, 2 to 8 hours after.",
        [
            Query(
                with_chute_name(
                    platform("chutes_chute_compute_multiplier_factor", "chute_id", "factor", factor="!base") + " != 1"
                ),
                data=KEYED,
            ),
        ],
        [
            Column("name", "Chute"),
            Column("factor", "Factor", width=160),
            Column("Value", "Times", "none", width=90),
        ],
        empty="Nothing is boosted, or the exporter has no key",
        sort=("Times", True),
        size=(12, 10),
    ),
    rows(
        "Every chute",
        "Pay on the cheapest GPU that a chute allows, demand, supply, and users' price, the best paid for a GPU first. "
        "High utilisation and rate limits mean unmet demand. My idle needs --collector.chute_gpus.",
        [
            Query(with_chute_name(PAY_OF_A_GPU), data=KEYED),
            Query(platform("chutes_chute_bounty_age_seconds", "chute_id"), data=KEYED),
            Query(UTILIZATION, data=LIVE),
            Query(platform("chutes_chute_window_rate_limits", "chute_id", window="1h"), data=LIVE),
            Query(platform("chutes_chute_window_invocations", "chute_id", window="1h"), data=LIVE),
            Query(platform("chutes_chute_instances", "chute_id"), data=LIVE),
            Query(platform("chutes_chute_active_instances", "chute_id"), data=KEYED),
            Query(platform("chutes_chute_max_instances", "chute_id"), data=KEYED),
            Query(GPUS, data=KEYED),
            Query(platform("chutes_chute_min_vram_bytes", "chute_id"), data=KEYED),
            Query(platform("chutes_chute_window_usage_usd", "chute_id", window="1h"), data=LIVE),
            Query(f"3600 * {platform('chutes_chute_price_usd_per_second', 'chute_id')}", data=LIVE),
            Query(
                f"sum by (chute_id) ({miner('chutes_instance_active', 'instance_id')} * on (hotkey, instance_id)"
                " group_left (chute_id) topk by (hotkey, instance_id) (1, "
                f"{miner('chutes_instance_info', 'instance_id', 'chute_id')}))",
                data=STOCKED,
            ),
            Query(PAY, data=KEYED),
            Query(f"sum by (chute_id) ({SUPPORTED} * on (gpu) group_left () {IDLE})", data=STOCKED),
        ],
        [
            Column("name", "Chute"),
            Column("A", "Units a GPU", "none", width=100),
            Column("N", "Multiplier", "none", width=85),
            Column("B", "Bounty age", "s", width=90),
            Column("O", "My idle", "none", width=70),
            Column("C", "Utilisation", "percentunit", width=90),
            Column("D", "Rate limits, 1 h", "short", width=100),
            Column("E", "Calls, 1 h", "short", width=90),
            Column("M", "My active", "none", width=85),
            Column("G", "Active", "none", width=70),
            Column("F", "Instances", "none", width=85),
            Column("H", "Most", "none", width=65),
            Column("I", "GPUs", "none", width=65),
            Column("J", "VRAM", "decbytes", width=80),
            Column("K", "Usage, 1 h", "currencyUSD", width=90),
            Column("L", "Price, 1 h", "currencyUSD", width=90),
            Column("chute_id", "Id", width=80),
        ],
        empty="No chute known: the API has not answered, or the exporter is down",
        sort=("Units a GPU", True),
        size=(24, 14),
    ),
    rows(
        "Terms of chutes",
        "The terms of each chute: how it scales, how many requests it takes at once, when an idle private instance "
        "shuts down, and its own multiplier before boosts. The discount is the users'.",
        [
            Query(
                "topk by (chute_id) (1, "
                + platform(
                    "chutes_chute_info", "chute_id", "name", "template", "public", "tee", "preemptible", "disabled"
                )
                + ")",
                data=KEYED,
            ),
            Query(platform("chutes_chute_compute_multiplier", "chute_id"), data=LIVE),
            Query(platform("chutes_chute_concurrency", "chute_id"), data=KEYED),
            Query(platform("chutes_chute_scaling_threshold_ratio", "chute_id"), data=KEYED),
            Query(platform("chutes_chute_shutdown_after_seconds", "chute_id"), data=KEYED),
            Query(platform("chutes_chute_discount_ratio", "chute_id"), data=KEYED),
            Query(platform("chutes_chute_window_compute_seconds", "chute_id", window="1h"), data=LIVE),
        ],
        [
            Column("name", "Chute"),
            Column("template", "Template", width=120),
            Column("tee", "TEE", width=70),
            Column("public", "Public", width=80),
            Column("preemptible", "Preemptible", width=105),
            Column("disabled", "Disabled", width=90),
            Column("B", "Own multiplier", "none", width=120),
            Column("C", "At once", "none", width=80),
            Column("D", "Scales above", "percentunit", width=110),
            Column("E", "Shuts down after", "s", width=130),
            Column("F", "Discount", "percentunit", width=85),
            Column("G", "Computed, 1 h", "s", width=115),
        ],
        empty="No chute known: the API has not answered, or the exporter is down",
        sort=("Chute", False),
        size=(24, 10),
    ),
)

MARKET.row(
    "How does it move?",
    lines(
        "Utilisation of the most wanted",
        "The ten chutes whose capacity is used most. Above 100 % there is more demand than capacity.",
        [Query(with_chute_name(top_ten_at_end(UTILIZATION, "chute_id")), "{{name}}")],
        unit="percentunit",
    ),
    lines(
        "Compute units per GPU-second, top 10",
        "Compute units a second and GPU of the ten best paid chutes, on the cheapest GPU that each allows. A peak is "
        "urgency or a bounty.",
        [
            Query(
                with_chute_name(top_ten_at_end(f"{PAY_OF_A_GPU} and on (chute_id) {OPEN}", "chute_id")),
                "{{name}}",
                KEYED,
            )
        ],
        unit="none",
        empty="Nothing known: the exporter has no key, or the API has not answered",
    ),
    lines(
        "Demand of the past hour",
        "Requests to all chutes that were completed, and those that were refused because all instances were busy. "
        "Growing refusals are unmet demand.",
        [
            Query(f"sum({platform(f'chutes_chute_window_{what}', 'chute_id', window='1h')})", legend)
            for what, legend in (("invocations", "calls"), ("rate_limits", "rate limits"))
        ],
        unit="short",
    ),
    lines(
        "Users' spending in the past hour",
        "What users paid for all chutes in the past hour, in US dollars. Miners do not receive it.",
        [Query(f"sum({platform('chutes_chute_window_usage_usd', 'chute_id', window='1h')})", "all chutes")],
        unit="currencyUSD",
    ),
    lines(
        "Jobs waiting, by method",
        "Jobs that no miner has claimed. When they pile up, nobody has the GPUs that they ask for, or launches fail.",
        [Query(platform("chutes_jobs_available", "method"), "{{method}}", KEYED)],
        unit="none",
        stacked=True,
        empty="No job waits, or the exporter has no key",
    ),
    lines(
        "Images by status",
        "Images of the platform by build status. Many that wait or fail explain chutes that do not come up.",
        [Query(platform("chutes_images", "status"), "{{status}}", KEYED - SICK)],
        unit="none",
        states=IMAGE,
        stacked=True,
        empty="Nothing known: the exporter has no key, or the API has not answered",
    ),
)

MARKET.row(
    "Jobs",
    rows(
        "Jobs waiting",
        "Each job that no miner has claimed, the best paid first. The service gives launch tokens for a job to 15 "
        "miners at most.",
        [
            Query(
                with_chute_name(
                    f"topk by (job_id) (1, {platform('chutes_job_info', 'job_id', 'chute_id', 'method', 'status')})"
                ),
                data=KEYED,
            ),
            Query(f"time() - {platform('chutes_job_created_timestamp_seconds', 'job_id')}", data=KEYED),
            Query(platform("chutes_job_compute_multiplier", "job_id"), data=KEYED),
            Query(platform("chutes_job_tries", "job_id"), data=KEYED),
        ],
        [
            Column("name", "Chute"),
            Column("method", "Method", width=140),
            Column("status", "Status", width=120),
            Column("B", "Waits", "s", width=110),
            Column("C", "Multiplier", "none", width=100),
            Column("D", "Tried by", "none", width=90),
            Column("job_id", "Id", width=300),
        ],
        empty="No job waits, or jobs are not asked for one by one: see --collector.job_details",
        sort=("Multiplier", True),
        size=(24, 8),
    ),
)
