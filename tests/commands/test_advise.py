"""What ``advise`` makes of failures and of what is unknown, in the newest recorded world.

The golden outputs have the screens, and tests/test_day.py and tests/test_worlds.py compare the
offers with the truth.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.commands.worlds import PresentWorld
from tests.recorded import WORLD_H, may_have_lost_race, reported_ends, rows

FAILING = "62a4a718-bb5d-5e08-861f-22a44325b76e"
"""A chute of which two instances lost their score. The start of a third may have lost a race."""
ALIKE = "390340b4-1897-57de-ac8f-697a71982d1d"
"""One that failed once. The reports say that this was FAILING. What its miner deleted, failed."""
NEARLY = "bf81c7dd-9d9b-565f-bda8-ac6430e19acb"
"""One that failed once."""
REDEPLOYED = "5aeafed4-8fd8-5f43-8e7b-524979a4e48a"
PLANNED = ("autoscaler - downscale", "Rolling update", "maintenance - ", "chute deleted")
"""How the reasons of ends begin that are no failures."""
RICH = {"effective_compute_multiplier": 40.0}
"""It pays more than all others."""


@pytest.fixture
def world() -> PresentWorld:
    world = PresentWorld(WORLD_H)
    for path, body in world.reports.items():
        failed = body.replace(b"miner initialized", b"watchtower - miner failed probes")
        world.reports[path] = failed.replace(ALIKE.encode(), FAILING.encode())
    return world


def true_failures(world: PresentWorld, chute_id: str) -> int:
    """Return how often a chute failed on the miner's servers in 6 reports, by the database."""
    truth = json.loads((WORLD_H / "expected.json").read_bytes())
    private = truth["launch"][chute_id]["rules"] == "private"
    failures = 0
    for row in reported_ends(WORLD_H):
        chute = FAILING if row["chute_id"] == ALIKE else row["chute_id"]
        if (row["miner"], chute) != (world.miner.hotkey, chute_id):
            continue
        # An end whose score still counts is no failure. The newest report has the number 0.
        if row["counts"] or row["report"] >= 6:
            continue
        reason = row["reason"] or ""
        # A private chute may have been filled by others while an instance started.
        lost_race = private and may_have_lost_race(row)
        # Without a reason, a chute was redeployed, or a job was over.
        if reason and not reason.startswith(PLANNED) and not lost_race:
            failures += 1
    return failures


def offers_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the offers for the pro_6000 by their chute, in their order."""
    return {row["chute_id"]: row for row in found["chutes"] if row["gpu"] == "pro_6000"}


async def test_each_chute_has_its_true_number_of_failures(world: PresentWorld) -> None:
    for chute_id in (FAILING, NEARLY, REDEPLOYED):
        world.want(chute_id, 2)
    found = await world.found()
    assert found["gaps"] == []
    counts = {}
    for row in found["chutes"]:
        chute_id = row["chute_id"]
        counts[chute_id] = row["failed_6h"], row["unclear_6h"]
        assert row["failed_6h"] == true_failures(world, chute_id)
        assert row["fails_here"] is (chute_id == FAILING)
    assert (counts[FAILING], counts[NEARLY], counts[REDEPLOYED]) == ((3, 1), (1, 0), (0, 0))


async def test_a_failing_chute_comes_last_and_is_not_planned_however_much_it_pays(
    world: PresentWorld,
) -> None:
    before = await world.found()
    world.want(FAILING, 5, **RICH)
    found = await world.found()
    assert [*offers_of(found)][-1] == FAILING
    assert found["plan"] == before["plan"]
    # One that failed once keeps its place.
    world.want(NEARLY, 5, **RICH)
    found = await world.found()
    assert next(iter(offers_of(found))) == NEARLY
    assert NEARLY in str(found["plan"])


@pytest.mark.parametrize("number", [None, 2, 5])
async def test_without_a_report_only_enough_failures_are_known(
    world: PresentWorld, number: int | None
) -> None:
    world.want(FAILING, 5, **RICH)
    world.want(NEARLY, 5)
    if number is None:
        del world.bodies["audit"]
    else:
        world.forget_report(number)
    found = await world.found()
    offers = offers_of(found)
    assert {row["failed_6h"] for row in offers.values()} == {None}
    assert offers[NEARLY]["fails_here"] is None
    # The plan is made from what is known, and what is not known is named.
    assert offers[FAILING]["fails_here"] is (None if number is None else True)
    assert (FAILING in str(found["plan"])) is (number is None)
    assert {launch["suspected"] for launch in found["plan"][:-1]} == {None}
    assert any("report" in gap for gap in found["gaps"])


async def test_a_chute_that_hangs_here_is_not_launched_again(world: PresentWorld) -> None:
    best = next(iter(offers_of(await world.found())))
    created_at = datetime.now(UTC).timestamp() - 2 * 3600
    hanging = {
        "instance_id": "hangs",
        "chute_id": best,
        "active": False,
        "verified": False,
        "activated_at": None,
        "billed_to": None,
        "created_at": datetime.fromtimestamp(created_at, UTC).isoformat(),
    }
    world.bodies["instances"] += b"data: %b\n\n" % json.dumps(hanging).encode()
    found = await world.found()
    assert offers_of(found)[best]["hanging_here"] == 1
    assert best not in str(found["plan"])


async def test_the_sum_of_the_plan_is_unknown_while_more_may_be_possible(
    world: PresentWorld,
) -> None:
    total = (await world.found())["plan"][-1]
    assert (total["server"], total["units_first_day"] > 0) == ("all", True)
    # What chutes for the 4090 pay becomes unknown.
    for chute in rows(world.bodies["chutes"]):
        models = chute["node_selector"]["supported_gpus"]
        if "4090" in models and "pro_6000" not in models:
            world.change("chutes", chute["chute_id"], public=None)
    found = await world.found()
    assert ("4090", "not_known") in {(row["gpu"], row["reason"]) for row in found["stay_idle"]}
    total = found["plan"][-1]
    assert (total["server"], total["units_first_day"], total["units_later_day"]) == (
        *("all", None),
        None,
    )


@pytest.mark.parametrize("reason", ["spoofed GPUs", None])
async def test_a_miner_that_may_launch_nothing_is_told_so(
    world: PresentWorld, reason: str | None
) -> None:
    # A blacklisted miner can certainly launch nothing, so nothing needs action. If its seat lacks
    # the field, it may be blacklisted or not.
    seats = json.loads(world.bodies["metagraph"])
    for seat in seats:
        del seat["blacklist_reason"]
        if reason is not None:
            seat["blacklist_reason"] = reason
    world.bodies["metagraph"] = json.dumps(seats).encode()
    code, _ = await world.run()
    assert code == (3 if reason is None else 0)
    found = await world.found()
    assert (found["plan"], found["chutes"]) == ([], [])
    reasons = {row["reason"] for row in found["stay_idle"]}
    assert ("not_known" in reasons, "nothing_fits" in reasons) == (
        reason is None,
        reason is not None,
    )
