from __future__ import annotations

from chutes_exporter.collectors.stats import COLLECTOR
from chutes_exporter.feeds.definitions import STATS
from tests.collectors.support import collected


def test_an_empty_list_says_nothing() -> None:
    assert collected(COLLECTOR, {STATS: {"past_hour": {"instance_stats": []}}}) == {}
