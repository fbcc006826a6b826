"""Chutes for which a new instance of the miner gets no boost.

The service dropped the rule in May 2026, but its reference still names the endpoint.
"""

from __future__ import annotations

from chutes_exporter.api.records import ThrashCooldown
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table
from chutes_exporter.feeds.definitions import THRASH_COOLDOWNS

COOLDOWN = Table[ThrashCooldown](
    THRASH_COOLDOWNS,
    key="chute_id",
    chutes_thrash_cooldown_expires_timestamp_seconds=Row(
        "When the cooldown of the chute ends. Until then, a new instance of the miner gets "
        "neither urgency boost nor bounty, because the miner lost an active one. Services since "
        "May 2026 always answer with an empty list, so there is no series.",
        "cooldown_expires_at",
    ),
)

COLLECTOR = Collector(
    "thrash_cooldowns", "chutes in a cooldown, of services before May 2026", (COOLDOWN,)
)
