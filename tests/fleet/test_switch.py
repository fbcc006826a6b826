"""Switches of active instances, and what their deletion costs."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import pytest

from chutes_exporter.api.records import ComputeRecord, UnixTime
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.fleet.failures import Failures
from chutes_exporter.fleet.join import join_fleet
from chutes_exporter.fleet.model import Launch, Use
from chutes_exporter.fleet.switch import Switches, fading_seconds, find_switches
from chutes_exporter.rules.losses import History, deletion_cost, score_of_running
from tests.fleet.support import (
    WORLDS,
    make_fleet,
    make_instance,
    make_offer,
    make_server,
    sent,
    truth,
    world_answers,
)
from tests.fleet.test_failures import ledger_of
from tests.fleet.test_offers import ANSWERS, CHUTE, RECORD
from tests.support import NOON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chutes_exporter.fleet.model import Instance, Server
    from tests.recorded import Miner

NO_FAILURES = Failures({}, frozenset(), are_all_known=True, until=NOON)
"""No chute failed, and all reports are known."""
BOUNTIES = [
    {"chute_id": "b", "created_at": NOON - 60, "seconds_elapsed": 60, "time_remaining": 500}
]
"""An open bounty of the chute b."""
HIGH: Final = 3.0
"""Compute units per second of a chute that pays much more than the instances."""


def instance(instance_id: str = "i1", **fields: Any) -> Instance:
    """Return a public instance on one h200 that earns 2 units a second since yesterday.

    Its first hour is over, so its deletion is free.
    """
    given: dict[str, Any] = {
        "model": "h200",
        "gpus": 1,
        "created_at": NOON - DAY,
        "chute_id": "own",
        "deadlines": {"secured": NOON - 20 * HOUR},
    }
    return make_instance(instance_id, **given | fields)


def chute(chute_id: str, pay: float, room: int = 1, size: int = 1, **fields: Any) -> dict[str, Any]:
    """Return the records of a public chute in the answers ``chutes`` and ``utilization``.

    Args:
        chute_id: Its id and name.
        pay: What an instance earns, in compute units per second.
        room: How many instances more the service wants.
        size: The number of GPUs of an instance.
        fields: More fields of the record in ``chutes``.
    """
    record = {
        "chute_id": chute_id,
        "name": chute_id,
        "effective_compute_multiplier": pay,
        "node_selector": {"gpu_count": size, "supported_gpus": ["h200"]},
    }
    # One instance of it is active by RECORD.
    logged = {"chute_id": chute_id, "scale_allowance": room, "target_count": 1 + room}
    return {"chutes": CHUTE | record | fields, "utilization": RECORD | logged}


def switches(
    *chutes: dict[str, Any],
    instances: tuple[Instance, ...] = (),
    uses: tuple[Use, ...] = (),
    failures: Failures = NO_FAILURES,
    scores: Mapping[str, float | None] | None = None,
    server: dict[str, Any] | None = None,
    **answers: Any,
) -> Switches | None:
    """Return the switches of instances on one server, by default of one instance.

    Args:
        chutes: What could run instead, by :func:`chute`.
        instances: The instances. Their chute is "own", which has room for more of them.
        uses: What to launch on idle GPUs.
        failures: Of chutes on the miner's servers.
        scores: The compute units of each instance that its deletion may cost, 1000 by default.
        server: Fields of the server.
        answers: Other answers of the API.
    """
    running = instances or (instance(),)
    if scores is None:
        scores = {one.instance_id: 1000.0 for one in running}
    held: Server = make_server("s1", instances=running, **server or {})
    # Their own chute pays most, so it would be proposed if the chute that runs were not left out.
    all_chutes = (chute("own", 9.0, room=9), *chutes)
    listed = {
        "chutes": [one["chutes"] for one in all_chutes],
        "utilization": [one["utilization"] for one in all_chutes],
    }
    bodies = ANSWERS | listed | answers
    return find_switches(sent(bodies), make_fleet(held), uses, failures, scores, NOON)


def pairs(found: Switches | None) -> list[tuple[str, list[str]]]:
    """Return the proposed switches: each instance with the chutes to run instead."""
    assert found is not None
    result = []
    for switch in found.proposed:
        names = []
        for launch in switch.launches:
            names += [launch.offer.chute_id] * launch.instances
        result.append((switch.instance.instance_id, names))
    return result


def test_an_instance_is_switched_to_the_best_other_chute_that_fits() -> None:
    # The chute d needs two GPUs, and the instance has one.
    found = switches(chute("b", 4.0), chute("c", HIGH), chute("d", 99.0, size=2))
    assert pairs(found) == [("i1", ["b"])]


def test_a_switch_says_what_it_gains_what_it_costs_and_when_it_has_paid() -> None:
    found = switches(chute("b", 4.0))
    assert found is not None
    (one,) = found.proposed
    assert one.first_day_gain == (4.0 - 2.0) * DAY
    assert one.later_gain == 4.0 - 2.0
    assert (one.cost.why, one.cost.units, one.cost.free_at) == ("free", 0, NOON)
    assert (one.payback_seconds, one.waits_until) == (0, None)


def test_the_chute_that_runs_there_is_never_proposed() -> None:
    found = switches()
    assert pairs(found) == []
    assert found is not None
    assert (found.compared, found.too_dear, found.not_compared) == (1, (), ())


# The instance earns 2 units a second.
@pytest.mark.parametrize(("pay", "is_proposed"), [(1.9, False), (2.19, False), (2.21, True)])
def test_only_more_than_10_percent_counts(pay: float, is_proposed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert bool(pairs(switches(chute("b", pay)))) == is_proposed


def test_several_chutes_can_share_the_gpus_of_an_instance() -> None:
    found = switches(
        chute("b", 1.0, room=2), chute("c", 1.5, size=2), instances=(instance(gpus=4),)
    )
    assert pairs(found) == [("i1", ["b", "b", "c"])]


def test_what_the_service_refuses_is_not_proposed() -> None:
    for one in (
        chute("full", HIGH, room=0),
        chute("off", HIGH, disabled=True),
        chute("plain", HIGH, tee=False),
    ):
        assert pairs(switches(one)) == []


def test_a_race_for_a_bounty_is_no_reason_to_give_up_an_instance() -> None:
    private: dict[str, Any] = {
        "public": False,
        "compute_multiplier_factors": {"private_tee": 1.3},
    }
    # The first of all miners' instances that becomes active takes the bounty, and the only room.
    race = chute("b", HIGH, **private)
    race["utilization"] |= {"active_instance_count": 0, "total_instance_count": 0}
    assert pairs(switches(race, bounties=BOUNTIES)) == []
    # A private chute with an active instance, which wants more, and a public one are no race.
    assert pairs(switches(chute("b", HIGH, **private))) == [("i1", ["b"])]
    assert pairs(switches(chute("b", HIGH), bounties=BOUNTIES)) == [("i1", ["b"])]


@pytest.mark.parametrize("server", [{"holds_slot": True}, {"tee": False}])
def test_a_server_that_can_launch_nothing_keeps_its_instances(server: dict[str, Any]) -> None:
    assert pairs(switches(chute("b", HIGH), server=server)) == []


def test_a_server_that_holds_a_slot_gets_none_of_the_chutes_of_another_one() -> None:
    pending = make_server(
        "s2", instances=(instance("i2", server_id="s2"),), holds_slot=True, maintenance="pending"
    )
    fleet = make_fleet(make_server("s1", instances=(instance(),)), pending)
    with_room = chute("b", HIGH, room=2)
    answers = ANSWERS | {name: [record] for name, record in with_room.items()}
    scores = {"i1": 0.0, "i2": 0.0}
    found = find_switches(sent(answers), fleet, (), NO_FAILURES, scores, NOON)
    assert pairs(found) == [("i1", ["b"])]


def test_each_room_is_given_once_and_first_to_what_earns_least() -> None:
    instances = (instance("a", later_units_per_second=2.5, units_per_second=2.5), instance("z"))
    found = switches(chute("b", HIGH), instances=instances)
    assert pairs(found) == [("z", ["b"])]
    both = switches(chute("b", HIGH, room=2), instances=instances)
    assert pairs(both) == [("z", ["b"]), ("a", ["b"])]


def test_idle_gpus_take_the_room_first() -> None:
    launches = (Launch(make_offer("b", 3.0), 1),)
    use = Use("s2", "h200", free=1, launches=launches, may_be_more=False)
    assert pairs(switches(chute("b", HIGH, room=1), uses=(use,))) == []
    assert pairs(switches(chute("b", HIGH, room=2), uses=(use,))) == [("i1", ["b"])]


PAYS = [1.0, 2.0, 2.5, 3.0]
"""What some instances of one size earn a second."""
OFFERED = {"b": 4.0, "c": 3.2, "d": 2.6}
"""What other chutes would earn on the GPUs of any of them."""
ROOMS = {"b": 1, "c": 2, "d": 3}


def test_the_gains_are_the_most_of_all_assignments_of_instances_of_one_size() -> None:
    instances = tuple(
        instance(f"i{number}", units_per_second=pay, later_units_per_second=pay)
        for number, pay in enumerate(PAYS)
    )
    chutes = [chute(key, OFFERED[key], room=room) for key, room in ROOMS.items()]
    found = switches(*chutes, instances=instances)
    assert found is not None
    # A chute, or none, for each of the instances.
    choices = product([None, *OFFERED], repeat=len(PAYS))
    best = max(gain_of(choice) for choice in choices if has_room(choice))
    assert sum(switch.first_day_gain for switch in found.proposed) == pytest.approx(best * DAY)


def has_room(choice: Sequence[str | None]) -> bool:
    """Return whether chutes have room for the instances that a choice gives each of them."""
    return all(choice.count(key) <= room for key, room in ROOMS.items())


def gain_of(choice: Sequence[str | None]) -> float:
    """Return what the instances gain together if each of them is switched as a choice says.

    The choice has a chute for each instance, or None for one that stays.
    """
    gain = 0.0
    for pay, key in zip(PAYS, choice, strict=True):
        # Only a switch that gains more than 10 % is proposed.
        if key is not None and OFFERED[key] > 1.1 * pay:
            gain += OFFERED[key] - pay
    return gain


def test_a_chute_that_failed_or_may_have_failed_here_is_not_proposed() -> None:
    failed = Failures({"b": 3}, frozenset(), are_all_known=True, until=NOON)
    assert pairs(switches(chute("b", 9.0), chute("c", HIGH), failures=failed)) == [("i1", ["c"])]
    # An end of this chute may have been a failure.
    unclear = Failures({}, frozenset({"b"}), are_all_known=True, until=NOON)
    assert pairs(switches(chute("b", 9.0), failures=unclear)) == []


def test_a_chute_that_hangs_on_the_miners_servers_is_not_proposed() -> None:
    hanging = instance("h", chute_id="b", state="starting", created_at=NOON - 2 * HOUR)
    assert pairs(switches(chute("b", HIGH, room=5), instances=(instance(), hanging))) == []
    # A start of 10 minutes is usual, so it does not hang.
    starting = replace(hanging, created_at=NOON - 600)
    found = switches(chute("b", HIGH, room=5), instances=(instance(), starting))
    assert pairs(found) == [("i1", ["b"])]


def test_while_a_failure_may_be_missing_no_switch_is_known() -> None:
    some = Failures({}, frozenset(), are_all_known=False, until=NOON)
    assert switches(chute("b", HIGH), failures=some) is None


RUNNING = make_fleet(make_server("s1", instances=(instance(),)))
"""A fleet with the instance i1, whose switches are known with all answers."""


@pytest.mark.parametrize(
    "name", ["chutes", "active_instances", "utilization", "bounties", "held_gpus"]
)
def test_without_an_answer_that_decides_about_launches_no_switch_is_known(name: str) -> None:
    scores = {"i1": 0.0}
    assert find_switches(sent(ANSWERS), RUNNING, (), NO_FAILURES, scores, NOON) is not None
    without = sent({key: body for key, body in ANSWERS.items() if key != name})
    assert find_switches(without, RUNNING, (), NO_FAILURES, scores, NOON) is None


def test_while_it_is_unknown_what_can_be_launched_no_switch_is_known() -> None:
    fleet = replace(RUNNING, markets=None)
    assert find_switches(sent(ANSWERS), fleet, (), NO_FAILURES, {"i1": 0.0}, NOON) is None


@pytest.mark.parametrize(
    ("fields", "score", "words"),
    [
        ({"state": None}, 1.0, "whether it is active"),
        ({"server_id": None}, 1.0, "its GPUs"),
        ({"gpus": None}, 1.0, "its GPUs"),
        ({"units_per_second": None}, 1.0, "what it earns"),
        ({"later_units_per_second": None}, 1.0, "what it earns"),
        ({"created_at": None}, 1.0, "what it earns"),
        ({"private": None}, 1.0, "what its deletion costs"),
        ({"is_last_active": None}, 1.0, "what its deletion costs"),
        ({"deadlines": {}}, 1.0, "what its deletion costs"),
        ({}, None, "what its deletion costs"),
    ],
)
def test_an_instance_of_which_something_is_not_known_is_named(
    fields: dict[str, Any], score: float | None, words: str
) -> None:
    running = (instance(**fields), instance("i2"))
    found = switches(
        chute("b", HIGH, room=2), instances=running, scores={"i1": score, "i2": 1000.0}
    )
    assert pairs(found) == [("i2", ["b"])]
    assert found is not None
    (not_compared,) = found.not_compared
    assert not_compared.instance.instance_id == "i1"
    assert words in not_compared.reason


def test_a_private_instance_is_given_up_only_if_the_first_day_pays_its_score() -> None:
    private = instance(private=True, deadlines={})
    gain = (HIGH - 2.0) * DAY
    cheap = switches(chute("b", HIGH), instances=(private,), scores={"i1": gain / 2})
    assert cheap is not None
    (one,) = cheap.proposed
    assert (one.cost.why, one.cost.units, one.cost.free_at) == ("private", gain / 2, None)
    assert one.payback_seconds == DAY / 2
    dear = switches(chute("b", HIGH), instances=(private,), scores={"i1": 2 * gain})
    assert dear is not None
    assert dear.proposed == ()
    (one,) = dear.too_dear
    # The second day gains as much as the first one.
    assert one.payback_seconds == 2 * DAY


@pytest.mark.parametrize("rounding", [1 - 1e-15, 1, 1 + 1e-15])
def test_rounding_does_not_decide_whether_a_day_pays_the_score(rounding: float) -> None:
    private = instance(private=True, deadlines={})
    score = (HIGH - 2.0) * DAY * rounding
    found = switches(chute("b", HIGH), instances=(private,), scores={"i1": score})
    assert found is not None
    # The gain is about the cost, and no more.
    assert (len(found.proposed), len(found.too_dear)) == (0, 1)


def test_an_instance_that_costs_too_much_takes_no_room() -> None:
    # It earns less than the other one, so it would gain more by the chute.
    private = instance(
        "p", private=True, deadlines={}, units_per_second=1.0, later_units_per_second=1.0
    )
    found = switches(
        chute("b", HIGH), instances=(private, instance()), scores={"p": 1e9, "i1": 0.0}
    )
    assert pairs(found) == [("i1", ["b"])]


def test_a_public_instance_waits_for_the_end_of_its_first_hour() -> None:
    young = instance(created_at=NOON - 600, deadlines={"secured": NOON + 3000})
    found = switches(chute("b", HIGH), instances=(young,), scores={"i1": 1e9})
    assert found is not None
    (one,) = found.proposed
    # When it has waited, its deletion is free, so there is nothing to pay back.
    assert (one.cost.units, one.waits_until, one.payback_seconds) == (1e9, NOON + 3000, 0)


def test_a_bounty_does_not_lead_to_a_chute_that_pays_less_when_it_is_over() -> None:
    boosted = {"tee": 1.2, "bounty_boost": 1.5}
    # The instance earns 2 units a second. Later, the chute pays 2.9 / 1.5 or 3.3 / 1.5.
    for pay, is_proposed in ((2.9, False), (3.3, True)):
        high_at_first = chute("b", pay, compute_multiplier_factors=boosted)
        found = switches(high_at_first, bounties=BOUNTIES)
        assert bool(pairs(found)) == is_proposed


def test_a_chute_that_pays_more_for_good_goes_before_one_with_a_high_bounty() -> None:
    # The instance earns 2 units a second. Later, the boosted chute pays 5.7 / 3.
    boosted = {"tee": 1.2, "bounty_boost": 3.0}
    high_at_first = chute("b", 5.7, compute_multiplier_factors=boosted)
    found = switches(high_at_first, chute("c", 2.25), bounties=BOUNTIES)
    assert pairs(found) == [("i1", ["c"])]


def test_a_first_pay_counts_as_long_as_it_has_not_faded_at_the_age_of_the_instance() -> None:
    assert fading_seconds(0) == pytest.approx(4.6 * HOUR, rel=1e-2)
    # For 2 hours, nothing fades.
    assert fading_seconds(HOUR) == pytest.approx((4.6 - 1) * HOUR, rel=1e-2)
    # After 8 hours, nothing is left.
    assert fading_seconds(9 * HOUR) == 0


def test_an_instance_keeps_its_later_pay_and_what_has_not_faded_of_the_first_one() -> None:
    # It is a minute old, so nearly all of the 4.6 hours for which the first pay counts are left.
    boosted = instance(units_per_second=3.0, later_units_per_second=2.0, created_at=NOON - 60)
    found = switches(chute("b", HIGH), instances=(boosted,))
    assert found is not None
    (one,) = found.proposed
    assert one.kept_units == pytest.approx(2.0 * DAY + (3.0 - 2.0) * 4.6 * HOUR, rel=1e-2)


# What a deletion costs


def test_the_cost_of_a_deletion_follows_the_rules_of_the_score() -> None:
    def cost(*, private: bool, last: bool, secured: float) -> tuple[str, float, float | None]:
        """Return why a deletion costs something, the units, and from when on it is free."""
        found = deletion_cost(
            private=private, is_last_active=last, secured_at=secured, score=1000.0, now=NOON
        )
        return found.why, found.units, found.free_at

    # When the first hour of an instance is over.
    old, young = NOON - 1, NOON + 1
    assert cost(private=False, last=False, secured=old) == ("free", 0, NOON)
    # A public instance that is the last active one of its chute keeps a tenth of its score.
    assert cost(private=False, last=True, secured=old) == ("last_active", 900, None)
    assert cost(private=False, last=False, secured=young) == ("first_hour", 1000, young)
    # After its first hour, it is still the last one, so it never becomes free.
    assert cost(private=False, last=True, secured=young) == ("first_hour", 1000, None)
    for last in (False, True):
        assert cost(private=True, last=last, secured=old) == ("private", 1000, None)


GAPS = {"world-f": 622047.0}
"""Units of an instance whose multipliers are in a report that is missing, by the database."""


@pytest.mark.parametrize("miner", WORLDS, ids=str)
def test_what_runs_and_what_ended_and_counts_is_the_score_of_the_service(miner: Miner) -> None:
    true = truth(miner)
    earning = [one for one in join_fleet(world_answers(miner)).instances if one.earns]
    scores = ledger_of(miner).scores(earning, true["sql_now"])
    running = sum(score for score in scores.values() if score is not None)
    kept = 0.0
    for row in true["ended"]["instances"]:
        if row["miner"] == miner.hotkey and row["counts"]:
            kept += row["units_in_24h"]
    gap = GAPS.get(miner.directory.name, 0.0)
    unknown_scores = list(scores.values()).count(None)
    assert unknown_scores == (1 if gap else 0)
    # What runs is no small part of the score, so that an error in it shows.
    assert running > 0.1 * kept
    score = true["score_raw"][miner.hotkey]["units"]
    # Since the newest report, a multiplier may have changed a little.
    assert running + kept + gap == pytest.approx(score, rel=1e-4)


NO_RECORDS = History([], None)
REPORT_END = NOON - 1800
"""When the newest report ended: half an hour ago."""


def open_record(started_at: float) -> History:
    """Return the history of an instance that earns 1 unit a second since a time."""
    record = ComputeRecord("i", UnixTime(started_at), compute_multiplier=1.0)
    return History([record], open_multiplier=1.0)


def test_until_the_report_its_multiplier_counts_and_since_then_the_present_one() -> None:
    created_at = NOON - 7200
    score = score_of_running(created_at, open_record(created_at), REPORT_END, 3.0, NOON)
    assert score == 5400 * 1.0 + 1800 * 3.0


def test_an_instance_that_was_activated_after_the_report_has_its_present_multiplier() -> None:
    assert score_of_running(NOON - 7200, NO_RECORDS, REPORT_END, 2.0, NOON) == 7200 * 2.0


def test_the_score_of_an_instance_with_a_time_without_a_multiplier_is_unknown() -> None:
    # It was active before the report, because no start takes 5.5 hours. So a report is missing.
    created_at = NOON - 6 * HOUR
    assert score_of_running(created_at, NO_RECORDS, REPORT_END, 2.0, NOON) is None
    # An hour passed between its creation and its first record.
    history = open_record(NOON - 3600)
    assert score_of_running(NOON - 7200, history, REPORT_END, 3.0, NOON) is None
