"""The chutes: names, requirements, compute multipliers and bounties."""

from __future__ import annotations

from msgspec import UNSET

from chutes_exporter.api.meaning import bounty_age
from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.samples import Metrics, Samples
from chutes_exporter.feeds.table import CHUTES

METRICS = Metrics()
_SOURCE = "GET /miner/chutes/"
_CHUTE = ("chute_id",)
_BYTES_PER_GB = 1e9

INFO = METRICS.info(
    "chutes_chute_info",
    "The chute's name and kind.",
    ("chute_id", "name", "slug", "version", "image", "template", "public", "tee", "disabled", "preemptible"),
    f"{_SOURCE}: name, slug, version, image, standard_template, public, tee, disabled, preemptible",
    changes="at a deployment",
)
GPUS = METRICS.gauge(
    "chutes_chute_gpus",
    "Number of GPUs that an instance of the chute needs.",
    _CHUTE,
    f"{_SOURCE}: node_selector.gpu_count",
    changes="at a deployment",
)
MIN_VRAM = METRICS.gauge(
    "chutes_chute_min_vram_bytes",
    "Minimum memory of each GPU (GB counted as 10^9 bytes).",
    _CHUTE,
    f"{_SOURCE}: node_selector.min_vram_gb_per_gpu",
    changes="at a deployment",
)
EFFECTIVE_MULTIPLIER = METRICS.gauge(
    "chutes_chute_effective_compute_multiplier",
    "Compute units per second of an instance started now on the cheapest GPU that the chute allows. More expensive "
    "GPUs earn more, in proportion to their hourly rate.",
    _CHUTE,
    f"{_SOURCE}: effective_compute_multiplier",
    changes="live",
)
MULTIPLIER_FACTOR = METRICS.gauge(
    "chutes_chute_compute_multiplier_factor",
    "Factors of the effective compute multiplier, as the API names them: base (what the GPUs earn), private, "
    "private_tee, integrated_subnet, urgency_boost, manual_boost, bounty_boost, tee. Factors that do not apply are "
    "absent.",
    ("chute_id", "factor"),
    f"{_SOURCE}: compute_multiplier_factors",
)
BOUNTY_AGE = METRICS.gauge(
    "chutes_chute_bounty_age_seconds",
    "Age of the bounty for the chute's next instance at the time of the answer. Absent without a bounty. The service "
    "sends at most 28767 seconds, even for older bounties.",
    _CHUTE,
    f"{_SOURCE}: bounty, which is 100 and 3 for each second",
    changes="every second",
)
CONCURRENCY = METRICS.gauge(
    "chutes_chute_concurrency",
    "Maximum concurrent requests of an instance of the chute.",
    _CHUTE,
    f"{_SOURCE}: concurrency",
    changes="at a deployment",
)
MAX_INSTANCES = METRICS.gauge(
    "chutes_chute_max_instances",
    "Maximum number of instances that the chute's owner allows.",
    _CHUTE,
    f"{_SOURCE}: max_instances",
    changes="at a deployment",
)
SCALING_THRESHOLD = METRICS.gauge(
    "chutes_chute_scaling_threshold_ratio",
    "Utilization above which the chute gets more instances.",
    _CHUTE,
    f"{_SOURCE}: scaling_threshold",
    changes="at a deployment",
)
DISCOUNT = METRICS.gauge(
    "chutes_chute_discount_ratio",
    "Discount on the price that users pay for the chute. It does not change the miners' earnings.",
    _CHUTE,
    f"{_SOURCE}: discount",
    changes="by hand",
)
SHUTDOWN_AFTER = METRICS.gauge(
    "chutes_chute_shutdown_after_seconds",
    "Idle time after which a private instance of the chute is shut down.",
    _CHUTE,
    f"{_SOURCE}: shutdown_after_seconds",
    changes="at a deployment",
)


def collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    """Add all chutes."""
    for chute in distinct(answers[CHUTES], lambda chute: chute.chute_id, out):
        key = chute.chute_id
        out.add(
            INFO,
            1,
            key,
            chute.name,
            chute.slug,
            chute.version,
            chute.image,
            chute.standard_template,
            chute.public,
            chute.tee,
            None if chute.disabled is UNSET else chute.disabled,
            chute.preemptible,
        )
        if (selector := chute.node_selector) is not None:
            out.add(GPUS, selector.gpu_count, key)
            if selector.min_vram_gb_per_gpu is not None:
                out.add(MIN_VRAM, selector.min_vram_gb_per_gpu * _BYTES_PER_GB, key)
        out.add(EFFECTIVE_MULTIPLIER, chute.effective_compute_multiplier, key)
        for factor, value in (chute.compute_multiplier_factors or {}).items():
            out.add(MULTIPLIER_FACTOR, value, key, factor)
        out.add(BOUNTY_AGE, bounty_age(chute), key)
        out.add(CONCURRENCY, chute.concurrency, key)
        out.add(MAX_INSTANCES, chute.max_instances, key)
        out.add(SCALING_THRESHOLD, chute.scaling_threshold, key)
        out.add(DISCOUNT, chute.discount, key)
        out.add(SHUTDOWN_AFTER, chute.shutdown_after_seconds, key)


COLLECTOR = Collector(
    name="chutes",
    summary="every chute's name, requirements, compute multiplier and bounty",
    feeds=(CHUTES,),
    metrics=METRICS,
    collect=collect,
    cost=Cost(chute=19),
)
