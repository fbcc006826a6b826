"""What ``advise`` makes of chutes that failed on the miner's servers, in the newest recorded world.

It has a crash loop, starts in vain, redeployments and updates.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from chutes_exporter.commands.advice import Advice, UnusedGpus, unused_gpus
from chutes_exporter.fleet.failures import FAILS_FROM, Failures
from tests.commands.worlds import PresentWorld
from tests.fleet.support import make_fleet, make_gpus
from tests.recorded import WORLD_H, may_have_lost_race, reported_ends

FAILING = "ab4bb34d-d7bd-5e77-8cb8-37bfee6be0c7"
"""A chute of which three instances lost their score. The start of a fourth may have lost a race."""
NEARLY = "40299f28-ea43-56b8-a9f6-3774dee32f92"
"""One that failed once. Another end has no reason, as that of a job that is over."""
REDEPLOYED = "5aeafed4-8fd8-5f43-8e7b-524979a4e48a"
PLANNED = ("autoscaler - downscale", "Rolling update", "maintenance - ", "chute deleted")
"""How the reasons of ends begin that are no failures."""
RICH = {"effective_compute_multiplier": 40.0}
"""It pays more than all others."""


@pytest.fixture
def world() -> PresentWorld:
    return PresentWorld(WORLD_H)


def true_failures(world: PresentWorld, chute_id: str) -> int:
    """Return how often a chute failed on the miner's servers in 24 reports, by the database."""
    truth = json.loads((WORLD_H / "expected.json").read_bytes())
    chute = truth["launch"][chute_id]
    failures = 0
    for row in reported_ends(WORLD_H):
        if (row["miner"], row["chute_id"]) != (world.miner.hotkey, chute_id):
            continue
        # An end whose score still counts is no failure. The newest report has the number 0.
        if row["counts"] or row["report"] >= 24:
            continue
        reason = row["reason"] or ""
        # A private chute may have been filled by others while an instance started.
        lost_race = chute["rules"] == "private" and may_have_lost_race(row)
        # Without a reason, a chute was redeployed, or a job was over.
        if reason and not reason.startswith(PLANNED) and not lost_race:
            failures += 1
    return failures


def offers_of(found: dict[str, Any], gpu: str = "pro_6000") -> list[dict[str, Any]]:
    """Return the offers for the idle GPUs of a model."""
    (model,) = (one for one in found["idle"] if one["gpu"] == gpu)
    offers: list[dict[str, Any]] = model["runnable"]
    return offers


async def test_each_chute_has_its_true_number_of_failures(world: PresentWorld) -> None:
    for chute_id in (FAILING, NEARLY, REDEPLOYED):
        world.want(chute_id, 2)
    found = await world.found()
    assert found["gaps"] == []
    counts = {}
    for model in found["idle"]:
        for offer in model["runnable"]:
            chute_id = offer["chute_id"]
            counts[chute_id] = offer["failed_24h"], offer["unclear_24h"]
            assert offer["failed_24h"] == true_failures(world, chute_id)
            assert offer["fails_here"] is (chute_id == FAILING)
    assert counts[FAILING] == (3, 1)
    assert counts[NEARLY] == (1, 1)
    assert counts[REDEPLOYED] == (0, 0)


async def test_a_chute_that_failed_here_comes_last_however_much_it_pays(
    world: PresentWorld,
) -> None:
    world.want(FAILING, 5, **RICH)
    offers = offers_of(await world.found())
    assert offers[-1]["chute_id"] == FAILING
    pays = [one["first_day_units_per_gpu_second"] for one in offers]
    assert pays[-1] > 10 * pays[0]
    text = await world.text()
    assert "name day 1 later boost GPUs failed 24 h room" in text
    assert (
        f"These come last, because {FAILS_FROM} or more of their instances failed on this miner's "
        "servers in the 24 hours before "
    ) in text
    assert ": dune/app-4 (≥3). The API does not tell on which server. Reasons: " in text


async def test_a_chute_that_failed_once_keeps_its_place_and_its_number_is_shown(
    world: PresentWorld,
) -> None:
    world.want(NEARLY, 5, **RICH)
    found = await world.found()
    assert offers_of(found)[0]["chute_id"] == NEARLY
    assert NEARLY in str(found["plan"])
    _, output = await world.run()
    assert re.search(rf"^{NEARLY}  +\S.*  +[\d.]+  +[\d.]+  +-  +1  +≥1  +", output, re.MULTILINE)
    assert "These come last" not in output


async def test_the_plan_leaves_out_what_failed_here_and_says_so(world: PresentWorld) -> None:
    before = await world.found("--plan")
    world.want(FAILING, 5, **RICH)
    found = await world.found("--plan")
    assert FAILING not in str(found["plan"])
    assert found["plan"] == before["plan"]
    left_out = {"chute_id": FAILING, "name": "dune/app-4", "failed_24h": 3}
    assert found["plan_left_out"] == [left_out]
    assert before["plan_left_out"] == []
    text = await world.text("--plan")
    assert f"These are left out, because {FAILS_FROM} or more" in text
    assert "dune/app-4 (≥3)" in text


