"""The chutes: names, requirements, compute multipliers, bounties."""

from __future__ import annotations

from chutes_exporter.api.records import Chute
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table
from chutes_exporter.feeds.table import CHUTES
from chutes_exporter.rules.bounties import bounty_age

CHUTE = Table[Chute](
    CHUTES,
    key="chute_id",
    chutes_chute_info=Info(
        "The chute's name and kind.",
        {
            "name": "name",
            "slug": "slug",
            "version": "version",
            "image": "image",
            "template": "standard_template",
            "public": "public",
            "tee": "tee",
            "disabled": "disabled",
            "preemptible": "preemptible",
        },
    ),
    chutes_chute_gpus=Row(
        "Number of GPUs that an instance of the chute needs.", "node_selector.gpu_count"
    ),
    chutes_chute_min_vram_bytes=Row(
        "Minimum memory of each GPU (GB counted as 10^9 bytes).",
        "node_selector.min_vram_gb_per_gpu",
        convert=lambda gigabytes: gigabytes * 1e9,
    ),
    chutes_chute_effective_compute_multiplier=Row(
        "Compute units per second of an instance started now on the cheapest GPU that the chute "
        "allows. More "
        "expensive GPUs earn more, in proportion to their hourly rate.",
        "effective_compute_multiplier",
    ),
    chutes_chute_compute_multiplier_factor=Row(
        "Factors of the effective compute multiplier, as the API names them: base (what the GPUs "
        "earn), private, "
        "private_tee, integrated_subnet, urgency_boost, manual_boost, bounty_boost, tee. Factors "
        "that do not apply "
        "are absent.",
        "compute_multiplier_factors",
        by="factor",
    ),
    chutes_chute_bounty_age_seconds=Row(
        "Age of the bounty for the chute's next instance at the time of the answer. Absent "
        "without a bounty. The "
        "service sends at most 28767 seconds, even for older bounties.",
        bounty_age,
    ),
    chutes_chute_concurrency=Row(
        "Maximum concurrent requests of an instance of the chute.", "concurrency"
    ),
    chutes_chute_max_instances=Row(
        "Maximum number of instances that the chute's owner allows.", "max_instances"
    ),
    chutes_chute_scaling_threshold_ratio=Row(
        "Utilization above which the chute gets more instances.", "scaling_threshold"
    ),
    chutes_chute_discount_ratio=Row(
        "Discount on the price that users pay for the chute. It does not change the miners' "
        "earnings.",
        "discount",
    ),
    chutes_chute_shutdown_after_seconds=Row(
        "Idle time after which a private instance of the chute is shut down.",
        "shutdown_after_seconds",
    ),
)

COLLECTOR = Collector(
    "chutes", "every chute's name, requirements, compute multiplier and bounty", (CHUTE,)
)
