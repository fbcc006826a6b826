"""Active instances of the whole platform, by miner and by chute."""

from __future__ import annotations

from functools import partial

from chutes_exporter.api.records import ActiveInstance
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Table, Total
from chutes_exporter.feeds.definitions import ACTIVE_INSTANCES
from chutes_exporter.rules.sums import total

INSTANCE = Table[ActiveInstance](
    ACTIVE_INSTANCES,
    key="instance_id",
    miner="miner_hotkey",
    chutes_platform_active_instances=Total("Active and verified instances of all miners.", len),
    chutes_platform_active_compute_multiplier=Total(
        "Sum of the compute multipliers of all miners' active instances, which is their "
        "compute units per second.",
        total,
        of="compute_multiplier",
    ),
    chutes_miner_active_instances=Total(
        "Active and verified instances of the miner. 0 is only exported for watched miners.",
        len,
        by="miner_hotkey",
        label="hotkey",
    ),
    chutes_miner_active_compute_multiplier=Total(
        "Sum of the compute multipliers of the miner's active instances, which is its compute "
        "units per second.",
        total,
        of="compute_multiplier",
        by="miner_hotkey",
        label="hotkey",
    ),
    chutes_miner_last_activation_timestamp_seconds=Total(
        "When the newest of the miner's active instances became active.",
        partial(max, default=None),
        of="activated_at",
        by="miner_hotkey",
        label="hotkey",
    ),
)

COLLECTOR = Collector(
    "active_instances", "active instances of the whole platform, by miner and by chute", (INSTANCE,)
)