async def test_gpus_for_which_only_a_failing_chute_has_room_stay_idle_and_the_plan_says_why(
    world: PresentWorld,
) -> None:
    # No chute has room, neither by its target nor by a bounty.
    utilization = json.loads(world.bodies["utilization"])
    for row in utilization:
        row |= {"scale_allowance": 0, "target_count": row["active_instance_count"]}
    world.bodies["utilization"] = json.dumps(utilization).encode()
    bounties = json.loads(world.bodies["bounties"])
    for number, bounty in enumerate(bounties):
        bounty["chute_id"] = f"gone-{number}"
    world.bodies["bounties"] = json.dumps(bounties).encode()
    # Only this one has room, for the pro_6000.
    world.want(FAILING, 50)
    found = await world.found("--plan")
    # Each of these servers has so many idle GPUs in the recorded world.
    whys = {(one["server_name"], one["gpu"], one["gpus"]): one["why"] for one in found["stay_idle"]}
    assert whys["iris", "pro_6000", 5] == "failed_here"
    assert whys["ginkgo", "pro_6000", 8] == "upgrade_slot"
    assert whys["elm no tee", "4090", 4] == "no_room"
    text = await world.text("--plan")
    assert "5 pro_6000 on iris stay idle: only chutes that failed here have room for them." in text
    assert "4 4090 on elm no tee stay idle: no chute that can be launched now has room" in text


async def test_without_the_reports_the_order_stays_and_the_failures_are_not_known(
    world: PresentWorld,
) -> None:
    world.want(FAILING, 5, **RICH)
    del world.bodies["audit"]
    found = await world.found()
    offers = offers_of(found)
    assert offers[0]["chute_id"] == FAILING
    assert {(one["failed_24h"], one["fails_here"]) for one in offers} == {(None, None)}
    # The plan is made as if nothing had failed.
    assert FAILING in str(found["plan"])
    assert (found["plan_left_out"], found["missing_hours"]) == ([], None)
    assert "the list of reports" in found["gaps"]
    for flags in ((), ("--plan",)):
        text = await world.text(*flags)
        assert "It is not known what failed here: no hourly report could be read." in text
        assert "failed 24 h" not in text


@pytest.mark.parametrize("number", [0, 7, 23])
async def test_known_failures_are_enough_when_a_report_is_missing(
    world: PresentWorld, number: int
) -> None:
    world.want(FAILING, 5, **RICH)
    world.want(NEARLY, 5)
    world.forget_report(number)
    found = await world.found("--plan")
    offers = {one["chute_id"]: one for one in offers_of(found)}
    assert {one["failed_24h"] for one in offers.values()} == {None}
    assert offers[FAILING]["fails_here"]
    assert offers_of(found)[-1]["chute_id"] == FAILING
    assert offers[NEARLY]["fails_here"] is None
    # The plan is made from what is known, and the missing hour is named.
    assert [one["chute_id"] for one in found["plan_left_out"]] == [FAILING]
    assert found["plan"]
    (hour,) = found["missing_hours"]
    named = f"{hour[:10]} {hour[11:16]} UTC"
    for flags in ((), ("--plan",)):
        text = await world.text(*flags)
        assert f"It is not known what failed here in the hour before {named}: its report" in text
        # A report that is not there is no error of anybody.
        assert "report it" not in text
    assert re.search(r"\(fails here\) [\d.]+ [\d.]+ - 1 ≥3 ", await world.text())


async def test_reports_are_read_only_if_something_can_be_launched(world: PresentWorld) -> None:
    # A blacklisted miner can launch nothing. If the command read the missing reports, it would say
    # that the failures are not known.
    seats = [row | {"blacklist_reason": "spoofed"} for row in json.loads(world.bodies["metagraph"])]
    world.bodies["metagraph"] = json.dumps(seats).encode()
    del world.bodies["audit"]
    code, output = await world.run("--plan")
    assert (code, "failures" in output) == (0, False)


def test_an_idle_gpu_whose_server_is_not_known_is_in_no_plan() -> None:
    fleet = make_fleet(gpus=make_gpus("idle", 2, server="gone"))
    failures = Failures({}, {}, are_all_known=True, until=1.0)
    advice = Advice(
        fleet,
        is_known=True,
        failures=failures,
        missing_hours=(),
        markets=(),
        uses=(),
    )
    # The plan has only servers of the fleet, so it is empty here.
    assert unused_gpus(advice, ()) == [UnusedGpus("gone", "pro_6000", 2, "server_not_known")]
