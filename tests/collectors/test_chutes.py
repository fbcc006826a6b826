from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.chutes import COLLECTOR
from chutes_exporter.feeds.table import CHUTES
from tests.collectors.support import UNREADABLE, collected


def test_a_chute_has_its_name_its_requirements_and_what_it_pays() -> None:
    chute = {
        "chute_id": "c",
        "name": "org/model",
        "slug": "org-model",
        "version": "v1",
        "image": "org/vllm:1.0",
        "standard_template": "vllm",
        "public": True,
        "tee": False,
        "disabled": False,
        "preemptible": True,
        "node_selector": {"gpu_count": 8, "min_vram_gb_per_gpu": 80},
        "effective_compute_multiplier": 12.5,
        "compute_multiplier_factors": {"base": 5.0, "urgency_boost": 2.5, "tee": None},
        "bounty": 3700,
        "concurrency": 32,
        "max_instances": 10,
        "scaling_threshold": 0.75,
        "discount": 0.1,
        "shutdown_after_seconds": 300,
    }
    assert collected(COLLECTOR, {CHUTES: [chute]}).samples == {
        "chutes_chute_info{chute_id=c,name=org/model,slug=org-model,version=v1,image=org/vllm:1.0,template=vllm,"
        "public=true,tee=false,disabled=false,preemptible=true}": 1,
        "chutes_chute_gpus{chute_id=c}": 8,
        "chutes_chute_min_vram_bytes{chute_id=c}": 80e9,
        "chutes_chute_effective_compute_multiplier{chute_id=c}": 12.5,
        "chutes_chute_compute_multiplier_factor{chute_id=c,factor=base}": 5,
        "chutes_chute_compute_multiplier_factor{chute_id=c,factor=urgency_boost}": 2.5,
        "chutes_chute_bounty_age_seconds{chute_id=c}": 1200,
        "chutes_chute_concurrency{chute_id=c}": 32,
        "chutes_chute_max_instances{chute_id=c}": 10,
        "chutes_chute_scaling_threshold_ratio{chute_id=c}": 0.75,
        "chutes_chute_discount_ratio{chute_id=c}": 0.1,
        "chutes_chute_shutdown_after_seconds{chute_id=c}": 300,
    }


@pytest.mark.parametrize(
    "selector", [{}, {"node_selector": None}, {"node_selector": {"gpu_count": None, "min_vram_gb_per_gpu": None}}]
)
def test_a_field_that_is_missing_or_null_makes_no_sample(selector: dict[str, Any]) -> None:
    assert collected(COLLECTOR, {CHUTES: [{"chute_id": "c"} | selector]}).samples == {
        "chutes_chute_info{chute_id=c}": 1
    }


@pytest.mark.parametrize(("bounty", "age"), [(100, 0), (103, 1), (86400, 86300 / 3)])
def test_the_amount_of_a_bounty_is_its_age(bounty: int, age: float) -> None:
    made = collected(COLLECTOR, {CHUTES: [{"chute_id": "c", "bounty": bounty}]})
    assert made.of("chutes_chute_bounty_age_seconds") == {"chutes_chute_bounty_age_seconds{chute_id=c}": age}


def test_a_chute_without_a_bounty_has_no_age_of_one() -> None:
    made = collected(COLLECTOR, {CHUTES: [{"chute_id": "c", "bounty": None}]})
    assert made.of("chutes_chute_bounty_age_seconds") == {}


def test_the_first_record_of_a_chute_counts() -> None:
    made = collected(COLLECTOR, {CHUTES: [{"chute_id": "c", "concurrency": 1}, {"chute_id": "c", "concurrency": 2}]})
    assert made.samples == {"chutes_chute_info{chute_id=c}": 1, "chutes_chute_concurrency{chute_id=c}": 1}
    assert made.duplicates == 1


def test_the_chutes_that_are_known_stay_where_the_answer_is_incomplete() -> None:
    expected = {"chutes_chute_info{chute_id=c}": 1}
    assert collected(COLLECTOR, {CHUTES: [{"chute_id": "c"}, UNREADABLE]}).samples == expected
    assert collected(COLLECTOR, {CHUTES: [{"chute_id": "c"}]}, doubted=[CHUTES]).samples == expected
