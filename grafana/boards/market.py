"""Where to deploy next: which chutes can run on idle GPUs now, what they pay, and how high the
demand is.
"""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    AMOUNT,
    CENTS,
    COUNT,
    FACTOR,
    MINER_COLUMNS,
    NO_KEY,
    PERCENT,
    TIME,
    UNIT_USD,
    Board,
    Column,
    Query,
    Unit,
    board_link,
    graph,
    nothing_wrong,
    of_all,
    of_exporters,
    of_miners,
    recorded,
    select,
    short,
    stat,
    table,
    total,
    whole,
    with_chute_name,
)
from grafana.states import CHUTES, ORANGE
from grafana.worlds import HEALTHY, KEYED, LIVE, PRICED, SICK, STOCKED

ON_CHUTES: Final = {"chute_id": "~$chute"}
_LAUNCH: Final = of_miners("chutes_launch_units_per_gpu_second", "gpu", "chute_id", **ON_CHUTES)
_IDLE: Final = recorded("hotkey_state:chutes_fleet_gpus:sum", state="idle")
NONE_IDLE: Final = f"{total(_IDLE, with_gpus=True)} == 0"
_BEST: Final = f"topk(10, {select('chute_id:chutes_chute_units_per_gpu_second:max', **ON_CHUTES)})"
LAUNCH: Final = f'({_LAUNCH} or label_replace({_BEST} and on () {NONE_IDLE}, "gpu", "any", "", ""))'
"""The pay of a GPU in the chutes that the idle ones can launch.

Without idle ones, the best pay on the cheapest GPU.
"""
REFUSED: Final = of_miners("chutes_launch_refused_chutes", "gpu", "reason")
INSTANCES_OF_CHUTE: Final = board_link("chutes-instances", chute="${__data.fields.chute_id}")
CHUTE: Final = (Column("", "chute_id"), Column("Chute", "name", width=290, link=INSTANCES_OF_CHUTE))
"""A chute, whose instances of the chosen miners are a click away."""


def _chute(metric: str, **where: str) -> str:
    return of_exporters(metric, "chute_id", **where, **ON_CHUTES)


YOURS: Final = of_miners("chutes_fleet_gpus", "gpu", "state")
YOUR_IDLE: Final = of_miners("chutes_fleet_gpus", "gpu", "state", state="idle")
PLATFORM: Final = of_exporters("chutes_platform_gpus", "gpu", "state")
PLATFORM_IDLE: Final = of_exporters("chutes_platform_gpus", "gpu", state="idle")
ROOM: Final = _chute("chutes_chute_scale_allowance")
UTILIZATION: Final = _chute("chutes_chute_recent_utilization_ratio", window="15m")
DEMAND: Final = (
    ("Room", COUNT, ROOM),
    ("Utilisation, 15 m", PERCENT, UTILIZATION),
    ("Rate limited", PERCENT, _chute("chutes_chute_rate_limited_ratio", window="15m")),
    ("Bounty", FACTOR, _chute("chutes_bounty_boost_ratio")),
    ("Bounty ends in", TIME, f"({_chute('chutes_bounty_expires_timestamp_seconds')} - time())"),
    ("Active", COUNT, _chute("chutes_chute_instances")),
    ("Starting", COUNT, _chute("chutes_chute_starting_instances")),
)
"""Titles, units and queries of the columns that each table of chutes has."""
REQUESTS: Final = f"sum{whole(_chute('chutes_chute_window_invocations', window='1h'), 'metrics')}"
REFUSED_REQUESTS: Final = (
    f"sum{whole(_chute('chutes_chute_window_rate_limits', window='1h'), 'metrics')}"
)
AUTOSCALER: Final = of_exporters("chutes_autoscaler_timestamp_seconds")

MARKET: Final = Board(
    "chutes-market",
    "Chutes market",
    "Where to deploy next: which chutes can run on idle GPUs now, what they pay, and how high "
    "the demand is.",
    variables=("cluster", "job", "instance", "hotkey", "chute"),
)

