"""GPUs of the whole platform by model: in an instance, and idle."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope
from chutes_exporter.feeds.table import PLATFORM_GPUS

METRICS = Metrics("GET /nodes/", ("gpu", "state"))
GPUS = METRICS.declare(
    "chutes_platform_gpus",
    "GPUs of the model of all miners: provisioned (in an instance of any state), or idle (in none, verified or not).",
)


def _collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    for model in answers[PLATFORM_GPUS]:
        out.add(GPUS, model.provisioned, model.gpu, "provisioned")
        out.add(GPUS, model.idle, model.gpu, "idle")


COLLECTOR = Collector(
    name="platform_gpus",
    summary="the platform's GPUs by model, in an instance or idle",
    feeds=(PLATFORM_GPUS,),
    metrics=METRICS,
    collect=_collect,
    cost="2 for each GPU model",
)
