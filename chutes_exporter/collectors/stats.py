"""Stats: the compute of each miner, in all and on each chute, in the past hour, day and week."""

from __future__ import annotations

from chutes_exporter.api.records import MinerStats
from chutes_exporter.collectors.base import Collector
from chutes_exporter.collectors.table import Row, Table, Total
from chutes_exporter.feeds.definitions import STATS, STATS_PER_CHUTE
from chutes_exporter.rules.sums import total

MINER = Table[MinerStats](
    STATS,
    key="miner_hotkey window",
    label="hotkey window",
    miner="miner_hotkey",
    chutes_miner_window_instances=Row(
        "Counting instances that overlap the window, including deleted ones.",
        "total_instances",
        missing=0,
    ),
    chutes_miner_window_bounties=Row(
        "Counting instances in the window that were activated with a bounty.",
        "bounty_count",
        missing=0,
    ),
    chutes_miner_window_compute_seconds=Row(
        "Seconds of counting instances within the window, including their start-up.",
        "compute_seconds",
        missing=0,
    ),
    chutes_miner_window_compute_units=Row(
        "Compute units in the window: seconds of counting instances times their compute "
        "multiplier. The 1d window "
        "equals the score.",
        "compute_units",
        missing=0,
    ),
    chutes_platform_window_miners=Total(
        "Miners with compute units in the window.", len, of="compute_units", by="window"
    ),
    chutes_platform_window_instances=Total(
        "Counting instances of all miners that overlap the window.",
        total,
        of="total_instances",
        by="window",
    ),
    chutes_platform_window_bounties=Total(
        "Counting instances of all miners in the window that were activated with a bounty.",
        total,
        of="bounty_count",
        by="window",
    ),
    chutes_platform_window_compute_seconds=Total(
        "Seconds of all miners' counting instances within the window.",
        total,
        of="compute_seconds",
        by="window",
    ),
    chutes_platform_window_compute_units=Total(
        "Compute units of all miners in the window, including blacklisted miners.",
        total,
        of="compute_units",
        by="window",
    ),
)

CHUTE = Table[MinerStats](
    STATS_PER_CHUTE,
    key="miner_hotkey chute_id window",
    label="hotkey chute_id window",
    records=lambda stats: [record for record in stats if record.chute_id is not None],
    miner="miner_hotkey",
    chutes_miner_chute_window_instances=Row(
        "Counting instances of the miner on the chute that overlap the window, including deleted "
        "ones.",
        "total_instances",
    ),
    chutes_miner_chute_window_bounties=Row(
        "Counting instances of the miner on the chute in the window that were activated with a "
        "bounty.",
        "bounty_count",
    ),
    chutes_miner_chute_window_compute_seconds=Row(
        "Seconds of the miner's counting instances on the chute within the window, including "
        "their start-up.",
        "compute_seconds",
    ),
    chutes_miner_chute_window_compute_units=Row(
        "Compute units of the miner on the chute in the window: seconds times the compute "
        "multiplier.",
        "compute_units",
    ),
)

COLLECTOR = Collector(
    "stats",
    "the compute of each miner, and of all miners, in the past hour, day and week",
    (MINER,),
)
PER_CHUTE = Collector(
    "stats_per_chute",
    "the compute of each miner on each chute in the past hour, day and week",
    (CHUTE,),
    watched_only=True,
)
