"""Where to deploy next: which chutes can run on idle GPUs now, what they pay, and how high the demand is."""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    MINER_COLUMNS,
    Board,
    Column,
    Query,
    board_link,
    graph,
    of_exporters,
    of_miners,
    or_load_rules,
    recorded,
    select,
    short,
    stat_panel,
    table_panel,
    with_chute_name,
)
from grafana.states import IMAGE, ORANGE
from grafana.worlds import KEYED, SICK, STOCKED

ON_CHUTES: Final = {"chute_id": "~$chute"}
NO_KEY: Final = "Nothing known. It needs the miner's key; the Exporter board shows what is missing."
LAUNCH: Final = of_miners("chutes_launch_units_per_gpu_second", "gpu", "chute_id", **ON_CHUTES)
REFUSED: Final = of_miners("chutes_launch_refused_chutes", "gpu", "reason")
PAY: Final = "chute_id:chutes_chute_units_per_gpu_second:max"
CHUTE: Final = (
    Column("chute_id", ""),
    Column("name", "Chute", width=250, link=board_link("chutes-instances", chute="${__data.fields.chute_id}")),
)
"""A chute, whose instances of the chosen miners are a click away."""
NONE_RUNNABLE: Final = "No chute can run on idle GPUs now, if the number of idle GPUs above is known"


def _chute(metric: str, **where: str) -> str:
    return of_exporters(metric, "chute_id", **where, **ON_CHUTES)


def _launch(query: str) -> str:
    """Return a value of the chutes that the miners can launch now, for each of the idle GPU models."""
    return f"0 * {LAUNCH} + on (chute_id) group_left () ({query})"


MARKET: Final = Board(
    "chutes-market",
    "Chutes market",
    "Where to deploy next: which chutes can run on idle GPUs now, what they pay, and how high the demand is.",
    variables=("cluster", "job", "instance", "hotkey", "chute"),
)

