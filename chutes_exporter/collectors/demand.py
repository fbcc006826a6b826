"""Demand for each chute over the past hour."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs

from chutes_exporter.api.records import Chute, ChuteMetrics
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table
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
    chutes_chute_instances=Row(
        "Active and verified instances of the chute on all miners.", "instance_count"
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
    "demand for each chute: requests of the past hour and day, and its active instances",
    (CHUTE, DAY),
)
