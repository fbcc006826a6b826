from __future__ import annotations

from chutes_exporter.collectors.nodes import COLLECTOR
from chutes_exporter.feeds.table import NODES
from tests.collectors.support import NOON_TEXT, collected


def test_a_gpu_without_a_time_of_verification_is_not_verified() -> None:
    made = collected(COLLECTOR, {NODES: [{"uuid": "g", "verified_at": None, "verification_error": "timeout"}]})
    assert made.samples == {
        "chutes_gpu_info{hotkey=me,gpu_id=g}": 1,
        "chutes_gpu_verified{hotkey=me,gpu_id=g}": 0,
        "chutes_gpu_verification_error_info{hotkey=me,gpu_id=g,error=timeout}": 1,
    }


def test_a_gpu_with_a_time_and_an_error_is_verified() -> None:
    made = collected(COLLECTOR, {NODES: [{"uuid": "g", "verified_at": NOON_TEXT, "verification_error": "timeout"}]})
    assert made.of("chutes_gpu_verified", "chutes_gpu_verification_error_info") == {
        "chutes_gpu_verified{hotkey=me,gpu_id=g}": 1,
        "chutes_gpu_verification_error_info{hotkey=me,gpu_id=g,error=timeout}": 1,
    }
