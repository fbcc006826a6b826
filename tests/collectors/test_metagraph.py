from __future__ import annotations

from chutes_exporter.collectors.seats import METAGRAPH_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import METAGRAPH
from tests.collectors.support import ME, collected, of


def test_where_no_seat_has_an_incentive_nobody_has_a_share() -> None:
    seats = [{"hotkey": ME, "incentive": 0.0}, {"hotkey": "other", "incentive": 0.0}]
    made = collected(COLLECTOR, {METAGRAPH: seats})
    assert of(made, "chutes_miner_incentive_ratio", "chutes_miner_incentive_rank") == {}
