"""Demand for each chute over the past hour."""

from __future__ import annotations

from msgspec import structs

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds import table
from chutes_exporter.rules.demand import unknown_metrics

METRICS = Metrics("GET /miner/metrics/", ("chute_id", "window"))
_HOUR = "1h"
_DAY = "1d"

INVOCATIONS = METRICS.declare(
    "chutes_chute_window_invocations",
    "Requests to the chute that were completed in the window.",
    "total_invocations (1h); GET /miner/chutes/: invocation_count (1d)",
)
COMPUTE_SECONDS = METRICS.declare(
    "chutes_chute_window_compute_seconds",
    "Total duration of the requests completed in the window on all miners.",
    "total_compute_time",
)
RATE_LIMITS = METRICS.declare(
    "chutes_chute_window_rate_limits",
    "Requests to the chute that were refused in the window because its instances were busy.",
    "rate_limit_count",
)
USAGE = METRICS.declare(
    "chutes_chute_window_usage_usd",
    "Price of the chute's requests in the window, in US dollars, with what subscribers would have paid per request. "
    "Miners do not receive it.",
    "total_usage_usd",
)
UTILIZATION = METRICS.declare(
    "chutes_chute_utilization_ratio",
    "Average utilization of the chute's capacity over the past hour. Above 1, demand exceeds capacity.",
    "utilization",
    labels=("chute_id",),
)
INSTANCES = METRICS.declare(
    "chutes_chute_instances",
    "Active and verified instances of the chute on all miners.",
    "instance_count",
    labels=("chute_id",),
)
COMPUTE_MULTIPLIER = METRICS.declare(
    "chutes_chute_compute_multiplier",
    "The chute's base compute multiplier, without boosts.",
    "compute_multiplier",
    labels=("chute_id",),
)
PRICE = METRICS.declare(
    "chutes_chute_price_usd_per_second",
    "Price that users pay for a second of the chute, in US dollars. Miners do not receive it.",
    "per_second_price_usd",
    labels=("chute_id",),
)


def _collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    chutes = distinct(answers[table.METRICS], lambda chute: chute.chute_id, out)
    unknown = dict.fromkeys(unknown_metrics(chutes))
    for chute in chutes:
        measured = structs.replace(chute, **unknown)
        out.add(INVOCATIONS, measured.total_invocations, chute.chute_id, _HOUR)
        out.add(COMPUTE_SECONDS, measured.total_compute_time, chute.chute_id, _HOUR)
        out.add(RATE_LIMITS, measured.rate_limit_count, chute.chute_id, _HOUR)
        out.add(USAGE, measured.total_usage_usd, chute.chute_id, _HOUR)
        out.add(UTILIZATION, measured.utilization, chute.chute_id)
        out.add(INSTANCES, chute.instance_count, chute.chute_id)
        out.add(COMPUTE_MULTIPLIER, chute.compute_multiplier, chute.chute_id)
        out.add(PRICE, chute.per_second_price_usd, chute.chute_id)
    # A metric belongs to one collector, so that no page has its family twice.
    for record in distinct(answers.optional(table.CHUTES) or [], lambda chute: chute.chute_id, out):
        out.add(INVOCATIONS, record.invocation_count, record.chute_id, _DAY)


COLLECTOR = Collector(
    name="metrics",
    summary="demand for each chute over the past hour: invocations, utilization, rate limits, usage, price",
    feeds=(table.METRICS,),
    metrics=METRICS,
    collect=_collect,
    cost="9 for each chute",
    extra=(table.CHUTES,),
)
