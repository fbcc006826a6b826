from __future__ import annotations

from chutes_exporter.collectors.chute_gpus import COLLECTOR
from chutes_exporter.feeds.table import CHUTES
from tests.collectors.support import UNREADABLE, collected


def test_each_model_that_a_chute_runs_on_is_a_series() -> None:
    answer = [
        {"chute_id": "c", "node_selector": {"supported_gpus": ["h100", "h200"]}},
        {"chute_id": "d", "node_selector": {"supported_gpus": ["h100"]}},
    ]
    assert collected(COLLECTOR, {CHUTES: answer}).samples == {
        "chutes_chute_supported_gpu_info{chute_id=c,gpu=h100}": 1,
        "chutes_chute_supported_gpu_info{chute_id=c,gpu=h200}": 1,
        "chutes_chute_supported_gpu_info{chute_id=d,gpu=h100}": 1,
    }


def test_a_chute_without_a_selector_or_a_list_has_no_series() -> None:
    answer = [
        {"chute_id": "c"},
        {"chute_id": "d", "node_selector": None},
        {"chute_id": "e", "node_selector": {"supported_gpus": None}},
        {"chute_id": "f", "node_selector": {"supported_gpus": []}},
    ]
    assert collected(COLLECTOR, {CHUTES: answer}).samples == {}


def test_a_model_that_is_listed_twice_is_one_series() -> None:
    answer = [{"chute_id": "c", "node_selector": {"supported_gpus": ["h100", "h100"]}}]
    made = collected(COLLECTOR, {CHUTES: answer})
    assert made.samples == {"chutes_chute_supported_gpu_info{chute_id=c,gpu=h100}": 1}
    assert made.duplicates == 0


def test_the_chutes_that_are_known_stay_where_the_answer_is_incomplete() -> None:
    chute = {"chute_id": "c", "node_selector": {"supported_gpus": ["h100"]}}
    expected = {"chutes_chute_supported_gpu_info{chute_id=c,gpu=h100}": 1}
    assert collected(COLLECTOR, {CHUTES: [chute, UNREADABLE]}).samples == expected
    assert collected(COLLECTOR, {CHUTES: [chute]}, doubted=[CHUTES]).samples == expected
