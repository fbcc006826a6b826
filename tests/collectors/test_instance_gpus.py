from __future__ import annotations

from typing import Any

from chutes_exporter.collectors.instance_gpus import COLLECTOR
from chutes_exporter.feeds.table import MINER_GPUS
from tests.collectors.support import Collected, collected


def gpu(instance_id: str, server_id: str | None = "s", model: str = "h200") -> dict[str, Any]:
    return {"gpu": model, "server_id": server_id, "chute": {"chute_id": "c", "instance_id": instance_id}}


def run(*gpus: Any, hotkey: str = "me", **options: Any) -> Collected:
    return collected(COLLECTOR, {MINER_GPUS: {hotkey: {"provisioned": list(gpus), "idle": {}}}}, **options)


def test_the_gpus_of_an_instance_are_counted_by_server_and_model() -> None:
    assert run(gpu("i"), gpu("i"), gpu("i", "t"), gpu("j", None, "b200")).samples == {
        "chutes_instance_gpus{hotkey=me,instance_id=i,server_id=s,gpu=h200}": 2,
        "chutes_instance_gpus{hotkey=me,instance_id=i,server_id=t,gpu=h200}": 1,
        "chutes_instance_gpus{hotkey=me,instance_id=j,gpu=b200}": 1,
    }


def test_a_miner_without_gpus_in_instances_has_no_sample() -> None:
    assert run().samples == collected(COLLECTOR, {MINER_GPUS: {}}).samples == {}
    assert run(gpu("i"), hotkey="other").samples == {}
