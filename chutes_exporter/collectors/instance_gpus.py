"""The servers and GPUs on which each watched miner's instances run. It needs no key."""

from __future__ import annotations

from collections import Counter

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope
from chutes_exporter.feeds.table import MINER_GPUS

METRICS = Metrics("GET /nodes/?detailed=true&hotkey=HOTKEY", ("hotkey", "instance_id", "server_id", "gpu"))
GPUS = METRICS.declare(
    "chutes_instance_gpus",
    "GPUs that the instance holds on the server, in any state. An active instance without any GPU lost them, because "
    "its GPU or server was deleted. The service will purge it.",
    "provisioned",
)


def _collect(answers: Answers, scope: Scope, out: Samples) -> None:
    if not answers.complete():
        return
    gpus = Counter(
        (gpu.instance_id, gpu.server_id, gpu.gpu) for gpu in answers[MINER_GPUS] if gpu.hotkey == scope.hotkey
    )
    for labels, count in gpus.items():
        out.add(GPUS, count, scope.hotkey, *labels)


COLLECTOR = Collector(
    name="instance_gpus",
    summary="the server and the GPUs of each instance",
    feeds=(MINER_GPUS,),
    metrics=METRICS,
    collect=_collect,
    cost="1 for each instance",
    default="few",
)
