"""Pay of each chute on the signing miner's GPU models, for choosing the next deployment."""

from __future__ import annotations

from chutes_exporter.api.meaning import units_per_gpu_second
from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import CHUTES, NODES

METRICS = Metrics()
UNITS = METRICS.gauge(
    "chutes_chute_units_per_gpu_second",
    "Compute units that one GPU of this model earns per second in an instance of the chute that starts now. Only for "
    "models that the miner has and the chute supports. The API reports the value of the cheapest GPU that the chute "
    "allows. A more expensive GPU earns more, in proportion to its hourly rate. The exporter has a table of these "
    "rates from November 2026. For a model that is not in the table, the value is a minimum. Within 8 hours, a public "
    "instance falls to the value of the cheapest GPU.",
    ("hotkey", "gpu", "chute_id"),
    "GET /miner/chutes/: effective_compute_multiplier, node_selector; GET /miner/nodes/: gpu_identifier",
    changes="live",
)


def collect(answers: Answers, scope: Scope, out: Samples) -> None:
    """Price each of the miner's models on each chute."""
    models = sorted({gpu.gpu_identifier for gpu in answers[NODES] if gpu.gpu_identifier})
    for chute in distinct(answers[CHUTES], lambda chute: chute.chute_id, out):
        supported = (chute.node_selector and chute.node_selector.supported_gpus) or ()
        for model in models:
            if model in supported:
                out.add(UNITS, units_per_gpu_second(chute, model), scope.hotkey, model, chute.chute_id)


COLLECTOR = Collector(
    name="chute_pay",
    summary="what a GPU of each of the miner's models earns on each chute that runs on it",
    feeds=(CHUTES, NODES),
    metrics=METRICS,
    collect=collect,
    cost=Cost(chute=10),
)
