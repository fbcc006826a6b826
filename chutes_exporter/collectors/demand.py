"""Demand for each chute over the past hour, its instances and its price."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from msgspec import structs

from chutes_exporter.api.records import Chute, ChuteMetrics
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table, Total
from chutes_exporter.feeds.definitions import CHUTE_METRICS, CHUTES
from chutes_exporter.rules.demand import unknown_metrics


def _measured(chutes: list[ChuteMetrics]) -> list[ChuteMetrics]:
    """Return the records without the fields that the service did not measure."""
    unknown_fields = unknown_metrics(chutes)
    if not unknown_fields:
        return chutes
    none_by_field = dict.fromkeys(unknown_fields)
    return [structs.replace(chute, **none_by_field) for chute in chutes]


INVOCATIONS = Row(
    "Requests to the chute that were completed in the window.",
    {"1h": "total_invocations"},
    by="window",
)

CHUTE = Table[ChuteMetrics](
    CHUTE_METRICS,
    key="chute_id",
    of_chutes=True,
    records=_measured,
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
DAY = Table[Chute](
    CHUTES,
    key="chute_id",
    of_chutes=True,
    chutes_chute_window_invocations=replace(INVOCATIONS, value={"1d": "invocation_count"}),
)

COLLECTOR = Collector(
    "metrics",
    "demand for each chute: requests, utilization, refused requests, usage and price",
    (CHUTE, DAY),
)
