"""``advise --switch``, in the newest recorded world."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from tests.commands.support import ALPHA_USD, EMISSION, chain_flag
from tests.commands.test_advise_failures import FAILING, NEARLY, RICH
from tests.commands.worlds import PresentWorld
from tests.recorded import WORLD_C, WORLD_H, rows, seconds, stream

if TYPE_CHECKING:
    from tests.support import Page

RICHER = "ac8ca8e9-5184-422f-993f-ca19f9f9d88f"
"""A public chute of the oldest world, for one GPU."""


@pytest.fixture
def world() -> PresentWorld:
    """The world in which a chute for one pro_6000 pays most and has room for all."""
    world = PresentWorld(WORLD_H)
    world.want(NEARLY, 60, **RICH)
    return world


async def test_a_switch_says_what_it_gains_and_what_the_deletion_costs(
    world: PresentWorld,
) -> None:
    found = (await world.found("--switch"))["switch"]
    _, output = await world.run("--switch", COLUMNS="250")
    instances = {row["instance_id"]: row for row in rows(world.bodies["instances"])}
    servers = json.loads(world.bodies["servers"])["servers"]
    names = {one["server_id"]: one["name"] for one in servers}
    running = {gpu["chute_id"] for gpu in json.loads(world.bodies["inventory"])}
    active = [instance for instance in instances.values() if instance["active"] is True]
    assert found["compared"] == len(active)
    assert len(found["proposed"]) >= 5
    for switch in found["proposed"]:
        instance = instances[switch["instance_id"]]
        launches = switch["launches"]
        assert switch["chute_id"] == instance["chute_id"]
        assert switch["chute_id"] != NEARLY
        assert switch["chute_id"] in running
        assert switch["server_name"] == names[switch["server_id"]]
        assert switch["gpu"] == "pro_6000"
        assert {launch["chute_id"] for launch in launches} == {NEARLY}
        assert sum(launch["gpus"] for launch in launches) == switch["gpus"]
        units_then = sum(launch["first_day_units"] for launch in launches)
        units_now = instance["compute_multiplier"] * 86400
        gain = pytest.approx(units_then - units_now, rel=0.01)
        assert switch["more_units_first_day"] == gain
        server = re.escape(switch["server_name"])
        line = rf"^{server} +{switch['instance_id']} +\S.*{NEARLY} +\d+ +"
        assert re.search(line, output, re.MULTILINE)
    whys = {switch["deletion"]["why"] for switch in found["proposed"]}
    assert whys == {"free", "first_hour", "private"}


def of_switches(page: Page, name: str, *pairs: tuple[str, str]) -> dict[str, float]:
    """Return the values of a metric about switches by the id of the instance.

    ``name`` is its name without the beginning. Only series with these pairs of a label and its text
    count.
    """
    values = {}
    for (metric, labels), value in page.items():
        if metric == f"chutes_instance_switch_{name}" and labels.issuperset(pairs):
            values[dict(labels)["instance_id"]] = value
    return values


async def test_the_page_has_the_switches_that_the_command_lists(world: PresentWorld) -> None:
    listed = (await world.found("--switch"))["switch"]["proposed"]
    page = await world.page()
    switches = {}
    for switch in listed:
        # The page lacks instances in their first hour, which would lose their score now.
        if switch["deletion"]["why"] != "first_hour":
            switches[switch["instance_id"]] = switch
    assert len(listed) > len(switches) >= 2
    launches = of_switches(page, "launch_instances")
    costs = of_switches(page, "cost_compute_units")
    gains = of_switches(page, "gain_compute_units_per_day", ("pay", "first_day"))
    (number,) = (value for (name, _), value in page.items() if name == "chutes_fleet_switches")
    assert number == len(switches)
    assert launches.keys() == costs.keys() == gains.keys() == switches.keys()
    for instance_id, switch in switches.items():
        (launch,) = switch["launches"]
        assert launches[instance_id] == launch["instances"]
        # Time goes on between the two.
        assert gains[instance_id] == pytest.approx(switch["more_units_first_day"], rel=1e-3)
        cost = switch["deletion"]["costs_units_now"]
        assert costs[instance_id] == pytest.approx(cost, rel=1e-2, abs=60)


async def test_new_chutes_whose_names_are_unknown_have_no_series(world: PresentWorld) -> None:
    changed = rows(world.bodies["chutes"])
    for row in changed:
        row["name"] = None
    world.bodies["chutes"] = stream(changed)
    page = await world.page()
    (count,) = (value for (name, _), value in page.items() if name == "chutes_fleet_switches")
    # The number of switches has no label with a name.
    assert count > 0
    assert of_switches(page, "launch_instances") == of_switches(page, "cost_compute_units") == {}


async def test_where_no_switch_pays_the_page_says_that_there_is_none() -> None:
    page = await PresentWorld(WORLD_C).page()
    found = {name: value for (name, _), value in page.items() if "switch" in name}
    assert found == {"chutes_fleet_switches": 0}


async def test_with_an_instance_that_cannot_be_compared_nobody_knows_how_many_there_are(
    world: PresentWorld,
) -> None:
    changed = rows(world.bodies["instances"])
    next(row for row in changed if row["active"])["compute_multiplier"] = None
    world.bodies["instances"] = stream(changed)
    page = await world.page()
    assert of_switches(page, "cost_compute_units")
    assert "chutes_fleet_switches" not in {name for name, _ in page}


@pytest.mark.parametrize("lost", ["one report", "utilization"])
async def test_if_an_answer_is_missing_that_a_switch_needs_the_page_has_nothing_about_switches(
    world: PresentWorld, lost: str
) -> None:
    if lost == "one report":
        # To know what failed, all reports of the past day are needed.
        world.forget_report(5)
    else:
        del world.bodies[lost]
    page = await world.page()
    assert not [name for name, _ in page if "switch" in name]


async def test_a_young_public_instance_waits_and_a_private_one_has_no_free_time(
    world: PresentWorld,
) -> None:
    found = (await world.found("--switch"))["switch"]
    text = await world.text("--switch")
    instances = {row["instance_id"]: row for row in rows(world.bodies["instances"])}
    waiting = 0
    for switch in found["proposed"]:
        instance, deletion = instances[switch["instance_id"]], switch["deletion"]
        activated_at = seconds(instance["activated_at"])
        assert activated_at is not None
        is_private = instance["billed_to"] is not None
        assert (deletion["why"] == "private") == is_private
        assert (deletion["free_from"] is None) == is_private
        if deletion["why"] == "first_hour":
            waiting += 1
            free_from = datetime.fromisoformat(deletion["free_from"])
            assert free_from.timestamp() == pytest.approx(activated_at + 3600, abs=1)
            words = f"Do not delete {switch['instance_id']} on {switch['server_name']} before "
            assert f"{words}{free_from:%Y-%m-%d %H:%M} UTC: in its first hour" in text
        else:
            assert f"Do not delete {switch['instance_id']}" not in text
    assert waiting >= 2


async def test_an_instance_whose_score_is_worth_more_is_kept_with_the_reason() -> None:
    world = PresentWorld(WORLD_C)
    found = (await world.found("--switch"))["switch"]
    assert found["proposed"] == []
    # The only instance of this world that would gain by a switch.
    (one,) = found["cost_too_much"]
    assert one["deletion"]["why"] == "last_active"
    assert one["deletion"]["costs_units_now"] > one["more_units_first_day"]
    # In this world, the deletion costs what the switch gains in three days.
    assert one["payback_hours"] == pytest.approx(72)
    text = await world.text("--switch")
    assert "Of 6 active instances, none is worth a switch." in text
    assert f"Keep chutes/model-28Eu-TEE ({one['instance_id']}) on tee-pro-3: (private) " in text
    assert (
        "(most, while no other miner runs the chute), which is earned back after 72 hours." in text
    )


async def test_with_prices_a_switch_has_dollars() -> None:
    world = PresentWorld(WORLD_C)
    without_prices = (await world.found("--switch"))["switch"]["cost_too_much"][0]
    assert without_prices["estimated_usd_more_first_day"] is None
    assert without_prices["deletion"]["estimated_usd_now"] is None
    # Now a chute pays so much, and has so much room, that switches to it are proposed.
    world.want(RICHER, 60, **RICH)
    day = json.loads(world.bodies["stats"])["past_day"]["instance_stats"]
    usd = EMISSION * ALPHA_USD / sum(row["compute_units"] for row in day)
    async with chain_flag() as chain:
        found = (await world.found("--switch", chain))["switch"]
        _, output = await world.run("--switch", chain, COLUMNS="250")
    assert len(found["proposed"]) >= 2
    for switch in found["proposed"]:
        first_day = switch["more_units_first_day"] * usd
        assert switch["estimated_usd_more_first_day"] == pytest.approx(first_day)
        later = switch["more_units_per_day_later"] * usd
        assert switch["estimated_usd_more_per_day_later"] == pytest.approx(later)
        cost = switch["deletion"]["costs_units_now"] * usd
        assert switch["deletion"]["estimated_usd_now"] == pytest.approx(cost)
    assert "more later  USD day 1  USD later" in output
    net = 0.0
    for switch in found["proposed"]:
        net += switch["estimated_usd_more_first_day"]
        # An instance whose deletion will be free can wait until then, so it costs nothing.
        if switch["deletion"]["free_from"] is None:
            net -= switch["deletion"]["estimated_usd_now"]
    said = re.search(r"in the first day, about ([\d,.]+) USD, less what", output)
    assert said is not None
    # Time goes on between the two outputs.
    assert float(said[1].replace(",", "")) == pytest.approx(net, rel=1e-3)


async def test_a_proposed_switch_needs_action_and_the_plan_can_be_asked_for_too(
    world: PresentWorld,
) -> None:
    code, output = await world.run("--switch")
    assert code == 1
    # With this flag alone, the screen has neither the plan nor the offers for idle GPUs.
    assert "units day 1" not in output
    assert "idle GPU" not in output
    text = await world.text("--switch", "--plan")
    assert "Together" in text
    assert "Other chutes pay over 10 % more than" in text
    # Without the flag, no instance is compared.
    assert (await world.found())["switch"] is None


async def test_nothing_is_switched_to_what_failed_here(world: PresentWorld) -> None:
    world.want(FAILING, 60, **(RICH | {"effective_compute_multiplier": 80.0}))
    found = await world.found("--switch")
    assert FAILING not in str(found["switch"])
    assert NEARLY in str(found["switch"])


@pytest.mark.parametrize("lost", ["reports", "one report", "utilization", "inventory"])
async def test_without_an_answer_that_decides_no_switch_is_known(
    world: PresentWorld, lost: str
) -> None:
    if lost == "one report":
        world.forget_report(5)
    else:
        del world.bodies["audit" if lost == "reports" else lost]
    found = await world.found("--switch")
    assert found["switch"] is None
    assert "what to run instead" in found["gaps"]
    text = await world.text("--switch")
    assert "What to run instead of active instances is not known." in text
    assert "? what to run instead: it needs" in text
    assert "worth a switch" not in text


async def test_an_instance_of_which_something_is_not_known_is_named(world: PresentWorld) -> None:
    before = (await world.found("--switch"))["switch"]
    chosen = before["proposed"][0]["instance_id"]
    instances = rows(world.bodies["instances"])
    for instance in instances:
        if instance["instance_id"] == chosen:
            instance["compute_multiplier"] = None
    world.bodies["instances"] = stream(instances)
    after = await world.found("--switch")
    assert after["switch"]["compared"] == before["compared"] - 1
    assert f"what to run instead of {chosen}" in after["gaps"]
    assert chosen not in str(after["switch"])
