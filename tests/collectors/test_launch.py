"""The series of what can be launched. tests/fleet/test_offers.py has what decides, and
tests/test_day.py and tests/test_worlds.py compare it with recorded worlds.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from chutes_exporter.collectors.launch import COLLECTOR
from chutes_exporter.feeds.fleet import FEEDS
from chutes_exporter.rules.launch import LAUNCH_REFUSALS
from tests.collectors.support import Samples, collected, of
from tests.fleet import test_join, test_offers

SERVER = "hotkey=me,server_id=s,server=box"
ACTIVE = "hotkey=me,instance_id=i1,chute_id=c1,chute=llama,private=false"
STARTING = "hotkey=me,instance_id=i2,chute_id=c2,chute=flux,private=false"


def run(changes: dict[str, Any] | None = None, **options: Any) -> Samples:
    """Return the samples of three idle GPUs, and of a chute for two GPUs with room for an instance.

    The changes replace answers by name. None is a missing answer.
    """
    bodies = test_offers.ANSWERS | (changes or {})
    answers = {FEEDS[name]: body for name, body in bodies.items() if body is not None}
    return collected(COLLECTOR, answers, **options)


def refused(made: Samples) -> dict[str, float]:
    """Return the refused chutes by reason, of those that are not 0."""
    found = of(made, "chutes_launch_refused_chutes")
    # All reasons are there, or none is.
    assert len(found) in (0, len(LAUNCH_REFUSALS))
    return {key.rpartition("=")[2].rstrip("}"): value for key, value in found.items() if value}


def test_where_nothing_can_be_launched_idle_gpus_could_earn_0_and_the_reason_is_counted() -> None:
    # The miner has no seat.
    made = run({"metagraph": [{"hotkey": "other"}]})
    assert refused(made) == {"not_registered": 1}
    assert of(made, "chutes_server_idle_compute_units_per_second") == {
        f"chutes_server_idle_compute_units_per_second{{{SERVER}}}": 0
    }
    assert of(made, "chutes_server_launch_instances", "chutes_launch_room_instances") == {}


def of_instances(changes: dict[str, Any] | None = None) -> Samples:
    """Return the samples about an active and a starting instance."""
    bodies = test_join.ANSWERS | (changes or {})
    made = collected(COLLECTOR, {FEEDS[name]: body for name, body in bodies.items()})
    found = of(
        made,
        "chutes_instance_decision",
        "chutes_instance_last_active",
        "chutes_instance_start_in_vain",
    )
    # Decisions that are not the present one have a 0.
    return {key: value for key, value in found.items() if value or "decision=" not in key}


def test_an_instance_that_starts_for_over_an_hour_is_slow_also_while_the_demand_is_unknown() -> (
    None
):
    instances = bodies_of("instances")
    # The answers of tests are received at the time 0.
    instances[1]["created_at"] = "1969-12-31T22:59:00+00:00"
    without_demand = bodies_of("chutes")
    for row in without_demand:
        del row["compute_multiplier_factors"]
    for chutes in (bodies_of("chutes"), without_demand):
        made = of_instances({"instances": instances, "chutes": chutes})
        assert made[f"chutes_instance_decision{{{STARTING},decision=slow}}"] == 1


def bodies_of(name: str) -> list[dict[str, Any]]:
    """Return an answer that a test may change."""
    found: list[dict[str, Any]] = deepcopy(test_join.ANSWERS[name])
    return found
