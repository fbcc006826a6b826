"""GPU models that each chute supports. Off by default because it is large."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import CHUTES

METRICS = Metrics()
SUPPORTED = METRICS.info(
    "chutes_chute_supported_gpu_info",
    "A GPU model that the chute runs on.",
    ("chute_id", "gpu"),
    "GET /miner/chutes/: node_selector.supported_gpus",
    changes="at a deployment",
)


def collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    """Add the GPU models of all chutes."""
    for chute in answers[CHUTES]:
        if chute.node_selector is not None:
            for gpu in dict.fromkeys(chute.node_selector.supported_gpus or ()):
                out.add(SUPPORTED, 1, chute.chute_id, gpu)


COLLECTOR = Collector(
    name="chute_gpus",
    summary="the GPU models that each chute runs on",
    feeds=(CHUTES,),
    metrics=METRICS,
    collect=collect,
    cost=Cost(chute=40),
    default="off",
)
