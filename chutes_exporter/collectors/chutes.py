"""The chutes themselves: names to join with, what they ask for and what they pay."""

from __future__ import annotations

from chutes_exporter.collectors.base import Answers, Collector, Cost, Scope, distinct
from chutes_exporter.collectors.metrics import INVOCATIONS
from chutes_exporter.metric import Metric, Samples, info
from chutes_exporter.sources import CHUTES

_SOURCE = "GET /miner/chutes/"
_CHUTE = ("chute_id",)
_BYTES_PER_GB = 1e9

INFO = info(
    "chutes_chute_info",
    "The chute's name and kind.",
    ("chute_id", "name", "slug", "version", "image", "template", "public", "tee", "disabled", "preemptible"),
    f"{_SOURCE}: name, slug, version, image, standard_template, public, tee, disabled, preemptible",
)
GPUS = Metric(
    "chutes_chute_gpus",
    "GPUs that an instance of the chute takes.",
    _CHUTE,
    f"{_SOURCE}: node_selector.gpu_count",
)
MIN_VRAM = Metric(
    "chutes_chute_min_vram_bytes",
    "Memory that each of its GPUs must have (GB counted as 10^9 bytes).",
    _CHUTE,
    f"{_SOURCE}: node_selector.min_vram_gb_per_gpu",
)
EFFECTIVE_MULTIPLIER = Metric(
    "chutes_chute_effective_compute_multiplier",
    "The compute multiplier that an instance started now would earn by.",
    _CHUTE,
    f"{_SOURCE}: effective_compute_multiplier",
)
MULTIPLIER_FACTOR = Metric(
    "chutes_chute_compute_multiplier_factor",
    "What the effective compute multiplier is the product of: base (what the GPUs earn), urgency_boost, bounty_boost, "
    "tee, private, manual_boost and others, as the API names them.",
    ("chute_id", "factor"),
    f"{_SOURCE}: compute_multiplier_factors",
)
BOUNTY = Metric(
    "chutes_chute_bounty",
    "Amount of the bounty offered for the chute's next instance, in the API's own points; absent where there is none.",
    _CHUTE,
    f"{_SOURCE}: bounty",
)
CONCURRENCY = Metric(
    "chutes_chute_concurrency",
    "Requests that an instance of the chute takes at once.",
    _CHUTE,
    f"{_SOURCE}: concurrency",
)
MAX_INSTANCES = Metric(
    "chutes_chute_max_instances", "Most instances the chute may have.", _CHUTE, f"{_SOURCE}: max_instances"
)
SCALING_THRESHOLD = Metric(
    "chutes_chute_scaling_threshold_ratio",
    "Utilisation above which the chute is given more instances.",
    _CHUTE,
    f"{_SOURCE}: scaling_threshold",
)
DISCOUNT = Metric("chutes_chute_discount_ratio", "Discount on the chute's price.", _CHUTE, f"{_SOURCE}: discount")
SHUTDOWN_AFTER = Metric(
    "chutes_chute_shutdown_after_seconds",
    "Idle time after which the chute is shut down.",
    _CHUTE,
    f"{_SOURCE}: shutdown_after_seconds",
)


def collect(answers: Answers, _scope: Scope, out: Samples) -> None:
    """Translate all chutes."""
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
            chute.disabled,
            chute.preemptible,
        )
        if (selector := chute.node_selector) is not None:
            out.add(GPUS, selector.gpu_count, key)
            if selector.min_vram_gb_per_gpu is not None:
                out.add(MIN_VRAM, selector.min_vram_gb_per_gpu * _BYTES_PER_GB, key)
        out.add(EFFECTIVE_MULTIPLIER, chute.effective_compute_multiplier, key)
        for factor, value in (chute.compute_multiplier_factors or {}).items():
            out.add(MULTIPLIER_FACTOR, value, key, factor)
        out.add(BOUNTY, chute.bounty, key)
        out.add(CONCURRENCY, chute.concurrency, key)
        out.add(MAX_INSTANCES, chute.max_instances, key)
        out.add(SCALING_THRESHOLD, chute.scaling_threshold, key)
        out.add(DISCOUNT, chute.discount, key)
        out.add(SHUTDOWN_AFTER, chute.shutdown_after_seconds, key)
        out.add(INVOCATIONS, chute.invocation_count, key, "1d")


COLLECTOR = Collector(
    name="chutes",
    summary="every chute's name, requirements, compute multiplier and bounty",
    sources=(CHUTES,),
    metrics=(
        INFO,
        GPUS,
        MIN_VRAM,
        EFFECTIVE_MULTIPLIER,
        MULTIPLIER_FACTOR,
        BOUNTY,
        CONCURRENCY,
        MAX_INSTANCES,
        SCALING_THRESHOLD,
        DISCOUNT,
        SHUTDOWN_AFTER,
        INVOCATIONS,
    ),
    collect=collect,
    cost=Cost(chute=20),
)
