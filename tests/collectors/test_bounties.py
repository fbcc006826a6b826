from __future__ import annotations

import pytest

from chutes_exporter.collectors.bounties import COLLECTOR
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.definitions import BOUNTIES
from tests.collectors.support import collected
from tests.support import NOON

# An hour and a half old, and one of the kind that lives a day.
BOUNTY = {
    "chute_id": "c",
    "bounty_amount": 16300,
    "seconds_elapsed": 5400,
    "time_remaining": 81000,
    "created_at": NOON - 1.5 * HOUR,
}
EXPIRES = "chutes_bounty_expires_timestamp_seconds{chute_id=c}"
BOOST = "chutes_bounty_boost_ratio{chute_id=c}"


@pytest.mark.parametrize(
    ("age", "boost"),
    [(0, 1.1), (-5, 1.1), (2700, 1.2), (10_800, 1.5), (10_801, 1.5), (86_399, 1.5), (None, None)],
)
def test_the_boost_grows_for_three_hours(age: float | None, boost: float | None) -> None:
    made = collected(COLLECTOR, {BOUNTIES: [BOUNTY | {"seconds_elapsed": age}]})
    assert made.get(BOOST) == pytest.approx(boost)


def test_the_service_sends_0_where_it_does_not_know_when_a_bounty_expires() -> None:
    assert EXPIRES in collected(COLLECTOR, {BOUNTIES: [BOUNTY]})
    assert EXPIRES not in collected(COLLECTOR, {BOUNTIES: [BOUNTY | {"time_remaining": 0}]})
