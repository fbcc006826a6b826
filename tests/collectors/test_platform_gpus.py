from __future__ import annotations

import pytest

from chutes_exporter.api.errors import CutOffError
from chutes_exporter.collectors.platform import PLATFORM_GPUS_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import PLATFORM_GPUS
from tests.collectors.support import answer, collected


def test_a_model_that_cannot_be_read_costs_only_itself() -> None:
    models = {"h200": {"provisioned": 5, "idle": 3}, "b200": {"idle": "x"}, "l4": {"idle": 1}}
    assert collected(COLLECTOR, {PLATFORM_GPUS: models}) == {
        "chutes_platform_gpus{gpu=h200,state=provisioned}": 5,
        "chutes_platform_gpus{gpu=h200,state=idle}": 3,
        "chutes_platform_gpus{gpu=l4,state=idle}": 1,
    }


def test_an_answer_without_models_is_refused_as_cut_off() -> None:
    with pytest.raises(CutOffError):
        answer(PLATFORM_GPUS, {})
