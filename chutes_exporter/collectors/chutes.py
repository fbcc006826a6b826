"""The chutes: names, kinds, compute multipliers, and what their owners set."""

from __future__ import annotations

from chutes_exporter.api.records import Chute
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table
from chutes_exporter.feeds.definitions import CHUTES


def _models(chute: Chute) -> list[str]:
    """Return the models of GPUs that a chute runs on, none if they are unknown."""
    if chute.node_selector is None:
        return []
    return chute.node_selector.supported_gpus or []


CHUTE = Table[Chute](
    CHUTES,
    key="chute_id",
    of_chutes=True,
    chutes_chute_info=Info(
        "The chute's name, version and kind.",
        {
            "name": "name",
            "slug": "slug",
            "version": "version",
            "chutes_version": "chutes_version",
            "image": "image",
            "template": "standard_template",
            "public": "public",
            "tee": "tee",
            "disabled": "disabled",
            "preemptible": "preemptible",
        },
    ),
    chutes_chute_effective_compute_multiplier=Row(
        "Compute units per second of an instance started now on the cheapest GPU that the chute "
        "allows. More "
        "expensive GPUs earn more, in proportion to their hourly rate.",
        "effective_compute_multiplier",
    ),
)

DETAIL = Table[Chute](
    CHUTES,
    key="chute_id",
    of_chutes=True,
    chutes_chute_gpus=Row(
        "Number of GPUs that an instance of the chute needs.", "node_selector.gpu_count"
    ),
    chutes_chute_supported_gpu=Row(
        "1 for each model of GPUs that the chute runs on.",
        lambda chute: dict.fromkeys(_models(chute), 1),
        by="gpu",
    ),
    chutes_chute_min_vram_bytes=Row(
        "Minimum memory of each GPU (GB counted as 10^9 bytes).",
        "node_selector.min_vram_gb_per_gpu",
        convert=lambda gigabytes: gigabytes * 1e9,
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
    chutes_chute_shutdown_after_seconds=Row(
        "Idle time after which a private instance of the chute is shut down.",
        "shutdown_after_seconds",
    ),
    chutes_chute_discount_ratio=Row(
        "Discount on the price that users pay for the chute. It does not change the miners' "
        "earnings.",
        "discount",
    ),
    chutes_chute_compute_multiplier_factor=Row(
        "Factors of the effective compute multiplier, as the API names them: base (what the GPUs "
        "earn), private, private_tee, integrated_subnet, urgency_boost, manual_boost, "
        "bounty_boost, tee. Factors that do not apply are absent.",
        "compute_multiplier_factors",
        by="factor",
    ),
    chutes_chute_flag=Row(
        "Whether the chute's owner or the service set a flag (1), as the API names them: "
        "allow_external_egress, encrypted_fs, lock_modules, immutable, openrouter.",
        {
            "allow_external_egress": "allow_external_egress",
            "encrypted_fs": "encrypted_fs",
            "lock_modules": "lock_modules",
            "immutable": "immutable",
            "openrouter": "openrouter",
        },
        by="flag",
    ),
    chutes_chute_created_timestamp_seconds=Row("When the chute was created.", "created_at"),
    chutes_chute_updated_timestamp_seconds=Row("When the chute was last changed.", "updated_at"),
)

COLLECTOR = Collector("chutes", "each chute's name, kind and compute multiplier", (CHUTE,))
DETAILS = Collector(
    "chute_details",
    "each chute's requirements, limits and flags, and the factors of its multiplier",
    (DETAIL,),
    default="off",
)
