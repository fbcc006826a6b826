"""Costs and prices that the user configures, because the API does not send them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.metric import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chutes_exporter.config import Settings
    from chutes_exporter.page.telemetry import Row

METRICS = Metrics("exporter")
"""Metrics of these figures. The recording rules make costs and estimated earnings of them."""

GPU_COST = METRICS.declare(
    "chutes_gpu_cost_usd_per_hour",
    "Price in US dollars that the miner pays per hour for one GPU of this model, whether it is idle or not.",
    "--gpu.cost",
    labels=("gpu",),
)
EMISSION = METRICS.declare(
    "chutes_subnet_emission_alpha_per_day",
    "Alpha that all miners of the subnet receive together per day. Earnings computed from it are estimates, because "
    "the API does not report payments.",
    "--subnet.daily-emission",
)
ALPHA_PRICE = METRICS.declare(
    "chutes_alpha_price_usd",
    "Price of one alpha in US dollars. It changes only when the exporter is restarted with another price. Earnings "
    "computed from it are estimates.",
    "--alpha.price",
)


def rows(settings: Settings) -> Iterator[Row]:
    """Return the figures that the user gave."""
    for model, cost in settings.gpu_costs.items():
        yield GPU_COST, cost, model
    yield EMISSION, settings.daily_emission
    yield ALPHA_PRICE, settings.alpha_price
