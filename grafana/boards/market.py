"""Where to deploy next: which chutes can run on idle GPUs now, what they pay, and how high the demand is."""

from __future__ import annotations

from typing import Final

from grafana.parts import (
    MINER_COLUMNS,
    NO_GPUS,
    NO_KEY,
    Board,
    Column,
    Query,
    board_link,
    graph,
    nothing_wrong,
    of_exporters,
    of_miners,
    or_load_rules,
    recorded,
    short,
    stat_panel,
    table_panel,
    whole,
    with_chute_name,
)
from grafana.states import CHUTES, IMAGE, ORANGE
from grafana.worlds import HEALTHY, KEYED, PRICED, SICK, STOCKED

ON_CHUTES: Final = {"chute_id": "~$chute"}
LAUNCH: Final = of_miners("chutes_launch_units_per_gpu_second", "gpu", "chute_id", **ON_CHUTES)
REFUSED: Final = of_miners("chutes_launch_refused_chutes", "gpu", "reason")
IDLE: Final = f"sum({recorded('hotkey_state:chutes_fleet_gpus:sum', state='idle')})"
CHUTE: Final = (
    Column("chute_id", ""),
    Column("name", "Chute", width=260, link=board_link("chutes-instances", chute="${__data.fields.chute_id}")),
)
"""A chute, whose instances of the chosen miners are a click away."""


def _chute(metric: str, **where: str) -> str:
    return of_exporters(metric, "chute_id", **where, **ON_CHUTES)


def _launch(query: str) -> str:
    """Return a value of the chutes that the miners can launch now, for each of the idle GPU models."""
    return f"0 * {LAUNCH} + on (chute_id) group_left () ({query})"


YOURS: Final = of_miners("chutes_fleet_gpus", "gpu", "state")
YOUR_IDLE: Final = of_miners("chutes_fleet_gpus", "gpu", "state", state="idle")
PLATFORM: Final = of_exporters("chutes_platform_gpus", "gpu", "state")
PLATFORM_IDLE: Final = of_exporters("chutes_platform_gpus", "gpu", state="idle")
ROOM: Final = _chute("chutes_chute_scale_allowance")
UTILIZATION: Final = _chute("chutes_chute_recent_utilization_ratio", window="15m")
REFUSALS: Final = _chute("chutes_chute_rate_limited_ratio", window="15m")
BOUNTY: Final = _chute("chutes_bounty_boost_ratio")
BOUNTY_ENDS: Final = f"{_chute('chutes_bounty_expires_timestamp_seconds')} - time()"

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
        [Query(or_load_rules(IDLE), "now", STOCKED)],
        decimals=0,
        thresholds=[(1, ORANGE)],
        empty=NO_GPUS,
        trend=True,
        size=(5, 3),
    ),
    stat_panel(
        "Room",
        "Chutes that have fewer active instances than the autoscaler wants.",
        [Query(f"sum{whole(f'{ROOM} > bool 0', 'utilization')}", "chutes", step="15m")],
        decimals=0,
        trend=True,
        size=(5, 3),
    ),
    stat_panel(
        "Bounties",
        "Chutes with a bounty. It multiplies what the first instance that becomes active earns, by 1.1 when new and "
        "up to 1.5 after 3 hours.",
        [Query(of_exporters("chutes_feed_records", feed="bounties"), "open")],
        decimals=0,
        trend=True,
        size=(5, 3),
    ),
    stat_panel(
        "Autoscaler",
        "Time since the service's autoscaler ran. If it stops, room and utilisation on this board are old.",
        [Query(f"time() - {of_exporters('chutes_autoscaler_timestamp_seconds')}", "last run")],
        unit="s",
        decimals=1,
        thresholds=[(3600, ORANGE)],
        size=(5, 3),
    ),
    stat_panel(
        "Jobs",
        "Jobs of the platform that a miner can claim. A job with 15 tries, or of a chute that is gone, does not count.",
        [Query(of_exporters("chutes_jobs_waiting"), "waiting", KEYED)],
        decimals=0,
        empty="needs a key",
        trend=True,
        size=(4, 3),
    ),
    table_panel(
        "Chutes for your idle GPUs",
        "Chutes that each idle GPU model can launch now, the best paid first; chutes-exporter advise prints the same. "
        "Dollars are an estimate, and need --subnet.daily-emission and --alpha.price. Room is the number of instances "
        "that may still become active. Idle, all is the number of such GPUs that are idle at all miners. The "
        'row "Refused chutes" counts the others by the reason.',
        [
            Query(short(with_chute_name(LAUNCH)), data=SICK),
            Query(f"86400 * {LAUNCH} * on () group_left () platform:chutes_compute_unit_usd:max", data=PRICED),
            Query(of_miners("chutes_launch_room_instances", "gpu", "chute_id", **ON_CHUTES), data=SICK),
            Query(_launch(UTILIZATION), data=SICK),
            Query(_launch(REFUSALS), data=SICK),
            Query(_launch(BOUNTY), data=SICK),
            Query(_launch(BOUNTY_ENDS), data=SICK),
            Query(_launch(_chute("chutes_chute_instances")), data=SICK),
            Query(_launch(_chute("chutes_chute_starting_instances")), data=SICK),
            Query(_launch(_chute("chutes_chute_gpus")), data=SICK),
            Query(f"0 * {LAUNCH} + on (gpu) group_left () {PLATFORM_IDLE}", data=SICK),
            Query(nothing_wrong(f"{IDLE} == 0", "name"), data=HEALTHY),
        ],
        [
            CHUTE[0],
            Column("name", "Chute", width=290, states=CHUTES, link=CHUTE[1].link),
            Column("gpu", "Your GPU", width=90, missing=" "),
            Column("A", "Pay on your GPU, units/s", "none", 2, width=215, missing=" "),
            Column("B", "USD/day", "currencyUSD", 2, width=90, missing=" "),
            Column("C", "Room", "none", 0, width=70, missing=" "),
            Column("D", "Utilisation", "percentunit", 0, width=95, missing=" "),
            Column("E", "Rate limited", "percentunit", 0, width=105, missing=" "),
            Column("F", "Bounty", "none", 2, width=75, missing=" "),
            Column("G", "Bounty ends in", "s", 1, width=125, missing=" "),
            Column("H", "Active", "none", 0, width=70, missing=" "),
            Column("I", "Starting", "none", 0, width=80, missing=" "),
            Column("J", "GPUs", "none", 0, width=60, missing=" "),
            Column("K", "Idle, all", "none", 0, width=85, missing=" "),
            *MINER_COLUMNS,
        ],
        empty=NO_KEY,
        sort=[("Pay on your GPU, units/s", True)],
        size=(24, 7),
    ),
    table_panel(
        "Supply",
        "GPUs of your models: yours, your idle ones, and those of all miners. If many are idle everywhere, the "
        "platform has more of the model than it can use.",
        [
            Query(f"sum by (gpu) ({YOURS})", data=STOCKED),
            Query(f"sum by (gpu) ({YOUR_IDLE})", data=STOCKED),
            Query(f"sum by (gpu) ({PLATFORM}) and on (gpu) {YOURS}", data=STOCKED),
            Query(f"{PLATFORM_IDLE} and on (gpu) {YOURS}", data=STOCKED),
        ],
        [
            Column("gpu", "Model", width=90),
            Column("A", "Yours", "none", 0, width=80),
            Column("B", "Idle", "none", 0, width=60, thresholds=[(1, ORANGE)]),
            Column("C", "All", "none", 0, width=60),
            Column("D", "Idle, all", "none", 0, width=85),
        ],
        empty=NO_KEY,
        sort=[("Yours", True)],
        size=(9, 6),
    ),
    graph(
        "Requests per hour",
        "Requests to the chosen chutes that were completed in the past hour, and those refused because all instances "
        "were busy. Refusals are unmet demand.",
        [
            Query(
                f"sum{whole(_chute('chutes_chute_window_invocations', window='1h'), 'metrics')}",
                "completed",
                step="30m",
            ),
            Query(
                f"sum{whole(_chute('chutes_chute_window_rate_limits', window='1h'), 'metrics')}",
                "rate limited",
                step="30m",
            ),
        ],
        unit="short",
        size=(15, 6),
    ),
)

