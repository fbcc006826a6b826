from __future__ import annotations

from chutes_exporter.collectors.chutes import SUPPORTED_GPUS
from chutes_exporter.feeds.table import CHUTES
from tests.collectors.support import collected


def test_a_model_that_is_listed_twice_is_one_series() -> None:
    answer = [{"chute_id": "c", "node_selector": {"supported_gpus": ["h100", "h100"]}}]
    made = collected(SUPPORTED_GPUS, {CHUTES: answer})
    assert made.samples == {"chutes_chute_supported_gpu_info{chute_id=c,gpu=h100}": 1}
    assert made.duplicates == 0
