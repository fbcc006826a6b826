"""The series of what can be launched. tests/fleet/test_offers.py has what decides, and
tests/test_day.py and tests/test_worlds.py compare it with recorded worlds.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from chutes_exporter.collectors.launch import COLLECTOR
from chutes_exporter.feeds.fleet import FEEDS
from chutes_exporter.rules.launch import LAUNCH_REFUSALS
from tests.collectors.support import Samples, collected, of
from tests.fleet import test_join, test_offers

SERVER = "hotkey=me,server_id=s,server=box"
OFFER = "hotkey=me,gpu=h200,chute_id=c,chute=llama"
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


# Without "disabled", a launch may be refused. Without "public", the later pay is unknown.
@pytest.mark.parametrize("missing", ["disabled", "public"])
def test_what_idle_gpus_could_earn_is_absent_while_a_chute_is_not_known_well_enough(
    missing: str,
) -> None:
    chute = deepcopy(test_offers.CHUTE)
    del chute[missing]
    made = run({"chutes": [chute]})
    assert refused(made) == {"unknown": 1}
    assert {key.partition("{")[0] for key in made} == {"chutes_launch_refused_chutes"}


@pytest.mark.parametrize("name", ["server", "chute"])
def test_a_name_that_is_unknown_makes_no_series_that_would_be_renamed(name: str) -> None:
    if name == "server":
        made = run({"servers": test_offers.servers({"name": None})})
        assert "server_id=" not in str(made)
        assert f"chutes_launch_gpus{{{OFFER}}}" in made
    else:
        made = run({"chutes": [test_offers.CHUTE | {"name": None}]})
        assert "chute_id=" not in str(made)
        # The pay of the server needs no name of a chute.
        assert made[f"chutes_server_idle_compute_units_per_second{{{SERVER}}}"] == 3


@pytest.mark.parametrize("name", sorted(test_offers.ANSWERS))
def test_without_an_answer_that_decides_nothing_can_be_said(name: str) -> None:
    assert run({name: None}) == {}
    assert run(doubted=[FEEDS[name]]) == {}


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


def test_an_active_instance_may_be_the_last_one_and_a_starting_one_may_start_in_vain() -> None:
    assert of_instances() == {
        f"chutes_instance_last_active{{{ACTIVE}}}": 1,
        f"chutes_instance_decision{{{ACTIVE},decision=none}}": 1,
        f"chutes_instance_decision{{{STARTING},decision=none}}": 1,
        f"chutes_instance_start_in_vain{{{STARTING}}}": 0,
    }


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


def test_an_instance_of_which_a_label_is_unknown_has_no_series() -> None:
    instances = bodies_of("instances")
    for row in instances:
        del row["billed_to"]
    assert of_instances({"instances": instances}) == {}
    # Now, it is known that they are public, but not of which chute they are.
    for row in instances:
        row |= {"billed_to": None, "chute_id": None}
    assert of_instances({"instances": instances}) == {}


def test_whether_a_start_is_in_vain_is_absent_while_the_demand_is_unknown() -> None:
    # The second chute is that of the starting instance.
    chutes = bodies_of("chutes")
    del chutes[1]["compute_multiplier_factors"]
    assert of_instances({"chutes": chutes}) == {
        f"chutes_instance_last_active{{{ACTIVE}}}": 1,
        f"chutes_instance_decision{{{ACTIVE},decision=none}}": 1,
    }
