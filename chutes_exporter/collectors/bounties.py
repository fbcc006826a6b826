"""Open bounties: their start, their end, and their factor of the multiplier."""

from __future__ import annotations

from chutes_exporter.api.records import Bounty
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table, Total
from chutes_exporter.feeds.definitions import BOUNTIES
from chutes_exporter.rules.money import bounty_boost, bounty_expires_at

BOUNTY = Table[Bounty](
    BOUNTIES,
    key="chute_id",
    of_chutes=True,
    chutes_bounty_created_timestamp_seconds=Row(
        "When the open bounty of the chute was created. The chute may be gone.", "created_at"
    ),
    chutes_bounty_expires_timestamp_seconds=Row(
        "When the open bounty of the chute expires, accurate to 2 seconds. It ends earlier if an "
        "instance becomes active and takes it.",
        bounty_expires_at,
    ),
    chutes_bounty_boost_ratio=Row(
        "Factor by which the bounty multiplies the compute multiplier of an instance that is "
        "activated at the time of "
        "the answer. It is 1.1 for a new bounty and rises to 1.5 within 3 hours.",
        bounty_boost,
    ),
)

# A table of its own, because it counts all chutes.
OPEN = Table[Bounty](
    BOUNTIES,
    chutes_open_bounties=Total(
        "Chutes of the platform that have an open bounty.",
        lambda bounties: len({bounty.chute_id for bounty in bounties}),
    ),
)

COLLECTOR = Collector(
    "bounties",
    "open bounties: their number, their starts, their ends and their boosts",
    (BOUNTY, OPEN),
)
