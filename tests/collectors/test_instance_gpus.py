from __future__ import annotations

from chutes_exporter.collectors.instance_gpus import COLLECTOR
from chutes_exporter.feeds.table import MINER_GPUS
from tests.collectors.support import collected


def test_only_the_miners_own_gpus_count_also_on_an_unknown_server() -> None:
    gpu = {"gpu": "h200", "server_id": None, "chute": {"chute_id": "c", "instance_id": "i"}}
    answer = {hotkey: {"provisioned": [gpu, gpu]} for hotkey in ("me", "other")}
    assert collected(COLLECTOR, {MINER_GPUS: answer}) == {
        "chutes_instance_gpus{hotkey=me,instance_id=i,gpu=h200}": 2
    }
