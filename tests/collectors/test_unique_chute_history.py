from __future__ import annotations

from chutes_exporter.collectors.unique_chute_history import COLLECTOR
from chutes_exporter.feeds.table import UNIQUE_CHUTE_HISTORY
from tests.collectors.support import NOON, collected

TEN = {"time": "2026-11-24 10:00:00+00", "count": 8, "total_count": 10}
ELEVEN = {"time": "2026-11-24 11:00:00+00", "count": 9, "total_count": 20}
TWELVE = {"time": "2026-11-24 12:00:00+00", "count": 12, "total_count": 24}


def test_the_newest_hour_counts_in_any_order_with_the_average_of_all_hours() -> None:
    for answer in ([TEN, ELEVEN, TWELVE], [TWELVE, TEN, ELEVEN]):
        assert collected(COLLECTOR, {UNIQUE_CHUTE_HISTORY: answer}).samples == {
            "chutes_miner_unique_chute_gpus{hotkey=me}": 12,
            "chutes_miner_active_gpus{hotkey=me}": 24,
            "chutes_miner_average_active_gpus{hotkey=me}": 18,
            "chutes_miner_history_timestamp_seconds{hotkey=me}": NOON,
        }