MARKET.show(
    stat_panel(
        "Idle GPUs",
        "Verified GPUs of the chosen miners in no instance. The table below ranks the chutes that they can run now.",
        [Query(or_load_rules(f"sum({recorded('hotkey_state:chutes_fleet_gpus:sum', state='idle')})"), "now", STOCKED)],
        decimals=0,
        thresholds=[(1, ORANGE)],
        empty="no GPUs known",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Can grow",
        "Chutes that have fewer active instances than the autoscaler wants.",
        [
            Query(
                f"sum({_chute('chutes_chute_scale_allowance')} > bool 0)",
                "chutes",
                step="15m",
            )
        ],
        decimals=0,
        empty="no data",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Bounties",
        "Chutes with a bounty. It multiplies what the first instance that becomes active earns, by 1.1 when new and "
        "up to 1.5 after 3 hours.",
        [Query(of_exporters("chutes_feed_records", feed="bounties"), "open")],
        decimals=0,
        empty="no data",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Autoscaler",
        "Time since the service's autoscaler ran. If it stops, targets, allowances and utilisation on this board are "
        "old.",
        [Query(f"time() - {of_exporters('chutes_autoscaler_timestamp_seconds')}", "last run")],
        unit="s",
        decimals=1,
        thresholds=[(3600, ORANGE)],
        empty="no data",
        trend=True,
        size=(5, 4),
    ),
    stat_panel(
        "Jobs",
        "Jobs of the platform that no miner has claimed. A job with 15 tries still waits, but nobody can claim it.",
        [Query(of_exporters("chutes_jobs_waiting"), "waiting", KEYED)],
        decimals=0,
        empty="needs a key",
        trend=True,
        size=(4, 4),
    ),
    table_panel(
        "Chutes for idle GPUs",
        "Chutes that each idle GPU model can launch now, by compute units per GPU-second; chutes-exporter advise "
        'prints the same. The row "Refused chutes" counts the others by the reason.',
        [
            Query(short(with_chute_name(LAUNCH)), data=SICK),
            Query(_launch(_chute("chutes_chute_recent_utilization_ratio", window="15m")), data=SICK),
            Query(_launch(_chute("chutes_chute_rate_limited_ratio", window="15m")), data=SICK),
            Query(_launch(_chute("chutes_chute_scale_allowance")), data=SICK),
            Query(_launch(_chute("chutes_chute_starting_instances")), data=SICK),
            Query(_launch(_chute("chutes_bounty_boost_ratio")), data=SICK),
            Query(
                _launch(f"{_chute('chutes_bounty_expires_timestamp_seconds')} - time()"),
                data=SICK,
            ),
            Query(_launch(_chute("chutes_chute_gpus")), data=SICK),
        ],
        [
            *CHUTE,
            Column("gpu", "Idle model", width=100),
            Column("A", "Units per GPU-second", "none", 2, width=195),
            Column("H", "GPUs", "none", 0, width=65),
            Column("D", "Allowance", "none", 0, width=95),
            Column("E", "Starting", "none", 0, width=80),
            Column("B", "Utilisation", "percentunit", 0, width=95),
            Column("C", "Rate limited", "percentunit", 0, width=105),
            Column("F", "Bounty", "none", 2, width=80),
            Column("G", "Bounty ends in", "s", 1, width=125),
            *MINER_COLUMNS,
        ],
        empty=NONE_RUNNABLE,
        sort=("Units per GPU-second", True),
        size=(24, 9),
    ),
    table_panel(
        "Demand",
        "Each chute with its demand and supply, the busiest first. A high rate-limited share means that demand is not "
        "served. With an allowance, you can serve it.",
        [
            Query(with_chute_name(_chute("chutes_chute_recent_utilization_ratio", window="15m"))),
            Query(_chute("chutes_chute_recent_utilization_ratio", window="1h")),
            Query(_chute("chutes_chute_rate_limited_ratio", window="15m")),
            Query(_chute("chutes_chute_scale_allowance")),
            Query(_chute("chutes_chute_target_instances")),
            Query(_chute("chutes_chute_instances")),
            Query(_chute("chutes_chute_starting_instances")),
            Query(f"{PAY} and on (chute_id) {_chute('chutes_chute_info')}", data=KEYED),
            Query(f"{_chute('chutes_bounty_expires_timestamp_seconds')} - time()"),
            Query(_chute("chutes_chute_window_invocations", window="1h")),
        ],
        [
            *CHUTE,
            Column("A", "Utilisation, 15 m", "percentunit", 0, width=150),
            Column("B", "Utilisation, 1 h", "percentunit", 0, width=125),
            Column("C", "Rate limited, 15 m", "percentunit", 0, width=145),
            Column("D", "Allowance", "none", 0, width=95),
            Column("E", "Target", "none", 0, width=75),
            Column("F", "Active", "none", 0, width=75),
            Column("G", "Starting", "none", 0, width=80),
            Column("H", "Units per GPU-second", "none", 2, width=195),
            Column("I", "Bounty ends in", "s", 1, width=125),
            Column("J", "Requests, 1 h", "short", 1, width=115),
        ],
        empty="No chute known: the API has not answered, or the exporter is down",
        sort=("Utilisation, 15 m", True),
        size=(24, 11),
    ),
    graph(
        "Requests per hour",
        "Requests to the chosen chutes that were completed in the past hour, and those refused because all instances "
        "were busy. Refusals are unmet demand.",
        [
            Query(
                f"sum({_chute('chutes_chute_window_invocations', window='1h')})",
                "completed",
                step="30m",
            ),
            Query(
                f"sum({_chute('chutes_chute_window_rate_limits', window='1h')})",
                "rate limited",
                step="30m",
            ),
        ],
        unit="short",
    ),
    graph(
        "Compute units per GPU-second, top 10",
        "The ten best paid of the chosen chutes, on the cheapest GPU that each allows. A peak is urgency or a bounty.",
        [
            Query(
                # Only the ten are joined with their names, once.
                f"{select(PAY, **ON_CHUTES)} * on (chute_id) group_left (name)"
                " (chute_id:chutes_chute_info:max @ end() and on (chute_id)"
                f" topk(10, {select(PAY, **ON_CHUTES)} @ end()))",
                "{{name}}",
                KEYED,
                step="30m",
            )
        ],
        unit="none",
        decimals=2,
        empty=NO_KEY,
    ),
)

MARKET.fold(
    "Refused chutes",
    table_panel(
        "Refused chutes",
        "Chutes of each idle model that the miner cannot launch now, by the first reason. docs/advise.md explains the "
        "reasons.",
        [Query(short(REFUSED), data=SICK)],
        [
            Column("gpu", "Idle model", width=100),
            Column("reason", "Reason", width=250),
            Column("Value", "Chutes", "none", 0, width=90),
            *MINER_COLUMNS,
        ],
        empty="No chute is refused, or no GPU is idle",
        sort=("Chutes", True),
        size=(24, 6),
    ),
)

MARKET.fold(
    "Bounties and boosts",
    table_panel(
        "Bounties",
        "Open bounties with the factor that they give now and their time left. The first instance that becomes "
        "active takes it.",
        [
            Query(with_chute_name(_chute("chutes_bounty_boost_ratio"))),
            Query(f"{_chute('chutes_bounty_expires_timestamp_seconds')} - time()"),
            Query(f"time() - {_chute('chutes_bounty_created_timestamp_seconds')}"),
        ],
        [
            *CHUTE,
            Column("A", "Factor", "none", 2, width=90),
            Column("C", "Age", "s", 1, width=110),
            Column("B", "Ends in", "s", 1, width=110),
        ],
        empty="No bounty is open",
        sort=("Factor", True),
        size=(12, 9),
    ),
    table_panel(
        "Factors",
        "Factors of a chute's multiplier besides its GPUs: private, urgency, boosts, TEE. An instance approaches the "
        "present factors, without the bounty, from 2 to 8 hours after its activation.",
        [
            Query(
                with_chute_name(
                    of_exporters(
                        "chutes_chute_compute_multiplier_factor",
                        "chute_id",
                        "factor",
                        factor="!base",
                        **ON_CHUTES,
                    )
                    + " != 1"
                ),
                data=KEYED,
            )
        ],
        [
            *CHUTE,
            Column("factor", "Factor", width=150),
            Column("Value", "Times", "none", 2, width=90),
        ],
        empty="Nothing is boosted, or the exporter has no key",
        sort=("Times", True),
        size=(12, 9),
    ),
)

