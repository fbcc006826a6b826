"""The figures that the user gives: what GPUs cost, and what alpha is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.config import make_settings
from chutes_exporter.rules.gpus import GPU_MODELS
from tests.support import patient, scrape, series

if TYPE_CHECKING:
    from chutes_exporter.simulator import Simulator

NAMES = ("chutes_gpu_cost_usd_per_hour", "chutes_subnet_emission_alpha_per_day", "chutes_alpha_price_usd")


async def test_figures_are_exported_as_they_were_given(simulator: Simulator) -> None:
    page = await scrape(
        patient(
            simulator.url,
            gpu_costs={"h100": 2, "l40s": 0.5},
            daily_emission=2952.5,
            alpha_price=0.0,
        )
    )
    assert {key: value for key, value in page.items() if key[0] in NAMES} == {
        series("chutes_gpu_cost_usd_per_hour", gpu="h100"): 2,
        series("chutes_gpu_cost_usd_per_hour", gpu="l40s"): 0.5,
        series("chutes_subnet_emission_alpha_per_day"): 2952.5,
        series("chutes_alpha_price_usd"): 0,
    }


async def test_without_figures_their_metrics_are_absent(simulator: Simulator) -> None:
    page = await scrape(patient(simulator.url))
    assert not [key for key in page if key[0] in NAMES]


def test_an_unknown_model_is_a_warning_that_lists_the_known_ones() -> None:
    (warning,) = make_settings(gpu_costs={"h100": 1, "rtx9000": 2, "h1000": 3}).warnings
    assert warning.startswith("--gpu.cost has an unknown GPU model: h1000, rtx9000. The known models are ")
    assert all(model in warning for model in GPU_MODELS)
    assert make_settings(gpu_costs=dict.fromkeys(GPU_MODELS, 1)).warnings == ()
