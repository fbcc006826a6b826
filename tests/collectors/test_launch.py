"""The series of what can be launched. tests/fleet/test_offers.py has what decides, and
tests/test_day.py and tests/test_worlds.py compare it with recorded worlds.
"""

from __future__ import annotations

from copy import deepcopy

import pytest

from chutes_exporter.collectors.launch import COLLECTOR
from chutes_exporter.feeds.fleet import FLEET_FEEDS
from tests.collectors.support import collected
from tests.fleet import test_join

STARTING = "hotkey=me,instance_id=i2,chute_id=c2,chute=flux,private=false"


@pytest.mark.parametrize(
    ("factors", "slow"), [({"tee": 1.2}, 1), (None, None)], ids=["demand", "unknown demand"]
)
def test_an_instance_that_starts_for_over_an_hour_is_slow_if_it_is_known_not_to_be_in_vain(
    factors: dict[str, float] | None, slow: int | None
) -> None:
    bodies = deepcopy(test_join.ANSWERS)
    # The answers of tests are received at the time 0.
    bodies["instances"][1]["created_at"] = "1969-12-31T22:59:00+00:00"
    for chute in bodies["chutes"]:
        chute["compute_multiplier_factors"] = factors
    answers = {feed: bodies[feed.name] for feed in FLEET_FEEDS if feed.name in bodies}
    made = collected(COLLECTOR, answers)
    assert made.get(f"chutes_instance_decision{{{STARTING},decision=slow}}") == slow
