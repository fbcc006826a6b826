"""The chutes: names, requirements, compute multipliers, bounties, and the GPU models that each supports."""

from __future__ import annotations

from msgspec import UNSET

from chutes_exporter.collectors.base import Answers, Collector, Metrics, Samples, Scope, distinct
from chutes_exporter.feeds.table import CHUTES
from chutes_exporter.rules.bounties import bounty_age

METRICS = Metrics("GET /miner/chutes/", ("chute_id",))
_BYTES_PER_GB = 1e9

INFO = METRICS.declare(
    "chutes_chute_info",
    "The chute's name and kind.",
    "name, slug, version, image, standard_template, public, tee, disabled, preemptible",
    labels=("chute_id", "name", "slug", "version", "image", "template", "public", "tee", "disabled", "preemptible"),
)
GPUS = METRICS.declare(
    "chutes_chute_gpus",
    "Number of GPUs that an instance of the chute needs.",
    "node_selector.gpu_count",
)
MIN_VRAM = METRICS.declare(
    "chutes_chute_min_vram_bytes",
    "Minimum memory of each GPU (GB counted as 10^9 bytes).",
    "node_selector.min_vram_gb_per_gpu",
)
EFFECTIVE_MULTIPLIER = METRICS.declare(
    "chutes_chute_effective_compute_multiplier",
    "Compute units per second of an instance started now on the cheapest GPU that the chute allows. More expensive "
    "GPUs earn more, in proportion to their hourly rate.",
    "effective_compute_multiplier",
)
MULTIPLIER_FACTOR = METRICS.declare(
    "chutes_chute_compute_multiplier_factor",
    "Factors of the effective compute multiplier, as the API names them: base (what the GPUs earn), private, "
    "private_tee, integrated_subnet, urgency_boost, manual_boost, bounty_boost, tee. Factors that do not apply are "
    "absent.",
    "compute_multiplier_factors",
    labels=("chute_id", "factor"),
)
BOUNTY_AGE = METRICS.declare(
    "chutes_chute_bounty_age_seconds",
    "Age of the bounty for the chute's next instance at the time of the answer. Absent without a bounty. The service "
    "sends at most 28767 seconds, even for older bounties.",
    "bounty, which is 100 and 3 for each second",
)
CONCURRENCY = METRICS.declare(
    "chutes_chute_concurrency",
    "Maximum concurrent requests of an instance of the chute.",
    "concurrency",
)
MAX_INSTANCES = METRICS.declare(
    "chutes_chute_max_instances",
    "Maximum number of instances that the chute's owner allows.",
    "max_instances",
)
SCALING_THRESHOLD = METRICS.declare(
    "chutes_chute_scaling_threshold_ratio",
    "Utilization above which the chute gets more instances.",
    "scaling_threshold",
)
DISCOUNT = METRICS.declare(
    "chutes_chute_discount_ratio",
    "Discount on the price that users pay for the chute. It does not change the miners' earnings.",
    "discount",
)
SHUTDOWN_AFTER = METRICS.declare(
    "chutes_chute_shutdown_after_seconds",
    "Idle time after which a private instance of the chute is shut down.",
    "shutdown_after_seconds",
)

GPU_METRICS = Metrics("GET /miner/chutes/", ("chute_id", "gpu"))
SUPPORTED = GPU_METRICS.declare(
    "chutes_chute_supported_gpu_info",
    "A GPU model that the chute runs on.",
    "node_selector.supported_gpus",
)


def _collect(answers: Answers, _scope: Scope, out: Samples) -> None:
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


def _collect_gpus(answers: Answers, _scope: Scope, out: Samples) -> None:
    for chute in answers[CHUTES]:
        if chute.node_selector is not None:
            for gpu in dict.fromkeys(chute.node_selector.supported_gpus or ()):
                out.add(SUPPORTED, 1, chute.chute_id, gpu)


COLLECTOR = Collector(
    name="chutes",
    summary="every chute's name, requirements, compute multiplier and bounty",
    feeds=(CHUTES,),
    metrics=METRICS,
    collect=_collect,
    cost="19 for each chute",
)
SUPPORTED_GPUS = Collector(
    name="chute_gpus",
    summary="the GPU models that each chute runs on",
    feeds=(CHUTES,),
    metrics=GPU_METRICS,
    collect=_collect_gpus,
    cost="40 for each chute",
    default="off",
)
