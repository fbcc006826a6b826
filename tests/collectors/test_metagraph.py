from __future__ import annotations

from typing import Any

from chutes_exporter.collectors.metagraph import COLLECTOR
from chutes_exporter.feeds.table import METAGRAPH
from tests.collectors.support import ME, Samples, collected, of


def seat(hotkey: str, **fields: Any) -> dict[str, Any]:
    return {"hotkey": hotkey, "incentive": 0.0, "blacklist_reason": None} | fields


def run(*seats: dict[str, Any], **options: Any) -> Samples:
    return collected(COLLECTOR, {METAGRAPH: list(seats)}, **options)


def test_equal_incentives_have_equal_ranks() -> None:
    seats = [seat("a", incentive=2.0), seat("b", incentive=2.0), seat("c"), seat("d")]
    made = run(*seats, miners="all")
    assert of(made, "chutes_miner_incentive_rank") == {
        "chutes_miner_incentive_rank{hotkey=a}": 1,
        "chutes_miner_incentive_rank{hotkey=b}": 1,
        "chutes_miner_incentive_rank{hotkey=c}": 3,
        "chutes_miner_incentive_rank{hotkey=d}": 3,
    }


INCENTIVES = ("chutes_miner_incentive_ratio", "chutes_miner_incentive_rank")


def test_where_no_seat_has_an_incentive_nobody_has_a_share() -> None:
    assert of(run(seat(ME), seat("other")), *INCENTIVES) == {}