MARKET.show(
    stat(
        "Demand",
        "Requests of the past hour that were completed, and those refused because all instances "
        "were busy; chutes that "
        "have fewer active instances than the autoscaler wants. If the autoscaler has stopped, "
        "room and utilisation "
        "are old.",
        Query(REQUESTS, "requests, 1 h", unit=Unit("short", 0)),
        Query(REFUSED_REQUESTS, "refused, 1 h", unit=Unit("short", 1)),
        Query(f"sum{whole(f'{ROOM} > bool 0', 'utilization')}", "chutes with room"),
        Query(
            f"time() - {AUTOSCALER} > 3600",
            "autoscaler stopped",
            unit=TIME,
            color=ORANGE,
            data=frozenset(),
        ),
        size=(9, 3),
    ),
    stat(
        "Bounties",
        "Chutes with a bounty. It multiplies what the first instance that becomes active earns, "
        "by 1.1 when new and up "
        "to 1.5 after 3 hours.",
        Query(of_exporters("chutes_feed_records", feed="bounties"), "open"),
        trend=True,
    ),
    stat(
        "Jobs",
        "Jobs of the platform that a miner can claim. A job with 15 tries, or of a chute that "
        "is gone, does not count.",
        Query(of_exporters("chutes_jobs_waiting"), "waiting", KEYED),
        empty="needs a key",
        trend=True,
    ),
    table(
        "What to run next, pay per GPU",
        "Chutes that each idle GPU model can launch now, the best paid first; chutes-exporter "
        "advise prints the same. "
        "Without idle GPUs, the ten chutes with room that pay most, on the cheapest GPU that they "
        "allow. Dollars are "
        "an estimate, and need --chain.url. Room is the number of instances that may "
        'still become active. "Refused chutes" counts the others.',
        *CHUTE,
        Column("GPU", "gpu", width=100),
        *MINER_COLUMNS,
        Column("Units/s", short(with_chute_name(LAUNCH)), FACTOR, 100, missing=" ", data=STOCKED),
        Column(
            "USD/day",
            f"86400 * {LAUNCH} * on () group_left () {UNIT_USD}",
            CENTS,
            missing=" ",
            data=PRICED,
        ),
        *(
            Column(
                title,
                f"0 * {LAUNCH} + on (chute_id) group_left () {query}",
                unit,
                missing=" ",
                data=STOCKED,
            )
            for title, unit, query in (*DEMAND, ("GPUs", COUNT, _chute("chutes_chute_gpus")))
        ),
        empty=NO_KEY,
        sort=["-Units/s"],
        size=(24, 9),
    ),
    table(
        "Supply",
        "GPUs of your models: yours, your idle ones, and those of all miners. If many are unused "
        "everywhere, the "
        "platform has more of the model than it can use.",
        Column("Model", "gpu", width=90),
        Column(
            "Yours", of_all(f"sum by (gpu) ({YOURS})", YOURS, with_gpus=True), COUNT, data=STOCKED
        ),
        Column(
            "Idle",
            of_all(f"sum by (gpu) ({YOUR_IDLE})", YOUR_IDLE, with_gpus=True),
            COUNT,
            thresholds=[(1, ORANGE)],
            data=STOCKED,
        ),
        Column("All", f"sum by (gpu) ({PLATFORM}) and on (gpu) {YOURS}", COUNT, data=STOCKED),
        Column("Unused, all", f"{PLATFORM_IDLE} and on (gpu) {YOURS}", COUNT, data=STOCKED),
        empty=NO_KEY,
        sort=["-Yours"],
        size=(9, 6),
    ),
    graph(
        "Requests per hour",
        "Requests to the chosen chutes that were completed in the past hour, and those refused "
        "because all instances "
        "were busy. Refusals are unmet demand.",
        Query(REQUESTS, "completed", step="30m"),
        Query(REFUSED_REQUESTS, "rate limited", step="30m"),
        unit=AMOUNT,
        size=(15, 6),
    ),
)

MARKET.show(
    table(
        "Refused chutes",
        "Chutes of each idle model that the miner cannot launch now, by the first reason. "
        "docs/advise.md explains the "
        "reasons.",
        Column("", nothing_wrong(NONE_IDLE, "reason"), data=HEALTHY),
        Column("Your GPU", "gpu", width=100, missing=" "),
        Column("Reason", "reason", width=250, states=CHUTES),
        Column("Chutes", short(REFUSED), COUNT, missing=" ", data=SICK),
        *MINER_COLUMNS,
        empty=NO_KEY,
        sort=["-Chutes"],
        size=(24, 6),
    ),
    title="Refused chutes",
)

