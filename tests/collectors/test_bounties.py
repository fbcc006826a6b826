from __future__ import annotations

import pytest

from chutes_exporter.collectors.bounties import COLLECTOR
from chutes_exporter.feeds.table import BOUNTIES
from tests.collectors.support import HOUR, NOON, collected

# An hour and a half old, and one of the kind that lives a day.
BOUNTY = {
    "chute_id": "c",
    "bounty_amount": 16300,
    "seconds_elapsed": 5400,
    "time_remaining": 81000,
    "created_at": NOON - 1.5 * HOUR,
}
CREATED = "chutes_bounty_created_timestamp_seconds{chute_id=c}"
EXPIRES = "chutes_bounty_expires_timestamp_seconds{chute_id=c}"
BOOST = "chutes_bounty_boost_ratio{chute_id=c}"


@pytest.mark.parametrize(
    ("age", "boost"), [(0, 1.1), (-5, 1.1), (2700, 1.2), (10_800, 1.5), (10_801, 1.5), (86_399, 1.5)]
)
def test_the_boost_grows_for_three_hours(age: float, boost: float) -> None:
    made = collected(COLLECTOR, {BOUNTIES: [BOUNTY | {"seconds_elapsed": age}]})
    assert made.samples[BOOST] == pytest.approx(boost)


@pytest.mark.parametrize(
    ("field", "value", "left"),
    [
        ("created_at", None, {BOOST}),
        ("seconds_elapsed", None, {CREATED}),
        ("time_remaining", None, {CREATED, BOOST}),
        # The service sends 0 where it does not know when it expires.
        ("time_remaining", 0, {CREATED, BOOST}),
    ],
)
def test_an_unknown_value_makes_no_sample(field: str, value: float | None, left: set[str]) -> None:
    assert collected(COLLECTOR, {BOUNTIES: [BOUNTY | {field: value}]}).samples.keys() == left
