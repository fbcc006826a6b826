"""Chutes: what they are, their room and load, their requests, and their bounties."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct, structs

from chutes_exporter.api.records import Bounty, Chute, ChuteMetrics, ChuteUtilization
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table, Total, fields_named
from chutes_exporter.feeds.definitions import BOUNTIES, CHUTE_METRICS, CHUTES, UTILIZATION
from chutes_exporter.rules.demand import (
    inactive_instances,
    load_is_unknown,
    recent_ratio,
    target_instances,
    unknown_metrics,
)
from chutes_exporter.rules.money import bounty_boost, bounty_expires_at

if TYPE_CHECKING:
    from collections.abc import Iterable

R = TypeVar("R", bound=Struct)


CHUTE = Table[Chute](
    CHUTES,
    key="chute_id",
    chutes_chute_info=Info(
        "The chute's name, version and kind.",
        fields_named("name", "slug", "version", "chutes_version", "image")
        | {"template": "standard_template"}
        | fields_named("public", "tee", "disabled", "preemptible"),
    ),
    chutes_chute_effective_compute_multiplier=Row(
        "Compute units per second of an instance started now on the cheapest GPU that the chute "
        "allows. More expensive GPUs earn more, in proportion to their hourly rate.",
        "effective_compute_multiplier",
    ),
)

DETAIL = Table[Chute](
    CHUTES,
    key="chute_id",
    chutes_chute_gpus=Row(
        "Number of GPUs that an instance of the chute needs.", "node_selector.gpu_count"
    ),
    chutes_chute_supported_gpu=Row(
        "1 for each model of GPUs that the chute runs on.",
        "node_selector.supported_gpus",
        convert=lambda models: dict.fromkeys(models, 1),
        by="gpu",
    ),
    chutes_chute_min_vram_bytes=Row(
        "Minimum memory of each GPU (GB counted as 10^9 bytes).",
        "node_selector.min_vram_gb_per_gpu",
        convert=lambda gigabytes: gigabytes * 1e9,
    ),
    chutes_chute_concurrency=Row(
        "Maximum concurrent requests of an instance of the chute.", "concurrency"
    ),
    chutes_chute_max_instances=Row(
        "Maximum number of instances that the chute's owner allows.", "max_instances"
    ),
    chutes_chute_scaling_threshold_ratio=Row(
        "Utilization above which the chute gets more instances.", "scaling_threshold"
    ),
    chutes_chute_shutdown_after_seconds=Row(
        "Idle time after which a private instance of the chute is shut down.",
        "shutdown_after_seconds",
    ),
    chutes_chute_discount_ratio=Row(
        "Discount on the price that users pay for the chute. It does not change the miners' "
        "earnings.",
        "discount",
    ),
    chutes_chute_compute_multiplier_factor=Row(
        "Factors of the effective compute multiplier: base (what the GPUs earn), private, "
        "private_tee, integrated_subnet, urgency_boost, manual_boost, bounty_boost, tee. Others "
        "are absent.",
        "compute_multiplier_factors",
        by="factor",
    ),
    chutes_chute_flag=Row(
        "Whether the chute's owner or the service set a flag (1), as the API names them: "
        "allow_external_egress, encrypted_fs, lock_modules, immutable, openrouter.",
        fields_named(
            *("allow_external_egress", "encrypted_fs", "lock_modules", "immutable", "openrouter")
        ),
        by="flag",
    ),
    chutes_chute_created_timestamp_seconds=Row("When the chute was created.", "created_at"),
    chutes_chute_updated_timestamp_seconds=Row("When the chute was last changed.", "updated_at"),
)

CHUTES_COLLECTOR = Collector("chutes", "each chute's name, kind and compute multiplier", (CHUTE,))
CHUTE_DETAILS_COLLECTOR = Collector(
    "chute_details",
    "each chute's requirements, limits and flags, and the factors of its multiplier",
    (DETAIL,),
    on=False,
)


def _without(records: list[R], fields: Iterable[str]) -> list[R]:
    """Return records without some fields, which are unknown."""
    unknown: dict[str, None] = dict.fromkeys(fields)
    return [structs.replace(record, **unknown) for record in records] if unknown else records


_LOAD = ("utilization_15m", "utilization_1h", "rate_limit_ratio_15m", "rate_limit_ratio_1h")
"""The ratios that are unknown if the autoscaler's monitoring failed."""