MARKET.show(
    table(
        "Demand",
        "Each chute with its demand and supply, the busiest first. A high rate-limited share "
        "means that demand is not "
        "served. With room, you can serve it.",
        *CHUTE,
        Column("", with_chute_name(UTILIZATION)),
        *(Column(title, query, unit) for title, unit, query in DEMAND),
        Column("Wanted", _chute("chutes_chute_target_instances"), COUNT),
        Column(
            "Utilisation, 1 h",
            _chute("chutes_chute_recent_utilization_ratio", window="1h"),
            PERCENT,
        ),
        Column("Requests, 1 h", _chute("chutes_chute_window_invocations", window="1h"), AMOUNT),
        sort=["-Utilisation, 15 m"],
        size=(24, 12),
    ),
    table(
        "Terms",
        "How each chute scales, how many requests it takes at once, what users pay, and when an "
        "idle private instance "
        "is shut down. Miners do not receive the price that users pay.",
        Column(
            "",
            of_exporters("chutes_chute_info", "chute_id", "name", "tee", "public", "disabled"),
            data=KEYED,
        ),
        *CHUTE,
        Column("TEE", "tee"),
        Column("Public", "public"),
        Column("Disabled", "disabled"),
        *(
            Column(title, _chute(f"chutes_chute_{metric}"), unit, data=data)
            for title, metric, unit, data in (
                ("GPUs", "gpus", COUNT, KEYED),
                ("VRAM", "min_vram_bytes", Unit("decbytes", 0), KEYED),
                ("Most instances", "max_instances", COUNT, KEYED),
                ("At once", "concurrency", COUNT, KEYED),
                ("Scales above", "scaling_threshold_ratio", PERCENT, KEYED),
                ("Shuts down after", "shutdown_after_seconds", TIME, KEYED),
                ("Base multiplier", "compute_multiplier", FACTOR, LIVE),
                ("Discount", "discount_ratio", PERCENT, KEYED),
            )
        ),
        Column("Users pay, 1 h", f"3600 * {_chute('chutes_chute_price_usd_per_second')}", CENTS),
        Column("Usage, 1 h", _chute("chutes_chute_window_usage_usd", window="1h"), CENTS),
        sort=["Chute"],
        size=(24, 12),
    ),
    title="All chutes",
)

MARKET.show(
    table(
        "Jobs waiting",
        "Each job that no miner has claimed, the best paid first. The service gives launch tokens "
        "for a job to 15 "
        "miners at most.",
        Column(
            "",
            with_chute_name(of_exporters("chutes_job_info", "job_id", "chute_id", "method")),
            data=KEYED,
        ),
        *CHUTE,
        Column("Method", "method", width=120),
        *(
            Column(title, query, unit, data=KEYED)
            for title, unit, query in (
                (
                    "Waits",
                    TIME,
                    f"time() - {of_exporters('chutes_job_created_timestamp_seconds', 'job_id')}",
                ),
                ("Multiplier", FACTOR, of_exporters("chutes_job_compute_multiplier", "job_id")),
                ("Tried by", COUNT, of_exporters("chutes_job_tries", "job_id")),
            )
        ),
        Column("Id", "job_id", width=315),
        empty="Unknown: no data. It needs the miner's key and --collector.job_details.",
        sort=["-Multiplier"],
    ),
    table(
        "Jobs of the chosen miners",
        "Waiting jobs for which a miner requested a launch token, and stuck jobs, which are "
        "unfinished but have no "
        "instance. Release stuck jobs with chutes-exporter release-job.",
        *MINER_COLUMNS,
        Column("Tried", short(of_miners("chutes_jobs_tried")), COUNT, data=KEYED),
        Column(
            "Stuck", of_miners("chutes_jobs_stuck"), COUNT, thresholds=[(1, ORANGE)], data=KEYED
        ),
        empty=NO_KEY,
        sort=["-Stuck"],
    ),
    title="Jobs",
)
