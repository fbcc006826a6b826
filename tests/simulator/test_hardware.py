from __future__ import annotations

import pytest

from chutes_exporter.simulator.hardware import MODELS


def test_a_gpu_earns_its_hourly_rate_over_the_rate_of_the_dearest_model() -> None:
    assert MODELS["b200"].multiplier == 1
    assert MODELS["4090"].multiplier == pytest.approx(0.4 / 4.5)
    assert all(0 < model.multiplier <= 1 for model in MODELS.values())


def test_the_models_differ_in_their_names() -> None:
    assert len({model.name for model in MODELS.values()}) == len(MODELS)
