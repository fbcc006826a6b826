"""The chutes: names, kinds and compute multipliers."""

from __future__ import annotations

from chutes_exporter.api.records import Chute
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Info, Row, Table
from chutes_exporter.feeds.definitions import CHUTES

CHUTE = Table[Chute](
    CHUTES,
    key="chute_id",
    of_chutes=True,
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
    chutes_chute_effective_compute_multiplier=Row(
        "Compute units per second of an instance started now on the cheapest GPU that the chute "
        "allows. More "
        "expensive GPUs earn more, in proportion to their hourly rate.",
        "effective_compute_multiplier",
    ),
)

COLLECTOR = Collector("chutes", "each chute's name, kind and compute multiplier", (CHUTE,))
