from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.scores import SCORE_HEADING_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import ACTIVE_INSTANCES, METAGRAPH
from tests.collectors.support import ME, Samples, collected


def active(number: int, hotkey: str, multiplier: float | None) -> dict[str, Any]:
    return {"instance_id": f"i{number}", "miner_hotkey": hotkey, "compute_multiplier": multiplier}


def seat(hotkey: str, **fields: Any) -> dict[str, Any]:
    return {"hotkey": hotkey, "blacklist_reason": None} | fields


MINE = [active(1, ME, 1.0), active(2, ME, 0.5)]
OTHERS = [active(3, "other", 4.5)]
SEATS = [seat(ME), seat("other"), seat("idle")]


def run(instances: list[dict[str, Any]], seats: list[dict[str, Any]], **options: Any) -> Samples:
    return collected(COLLECTOR, {ACTIVE_INSTANCES: instances, METAGRAPH: seats}, **options)


def ratios(**values: float) -> dict[str, float]:
    return {
        f"chutes_miner_score_heading_ratio{{hotkey={hotkey}}}": value
        for hotkey, value in values.items()
    }


@pytest.mark.parametrize("seats", [[seat(ME)], [seat(ME), seat("other", blacklist_reason="abuse")]])
def test_unregistered_and_blacklisted_miners_do_not_count_in_the_sum(
    seats: list[dict[str, Any]],
) -> None:
    assert run(MINE + OTHERS, seats, miners="all") == ratios(me=1)


def test_where_the_rates_are_too_many_for_a_number_nobody_has_a_share() -> None:
    # Each is a number, and their sum is not.
    huge = [active(1, ME, 1e308), active(2, "other", 1e308)]
    assert run(huge, SEATS, miners="all") == {}


def test_where_it_is_unknown_whether_a_miner_is_blacklisted_nobody_has_a_share() -> None:
    assert run(MINE + OTHERS, [seat(ME), {"hotkey": "other"}]) == {}


def test_a_watched_miner_without_instances_approaches_zero_and_one_without_a_seat_nothing() -> None:
    assert run(OTHERS, SEATS, watched=[ME, "unknown"]) == ratios(me=0)