MARKET.fold(
    "Refused chutes",
    table_panel(
        "Refused chutes",
        "Chutes of each idle model that the miner cannot launch now, by the first reason. docs/advise.md explains the "
        "reasons.",
        [
            Query(short(REFUSED), data=SICK),
            Query(nothing_wrong(f"{IDLE} == 0", "reason"), data=HEALTHY),
        ],
        [
            Column("gpu", "Your GPU", width=100, missing=" "),
            Column("reason", "Reason", states=CHUTES, width=250),
            Column("A", "Chutes", "none", 0, width=90, missing=" "),
            *MINER_COLUMNS,
        ],
        empty=NO_KEY,
        sort=[("Chutes", True)],
        size=(24, 6),
    ),
)

MARKET.fold(
    "All chutes",
    table_panel(
        "Demand",
        "Each chute with its demand and supply, the busiest first. A high rate-limited share means that demand is not "
        "served. With room, you can serve it.",
        [
            Query(with_chute_name(UTILIZATION)),
            Query(_chute("chutes_chute_recent_utilization_ratio", window="1h")),
            Query(REFUSALS),
            Query(ROOM),
            Query(_chute("chutes_chute_target_instances")),
            Query(_chute("chutes_chute_instances")),
            Query(_chute("chutes_chute_starting_instances")),
            Query(BOUNTY),
            Query(BOUNTY_ENDS),
            Query(_chute("chutes_chute_window_invocations", window="1h")),
        ],
        [
            *CHUTE,
            Column("A", "Utilisation, 15 m", "percentunit", 0, width=150),
            Column("B", "Utilisation, 1 h", "percentunit", 0, width=125),
            Column("C", "Rate limited", "percentunit", 0, width=105),
            Column("D", "Room", "none", 0, width=70),
            Column("E", "Wanted", "none", 0, width=75),
            Column("F", "Active", "none", 0, width=75),
            Column("G", "Starting", "none", 0, width=80),
            Column("H", "Bounty", "none", 2, width=75),
            Column("I", "Bounty ends in", "s", 1, width=125),
            Column("J", "Requests, 1 h", "short", 1, width=115),
        ],
        sort=[("Utilisation, 15 m", True)],
        size=(24, 12),
    ),
    table_panel(
        "Terms",
        "How each chute scales, how many requests it takes at once, what users pay, and when an idle private "
        "instance is shut down. Miners do not receive the price that users pay.",
        [
            Query(of_exporters("chutes_chute_info", "chute_id", "name", "tee", "public", "disabled"), data=KEYED),
            Query(_chute("chutes_chute_gpus"), data=KEYED),
            Query(_chute("chutes_chute_min_vram_bytes"), data=KEYED),
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
        sort=[("Chute", False)],
        size=(24, 12),
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
        empty=NO_KEY,
        sort=[("Times", True)],
        size=(24, 9),
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
        empty="Unknown: no data. It needs the miner's key and --collector.job_details.",
        sort=[("Multiplier", True)],
        size=(24, 8),
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
        sort=[("Stuck", True)],
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
        size=(12, 8),
    ),
)
