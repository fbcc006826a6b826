"""Figures that the API does not send and the user gives: what GPUs cost, and what alpha is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.collectors.samples import Metrics

if TYPE_CHECKING:
    from chutes_exporter.collectors.samples import Samples
    from chutes_exporter.config import Settings

METRICS = Metrics()
"""Metrics of these figures. The recording rules make costs and estimated earnings of them."""

GPU_COST = METRICS.gauge(
    "chutes_gpu_cost_usd_per_hour",
    "What the miner pays for one GPU of this model, in US dollars an hour, idle or not.",
    ("gpu",),
    "exporter: --gpu.cost",
)
EMISSION = METRICS.gauge(
    "chutes_subnet_emission_alpha_per_day",
    "Alpha that the subnet's miners get together in a day. Earnings made of it are estimates: the API does not say "
    "what is paid.",
    (),
    "exporter: --subnet.daily-emission",
)
ALPHA_PRICE = METRICS.gauge(
    "chutes_alpha_price_usd",
    "Price of one alpha in US dollars. It does not change until the exporter is started with another. Earnings made "
    "of it are estimates.",
    (),
    "exporter: --alpha.price",
)


def report(settings: Settings, out: Samples) -> None:
    """Add the figures that the user gave."""
    for model, cost in settings.gpu_costs.items():
        out.add(GPU_COST, cost, model)
    out.add(EMISSION, settings.daily_emission)
    out.add(ALPHA_PRICE, settings.alpha_price)