MARKET.fold(
    "Terms of chutes",
    table_panel(
        "Terms",
        "How each chute scales, how many requests it takes at once, what users pay, and when an idle private "
        "instance is shut down. Miners do not receive the price that users pay.",
        [
            Query(of_exporters("chutes_chute_info", "chute_id", "name", "tee", "public", "disabled"), data=KEYED),
            Query(_chute("chutes_chute_gpus"), data=KEYED),
            Query(_chute("chutes_chute_min_vram_bytes"), data=KEYED, sometimes=True),
            Query(_chute("chutes_chute_max_instances"), data=KEYED),
            Query(_chute("chutes_chute_concurrency"), data=KEYED),
            Query(_chute("chutes_chute_scaling_threshold_ratio"), data=KEYED),
            Query(_chute("chutes_chute_shutdown_after_seconds"), data=KEYED),
            Query(_chute("chutes_chute_compute_multiplier")),
            Query(f"3600 * {_chute('chutes_chute_price_usd_per_second')}"),
            Query(_chute("chutes_chute_window_usage_usd", window="1h")),
            Query(_chute("chutes_chute_discount_ratio"), data=KEYED),
        ],
        [
            *CHUTE,
            Column("tee", "TEE", width=60),
            Column("public", "Public", width=70),
            Column("disabled", "Disabled", width=80),
            Column("B", "GPUs", "none", 0, width=65),
            Column("C", "VRAM", "decbytes", 0, width=80),
            Column("D", "Most instances", "none", 0, width=125),
            Column("E", "At once", "none", 0, width=80),
            Column("F", "Scales above", "percentunit", 0, width=115),
            Column("G", "Shuts down after", "s", 1, width=135),
            Column("H", "Base multiplier", "none", 2, width=125),
            Column("I", "Users pay, 1 h", "currencyUSD", 2, width=120),
            Column("J", "Usage, 1 h", "currencyUSD", 2, width=100),
            Column("K", "Discount", "percentunit", 0, width=85),
        ],
        empty="No chute known: the API has not answered, or the exporter is down",
        sort=("Chute", False),
        size=(24, 12),
    ),
)

MARKET.fold(
    "Jobs and images",
    table_panel(
        "Jobs waiting",
        "Each job that no miner has claimed, the best paid first. The service gives launch tokens for a job to 15 "
        "miners at most.",
        [
            Query(
                with_chute_name(of_exporters("chutes_job_info", "job_id", "chute_id", "method")),
                data=KEYED,
            ),
            Query(f"time() - {of_exporters('chutes_job_created_timestamp_seconds', 'job_id')}", data=KEYED),
            Query(of_exporters("chutes_job_compute_multiplier", "job_id"), data=KEYED),
            Query(of_exporters("chutes_job_tries", "job_id"), data=KEYED),
        ],
        [
            *CHUTE,
            Column("method", "Method", width=120),
            Column("B", "Waits", "s", 1, width=90),
            Column("C", "Multiplier", "none", 2, width=105),
            Column("D", "Tried by", "none", 0, width=85),
            Column("job_id", "Id", width=315),
        ],
        empty="No job waits, or --collector.job_details is off",
        sort=("Multiplier", True),
        size=(24, 8),
    ),
    graph(
        "Jobs waiting, by method",
        "Jobs that no miner has claimed. If their number grows, no miner has the GPUs that they need, or launches "
        "fail.",
        [
            Query(of_exporters("chutes_jobs_available", "method"), "{{method}}", KEYED),
        ],
        unit="none",
        decimals=0,
        stacked=True,
        empty="No job waits, or the exporter has no key",
        size=(12, 8),
    ),
    table_panel(
        "Jobs of the chosen miners",
        "Waiting jobs for which a miner requested a launch token, and stuck jobs, which are unfinished but have no "
        "instance. Release stuck jobs with chutes-exporter release-job.",
        [
            Query(short(of_miners("chutes_jobs_tried")), data=KEYED),
            Query(of_miners("chutes_jobs_stuck"), data=KEYED),
        ],
        [
            *MINER_COLUMNS,
            Column("A", "Tried", "none", 0, width=100),
            Column("B", "Stuck", "none", 0, width=100, thresholds=[(1, ORANGE)]),
        ],
        empty=NO_KEY,
        sort=("Stuck", True),
        size=(12, 8),
    ),
    graph(
        "Images by status",
        "Images of the platform by build status. If many wait or fail, new versions of chutes may not start.",
        [Query(of_exporters("chutes_images", "status"), "{{status}}", KEYED - SICK)],
        unit="none",
        decimals=0,
        states=IMAGE,
        stacked=True,
        empty=NO_KEY,
        size=(24, 8),
    ),
)
