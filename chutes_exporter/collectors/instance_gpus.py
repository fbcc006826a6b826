"""The servers and GPUs on which each watched miner's instances run. It needs no key."""

from __future__ import annotations

from collections import Counter

from chutes_exporter.collectors.base import Answers, Collector, Miners, Part, Samples, metric_of
from chutes_exporter.feeds.table import MINER_GPUS

GPUS = metric_of(MINER_GPUS)(
    "chutes_instance_gpus",
    "GPUs that the instance holds on the server, in any state. An active instance without any GPU "
    "lost them, because "
    "its GPU or server was deleted. The service may purge it.",
    ("hotkey", "instance_id", "server_id", "gpu"),
)


def _collect(answers: Answers, miners: Miners, out: Samples) -> None:
    gpus = Counter(
        (gpu.instance_id, gpu.server_id, gpu.gpu)
        for gpu in answers[MINER_GPUS]
        if gpu.hotkey == miners.hotkey
    )
    for labels, count in gpus.items():
        out.add(GPUS, count, miners.hotkey, *labels)


COLLECTOR = Collector(
    "instance_gpus",
    "the server and the GPUs of each instance",
    (Part((MINER_GPUS,), (GPUS,), _collect),),
    default="few",
)