LOAD = Table[ChuteUtilization](
    UTILIZATION,
    key="chute_id",
    records=lambda chutes: _without(chutes, _LOAD if load_is_unknown(chutes) else ()),
    chutes_chute_scale_allowance=Row(
        "Instances by which the chute is below its target. At 0 the service refuses most "
        "launches. chutes_launch_gpus has what the miner can launch.",
        "scale_allowance",
    ),
    chutes_chute_scalable=Row(
        "Whether the chute has fewer active instances than the autoscaler wants (1).", "scalable"
    ),
    chutes_chute_target_instances=Row(
        "Number of active instances that the autoscaler wants for the chute. Absent if its last "
        "run wanted more than the service allows now.",
        target_instances,
    ),
    chutes_chute_inactive_instances=Row(
        "Instances of the chute that are not active, on all miners. They are starting, or "
        "their miners disabled them.",
        inactive_instances,
    ),
    chutes_chute_recent_utilization_ratio=Row(
        "Average use of the chute's capacity in the window before the autoscaler's last run. Above "
        "1, demand exceeds capacity. Absent for a chute that had no instance.",
        {
            "15m": lambda chute: recent_ratio(chute, chute.utilization_15m),
            "1h": lambda chute: recent_ratio(chute, chute.utilization_1h),
        },
        by="window",
    ),
    chutes_chute_rate_limited_ratio=Row(
        "Share of the chute's requests that were refused in the window before the autoscaler's "
        "last run, because all "
        "instances were busy. 0 without requests. Absent for a chute that had no instance.",
        {
            "15m": lambda chute: recent_ratio(chute, chute.rate_limit_ratio_15m),
            "1h": lambda chute: recent_ratio(chute, chute.rate_limit_ratio_1h),
        },
        by="window",
    ),
    chutes_autoscaler_timestamp_seconds=Total(
        "When the autoscaler last ran. If it stops, the targets, allowances and recent ratios of "
        "all chutes become stale.",
        partial(max, default=None),
        of="timestamp",
    ),
)

UTILIZATION_COLLECTOR = Collector(
    "utilization",
    "room for more instances of each chute, and its demand as the autoscaler sees it",
    (LOAD,),
)


INVOCATIONS = Row(
    "Requests to the chute that were completed in the window.",
    {"1h": "total_invocations"},
    by="window",
)

REQUESTS = Table[ChuteMetrics](
    CHUTE_METRICS,
    key="chute_id",
    records=lambda chutes: _without(chutes, unknown_metrics(chutes)),
    chutes_chute_window_invocations=INVOCATIONS,
    chutes_chute_window_compute_seconds=Row(
        "Total duration of the requests completed in the window on all miners.",
        {"1h": "total_compute_time"},
        by="window",
    ),
    chutes_chute_window_rate_limits=Row(
        "Requests to the chute that were refused in the window because its instances were busy.",
        {"1h": "rate_limit_count"},
        by="window",
    ),
    chutes_chute_window_usage_usd=Row(
        "Price of the chute's requests in the window, in US dollars, with what subscribers would "
        "have paid per request. Miners do not receive it.",
        {"1h": "total_usage_usd"},
        by="window",
    ),
    chutes_chute_utilization_ratio=Row(
        "Average use of the chute's capacity in the window. Above 1, demand exceeds capacity.",
        {"1h": "utilization"},
        by="window",
    ),
    chutes_chute_instances=Row(
        "Active and verified instances of the chute on all miners.", "instance_count"
    ),
    chutes_chute_compute_multiplier=Row(
        "The chute's base compute multiplier, without boosts.", "compute_multiplier"
    ),
    chutes_chute_price_usd_per_second=Row(
        "Price that users pay for a second of the chute, in US dollars. Miners do not receive it.",
        "per_second_price_usd",
    ),
    chutes_demand_timestamp_seconds=Total(
        "When the service computed the demand of the past hour.",
        partial(max, default=None),
        of="end_date",
    ),
)

# A metric belongs to one collector, so that no page has its family twice.
REQUESTS_OF_DAY = Table[Chute](
    CHUTES,
    key="chute_id",
    chutes_chute_window_invocations=replace(INVOCATIONS, value={"1d": "invocation_count"}),
)

DEMAND_COLLECTOR = Collector(
    "metrics",
    "demand for each chute: requests, utilization, refused requests, usage and price",
    (REQUESTS, REQUESTS_OF_DAY),
)


BOUNTY = Table[Bounty](
    BOUNTIES,
    key="chute_id",
    chutes_bounty_created_timestamp_seconds=Row(
        "When the open bounty of the chute was created. The chute may be gone.", "created_at"
    ),
    chutes_bounty_expires_timestamp_seconds=Row(
        "When the open bounty of the chute expires, accurate to 2 seconds. It ends earlier if an "
        "instance becomes active and takes it.",
        bounty_expires_at,
    ),
    chutes_bounty_boost_ratio=Row(
        "Factor by which the bounty multiplies the compute multiplier of an instance that is "
        "activated at the time of "
        "the answer. It is 1.1 for a new bounty and rises to 1.5 within 3 hours.",
        bounty_boost,
    ),
    chutes_open_bounties=Total("Chutes of the platform that have an open bounty.", len),
)

BOUNTIES_COLLECTOR = Collector(
    "bounties", "open bounties: their number, their starts, their ends and their boosts", (BOUNTY,)
)
