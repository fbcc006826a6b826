from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.collectors.chute_pay import COLLECTOR
from chutes_exporter.feeds.table import CHUTES, NODES
from tests.collectors.support import UNREADABLE, collected

if TYPE_CHECKING:
    from chutes_exporter.feeds.feed import Feed

UNITS = "chutes_chute_units_per_gpu_second"
GPUS = [{"uuid": "1", "gpu_identifier": "h200"}, {"uuid": "2", "gpu_identifier": "h200"}]


def chute(chute_id: str, *models: str, gpus: int = 2) -> dict[str, Any]:
    selector = {"gpu_count": gpus, "supported_gpus": list(models)}
    return {"chute_id": chute_id, "node_selector": selector, "effective_compute_multiplier": 3.0}


def test_each_model_of_the_miner_is_priced_on_each_chute_that_runs_on_it() -> None:
    gpus = [*GPUS, {"uuid": "3", "gpu_identifier": "l40s"}, {"uuid": "4"}]
    chutes = [chute("c", "l40s", "h200"), chute("d", "h200", gpus=1), chute("e", "b200")]
    assert collected(COLLECTOR, {CHUTES: chutes, NODES: gpus}).samples == {
        f"{UNITS}{{hotkey=me,gpu=l40s,chute_id=c}}": 1.5,
        f"{UNITS}{{hotkey=me,gpu=h200,chute_id=c}}": pytest.approx(1.5 * 2.75 / 0.85),
        f"{UNITS}{{hotkey=me,gpu=h200,chute_id=d}}": 3.0,
    }


def test_a_chute_without_models_or_pay_has_no_series() -> None:
    chutes = [
        {"chute_id": "c"},
        {"chute_id": "d", "node_selector": None},
        {"chute_id": "e", "node_selector": {"gpu_count": 1, "supported_gpus": None}},
        {"chute_id": "f", "node_selector": {"gpu_count": 1, "supported_gpus": ["h200"]}},
    ]
    assert collected(COLLECTOR, {CHUTES: chutes, NODES: GPUS}).samples == {}


def test_a_chute_that_is_listed_twice_is_counted_as_a_duplicate() -> None:
    made = collected(COLLECTOR, {CHUTES: [chute("c", "h200", "h200"), chute("c", "h200")], NODES: GPUS})
    assert made.samples == {f"{UNITS}{{hotkey=me,gpu=h200,chute_id=c}}": 1.5}
    assert made.duplicates == 1


def test_known_pay_stays_if_an_answer_is_incomplete() -> None:
    expected = {f"{UNITS}{{hotkey=me,gpu=h200,chute_id=c}}": 1.5}
    answers: dict[Feed[Any], Any] = {CHUTES: [chute("c", "h200"), UNREADABLE], NODES: [*GPUS, UNREADABLE]}
    assert collected(COLLECTOR, answers).samples == expected
    assert collected(COLLECTOR, {CHUTES: [chute("c", "h200")], NODES: GPUS}, doubted=[CHUTES]).samples == expected
