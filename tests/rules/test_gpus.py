from __future__ import annotations

import json

import pytest

from chutes_exporter.api.records import Chute, NodeSelector
from chutes_exporter.rules.gpus import GPU_MODELS, nvidia_uuid, units_per_gpu_second
from tests.support import RECORDINGS, recording


def test_the_known_gpu_models_are_those_of_the_service() -> None:
    assert {*GPU_MODELS} == json.loads(recording(RECORDINGS / "extra", "nodes_supported")).keys()


@pytest.mark.parametrize(
    ("gpu_id", "uuid"),
    [
        ("2791c6267cdced2a19679d6341469e5f", "GPU-2791c626-7cdc-ed2a-1967-9d6341469e5f"),
        ("2791C6267CDCED2A19679D6341469E5F", "GPU-2791c626-7cdc-ed2a-1967-9d6341469e5f"),
        ("GPU-2791c626-7cdc-ed2a-1967-9d6341469e5f", "GPU-2791c626-7cdc-ed2a-1967-9d6341469e5f"),
        ("2791c6267cdced2a19679d6341469e5", None),
        ("2791c6267cdced2a19679d6341469e5g", None),
        ("2791c6267cdced2a19679d6341469e5f\n", None),
        ("", None),
    ],
)
def test_gpu_ids_get_the_format_of_nvidia(gpu_id: str, uuid: str | None) -> None:
    assert nvidia_uuid(gpu_id) == uuid


def priced(gpus: int | None, multiplier: float | None, *models: str) -> Chute:
    selector = NodeSelector(gpu_count=gpus, supported_gpus=list(models))
    return Chute("c", node_selector=selector, effective_compute_multiplier=multiplier)


RATES = {"h200": 2.75, "l40s": 0.85}


def test_a_dearer_gpu_earns_in_proportion_to_its_rate() -> None:
    chute = priced(4, 2.0, "h200", "l40s")
    assert units_per_gpu_second(chute, "l40s", RATES) == 0.5
    assert units_per_gpu_second(chute, "h200", RATES) == pytest.approx(0.5 * 2.75 / 0.85)


def test_without_the_rates_the_pay_is_known_only_if_the_chute_allows_one_model() -> None:
    assert units_per_gpu_second(priced(2, 1.0, "h200"), "h200", {}) == 0.5
    assert units_per_gpu_second(priced(2, 1.0, "h200", "l40s"), "l40s", {"l40s": 0.85}) is None


@pytest.mark.parametrize(
    "chute",
    [
        priced(None, 1.0, "h200"),
        priced(0, 1.0, "h200"),
        priced(-1, 1.0, "h200"),
        priced(1, None, "h200"),
        priced(1, 1.0, "l40s"),
        Chute("c"),
    ],
)
def test_without_gpus_a_multiplier_or_the_model_the_pay_is_unknown(chute: Chute) -> None:
    assert units_per_gpu_second(chute, "h200", RATES) is None
