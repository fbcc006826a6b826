"""The command ``status``. Its figures are worked out anew from the simulated world, without API and
collectors.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.simulator import DemoWorld, Fault, Simulator, Size
from chutes_exporter.simulator.answers import Call, maintenance
from tests.commands.support import MINE, another_key, run
from tests.simulator.farm import L40S, Farm, Machine
from tests.support import HOTKEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

COSTS = ("--gpu.cost", "l40s=0.5", "--gpu.cost", "h200=3")


async def status(simulator: Simulator, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run the command; returns its exit status and what it wrote."""
    return await run(simulator, "status", *arguments, variables=variables)


async def report(
    simulator: Simulator, *arguments: str, **variables: str
) -> tuple[int, dict[str, Any]]:
    code, output, _ = await status(simulator, "--json", *arguments, **variables)
    return code, json.loads(output)


def kinds(found: dict[str, Any]) -> dict[str, int]:
    return {one["kind"]: one["count"] for one in found["findings"] if one["needs_action"]}


@pytest.fixture
def farm() -> Farm:
    """A quiet world: every GPU of the first miner earns. There is room for more."""
    machines = (Machine("l40s", 4), Machine("h200", 4))
    return Farm(time.time(), [machines], {"l40s": 4, "h200": 4})


@pytest.fixture
async def quiet(farm: Farm) -> AsyncIterator[Simulator]:
    # The machine's own clock: the command sees it too.
    async with Simulator(farm, clock=time.time) as simulator:
        yield simulator


async def test_a_miner_has_its_place_and_its_estimated_earnings(
    quiet: Simulator, farm: Farm
) -> None:
    _, found = await report(quiet, *COSTS, f"--chain.url={quiet.chain_url}", **MINE)
    (miner,) = found["miners"]
    shares = farm.shares(time.time())
    better = [share for share in shares.values() if share > shares[HOTKEY]]
    assert miner["rank"] == 1 + len(better)
    assert miner["scored_miners"] == len(shares)
    assert miner["share"] == pytest.approx(shares[HOTKEY], rel=1e-3)
    assert 0 < miner["heading_share"] < 1
    incentives = {hotkey: incentive for hotkey, _, incentive in farm.seats(time.time())}
    incentive_share = incentives[HOTKEY] / sum(incentives.values())
    assert miner["incentive_share"] == pytest.approx(incentive_share, rel=1e-3)
    # All miners get 2952 alpha a day, which cost 0.071 TAO each, and a TAO costs 431.17 dollars.
    alpha = pytest.approx(2952 * miner["incentive_share"], rel=1e-3)
    assert miner["estimated_alpha_per_day"] == alpha
    usd = pytest.approx(miner["estimated_alpha_per_day"] * 0.071027253 * 431.17)
    assert miner["estimated_usd_per_day"] == usd
    # Four l40s at 0.5 dollars and four h200 at 3, of which none is idle.
    assert (miner["cost_usd_per_hour"], miner["idle_cost_usd_per_hour"]) == (14, 0)


async def test_a_share_that_is_too_large_for_percent_is_a_dash(quiet: Simulator) -> None:
    body = {"final_scores": {HOTKEY: 1e307}, "raw_values": {}}
    quiet.faults["scores"] = Fault(body=json.dumps(body).encode())
    _, output, errors = await status(quiet, **MINE)
    assert errors == ""
    assert "Score share -, heading for" in output
    assert "inf" not in output


async def test_where_nothing_needs_action_the_exit_status_is_0(
    quiet: Simulator, farm: Farm
) -> None:
    # An instance that became active within the past hour is a note.
    now = time.time()
    _relaunch(farm, now, now - 1800, 600)
    code, found = await report(quiet, **MINE)
    assert (code, found["action_needed"], found["all_known"]) == (0, False, True)
    note = found["findings"][0]
    assert note["kind"] == "unsecured_instances"
    assert found["not_known"] == []
    (miner,) = found["miners"]
    assert miner["gpus"]["h200"] == {
        "earning": 4,
        "starting": 0,
        "disabled": 0,
        "idle": 0,
        "unverified": 0,
    }
    assert miner["cost_usd_per_hour"] is miner["estimated_alpha_per_day"] is None
    code, output, errors = await status(quiet, **MINE)
    assert (code, errors) == (0, "")
    assert output.startswith("Nothing needs action.\n")
    assert f"\n-  {note['problem']}\n" in output
    assert (
        "For costs, add --gpu.cost MODEL=USD_PER_HOUR.\nFor earnings in US dollars, add "
        "--chain.url URL.\n" in output
    )


async def test_each_endpoint_is_asked_once_and_only_those_that_the_screen_needs(
    quiet: Simulator,
) -> None:
    await status(quiet, **MINE)
    asked = sorted(one.endpoint for one in quiet.requests)
    needed = (
        "active_instances audit bounties chutes held_gpus instances inventory jobs maintenance "
        "metagraph miner_gpus nodes scores servers supported_gpus tee_measurements utilization"
    )
    # Each of the newest 6 hours has a report.
    reports = ["audit_report"] * 6
    assert asked == sorted([*needed.split(), *reports])


def _stick(farm: Farm, _now: float) -> None:
    farm.stuck += [HOTKEY, HOTKEY]


def _relaunch(farm: Farm, now: float, created: float, activated: float) -> None:
    """Let an instance on the first server be another one.

    Args:
        farm: The world.
        now: The present, in Unix time.
        created: When the new one was created, in Unix time.
        activated: Seconds from then until it was active, infinite if it still starts.
    """
    (old, *_) = farm.on(farm.miners[0], 0, now)
    farm.end([old], now - 5 * 3600)
    verified = math.inf if activated == math.inf else 90
    farm.launch(farm.miners[0], old.gpus, L40S, created, verified=verified, activated=activated)


async def test_actions_are_numbered_by_cost_and_have_a_command(
    quiet: Simulator, farm: Farm
) -> None:
    # Two jobs are stuck, an instance has been starting for 3 hours, and all four h200, which cost
    # 3 dollars an hour each, are idle.
    now = time.time()
    _stick(farm, now)
    _relaunch(farm, now, now - 3 * 3600, math.inf)
    farm.end(farm.on(farm.miners[0], 1, now), now)
    _, found = await report(quiet, *COSTS, **MINE)
    code, output, _ = await status(quiet, *COSTS, **MINE)
    assert code == 1
    assert output.startswith("3 things need action, 12.00 USD per hour idle.\n")
    assert list(kinds(found).items()) == [("idle_gpus", 4), ("purges", 1), ("stuck_jobs", 2)]
    screen = " ".join(output.split())
    for number, finding in enumerate(found["findings"], 1):
        # The minutes until the purge may be others by now.
        sentence = re.escape(finding["problem"].partition(" in ")[0])
        cost = ""
        if finding["gpus"]:
            cost = f" {finding['cost_usd_per_hour']:.2f} USD per hour. [^→]*{finding['things'][0]}"
        advice = f"{finding['advice']}: {finding['command']}"
        assert re.search(rf"{number}\. {sentence}[^→]*{cost}[^→]* → {advice}", screen)
    assert "kubectl --context l40s-0 " in screen
    findings = {finding["kind"]: finding for finding in found["findings"]}
    (idle_server,) = findings["idle_gpus"]["servers"]
    assert idle_server["name"] == "h200-1"
    assert idle_server["server_id"] == farm.miners[0].servers[1].server_id
    (starting_server,) = findings["purges"]["servers"]
    assert starting_server["name"] == "l40s-0"
    (instance,) = findings["purges"]["instances"]
    assert (instance["chute_name"], instance["server_name"]) == ("l40s-model", "l40s-0")
    assert instance["created_at"] == pytest.approx(now - 3 * 3600, abs=1)
    row = f"l40s-model {instance['chute_id']} l40s-0 180"
    assert f" chute chute id server age min {row} → " in screen


def _upgrade(farm: Farm, *, pending_for: float, now: float, index: int = 1) -> None:
    """Let the upgrade of a server of the first miner have begun an hour ago.

    ``pending_for`` is for how many seconds since then its maintenance is pending, and ``index`` the
    place of the server among those of the miner.
    """
    miner = farm.miners[0]
    servers = list(miner.servers)
    slot = (now - 3600, now + 9 * 3600)
    servers[index] = replace(servers[index], upgrade=slot, pending_for=pending_for)
    miner.servers = tuple(servers)


async def test_a_pending_server_says_what_it_waits_for_and_until_when(
    quiet: Simulator, farm: Farm
) -> None:
    now = time.time()
    _upgrade(farm, pending_for=3 * 3600, now=now)
    code, found = await report(quiet, **MINE)
    assert (code, {one["kind"] for one in found["findings"]}) == (1, {"maintenance_pending"})
    (server,) = found["miners"][0]["maintenance"]
    assert (server["name"], server["status"]) == ("h200-1", "pending")
    assert server["until"] == pytest.approx(now + 2 * 3600, abs=1)
    assert {one["instance_id"] for one in server["waits_for"]} == {
        one.instance_id for one in farm.on(farm.miners[0], 1, now)
    }
    _, output, _ = await status(quiet, **MINE)
    screen = " ".join(output.split())
    assert "of their chutes may still serve, for up to 3 hours. h200-1 (" in screen
    assert "→ Do not reboot it before the status is maintenance and nothing runs there: " in screen
    assert "h200-1: pending, until 4 instances have a replacement (chutes " in screen
    assert ", at the latest in 2 hours (" in screen
    # Each of the two commands asked once.
    assert [one.endpoint for one in quiet.requests].count("server_maintenance") == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(body=b'{"awaiting_replacement": []}'), ", and waits for no instance any more"),
        (
            Fault(body=b'{"awaiting_replacement": [{"chute_id": "c"}]}'),
            ", until 1 instance has a replacement (chutes c)",
        ),
        (Fault(status=503), ""),
    ],
)
async def test_a_pending_server_without_a_deadline_still_says_what_it_waits_for(
    quiet: Simulator, farm: Farm, fault: Fault, words: str
) -> None:
    _upgrade(farm, pending_for=3 * 3600, now=time.time())
    quiet.faults["server_maintenance"] = fault
    code, output, _ = await status(quiet, **MINE)
    assert code == 1
    assert f"\nh200-1: pending{words}.\n" in output
    assert ("? server_maintenance of h200-1: 503" in output) == (not words)


async def test_a_maintenance_status_that_is_not_known_is_never_fine(
    quiet: Simulator, farm: Farm
) -> None:
    # The answer of the API to the miner, with a status that this version does not know.
    policy = maintenance(Call(farm, time.time(), farm.miners[0], {}, {}))
    next(server for server in policy["servers"] if server["name"] == "h200-1")[
        "maintenance_status"
    ] = "draining"
    quiet.faults["maintenance"] = Fault(body=json.dumps(policy).encode())
    code, found = await report(quiet, **MINE)
    (gap,) = found["not_known"]
    assert (code, gap["feed"], found["findings"]) == (3, "maintenance", [])
    assert gap["reason"] == "the answer has no known maintenance status of h200-1"


async def test_a_miner_without_a_seat_is_said_beside_what_is_refused(
    quiet: Simulator, farm: Farm
) -> None:
    farm.deregister(farm.by_hotkey[HOTKEY])
    code, found = await report(quiet, **MINE)
    assert code == 1
    assert kinds(found) == {"not_registered": 1}
    # The service refuses signed requests of a miner without a seat.
    assert "nodes" in {one["feed"] for one in found["not_known"]}
    code, output, _ = await status(quiet, **MINE)
    assert code == 1
    assert "\nGPUs: -\n" in output
    assert "\nScore share -, heading for -. Rank -." in output
    # Not again for each feed that is refused.
    assert output.count("not registered") == 1


async def test_the_price_of_a_server_comes_before_that_of_its_model() -> None:
    machines = (Machine("h200", 4), Machine("h200", 4, idle=4))
    farm = Farm(time.time(), [machines], {"h200": 4})
    earning, idle = (server.name for server in farm.miners[0].servers)
    prices = (f"--server.cost={earning}=1", f"--server.cost={idle}=2", "--gpu.cost=h200=7")
    async with Simulator(farm, clock=time.time) as simulator:
        _, found = await report(simulator, *prices, **MINE)
        _, output, _ = await status(simulator, *prices, "--server.cost=gone=9", **MINE)
    (miner,) = found["miners"]
    assert (miner["cost_usd_per_hour"], miner["idle_cost_usd_per_hour"]) == (12, 8)
    (finding,) = (one for one in found["findings"] if one["kind"] == "idle_gpus")
    assert finding["cost_usd_per_hour"] == 8
    assert found["servers_not_found"] == []
    assert output.startswith("1 thing needs action, 8.00 USD per hour idle.\n")
    assert re.search(r"^h200( +\d){6} +12 +8$", output, re.MULTILINE)
    assert "\nNo server has the name gone of --server.cost.\n" in output


async def test_a_model_without_a_cost_is_named(quiet: Simulator, farm: Farm) -> None:
    now = time.time()
    farm.end(farm.on(farm.miners[0], 0, now), now)
    _, output, _ = await status(quiet, *COSTS, f"--chain.url={quiet.chain_url}", **MINE)
    assert re.search(r"^all( +\d){6} +14 +2$", output, re.MULTILINE)
    assert re.search(
        r"^Estimated earnings per day: [\d.,]+ alpha, [\d.,]+ USD\.$", output, re.MULTILINE
    )
    # Now the h200 alone has a cost.
    _, output, _ = await status(quiet, *COSTS[2:], **MINE)
    assert output.startswith("1 thing needs action, 4 GPUs idle at an unknown cost.\n")
    assert " Cost unknown.\n   4 l40s on l40s-0\n" in output
    assert re.search(r"^all( +\d){6} +- +-$", output, re.MULTILINE)
    assert (
        "\nThe cost of l40s is unknown: add --gpu.cost l40s=USD_PER_HOUR.\nFor earnings in US "
        "dollars, add" in output
    )
    assert "Estimated earnings" not in output


async def test_without_any_answer_the_screen_says_that_nothing_is_known(farm: Farm) -> None:
    async with Simulator(farm, clock=time.time) as gone:
        pass
    code, output, _ = await status(gone, **MINE)
    assert code == 3
    assert output.startswith("Nothing is known, because no request succeeded.\n")
    assert "Nothing needs action" not in output


async def test_a_chute_that_fails_again_and_again_needs_action_and_is_named_with_its_server() -> (
    None
):
    size = Size(miners=8, active_miners=4, chutes=60, other_servers=2)
    world = DemoWorld(start=time.time(), troubles=["failing-chute"], size=size)
    async with Simulator(world) as simulator:
        code, output, _ = await status(simulator, **MINE)
        assert code == 1
        text = " ".join(output.split())
        assert "1 chute fails again and again: 3 times or more in the 6 hours before the " in text
        assert re.search(r"\(\d+ times, all by requests\), which starts on pro-6000-7 now", text)
        # Without the reports, it is not known what failed, and the missing reports are named.
        simulator.faults["audit_report"] = Fault(status=503)
        code, output, _ = await status(simulator, **MINE)
        assert (code, "again and again" in output) == (3, False)
        assert "the report of " in output


async def test_without_a_key_only_public_data_is_shown(quiet: Simulator, farm: Farm) -> None:
    # GPUs are idle, which only private data shows.
    farm.end(farm.on(farm.miners[0], 0, time.time()), time.time())
    code, output, _ = await status(quiet, "--hotkey", HOTKEY)
    assert code == 3
    assert output.startswith("Not everything is known. Nothing that is known needs action.\n")
    assert (
        "? servers, GPUs, instances, jobs: not known without a key\n  → Add --hotkey-file" in output
    )
    asked = {one.endpoint for one in quiet.requests}
    assert asked == {"metagraph", "scores", "audit", "audit_report"}
    assert not any(one.signed for one in quiet.requests)


async def test_several_miners_have_a_section_each(quiet: Simulator, farm: Farm) -> None:
    other = farm.miners[3].hotkey
    _stick(farm, 0)
    code, found = await report(quiet, "--hotkey", other, **MINE)
    assert code == 1
    assert [one["hotkey"] for one in found["miners"]] == sorted([HOTKEY, other])
    assert [one["hotkey"] for one in found["findings"] if one["needs_action"]] == [HOTKEY]


async def test_a_fleet_of_one_model_has_no_line_of_sums_and_one_without_gpus_needs_nothing(
    tmp_path: Path,
) -> None:
    async with Simulator(Farm(time.time(), [(Machine("l40s", 2),)]), clock=time.time) as simulator:
        _, output, _ = await status(simulator, **MINE)
        # This miner has no GPUs.
        another_key(tmp_path / "hotkey", simulator, 5)
        assert (await status(simulator, "--hotkey-file", str(tmp_path / "hotkey")))[0] == 0
    assert re.search(r"^GPUs +unverified +idle +starting +disabled +earning", output, re.MULTILINE)
    assert re.search(r"^l40s +0 +0 +0 +0 +2 +2$", output, re.MULTILINE)
    assert "\nall" not in output


async def test_the_screen_fits_80_columns_and_cannot_be_steered_by_the_api() -> None:
    models = ("4090", "a100", "l40s", "h200", "b200", "pro_6000")
    machines = [Machine(model, 8, idle=8) for model in models]
    farm = Farm(time.time(), [machines], dict.fromkeys(models, 8))
    servers = []
    for number, server in enumerate(farm.miners[0].servers):
        # Printed as it is, the name would clear the screen.
        name = f"\x1b[2Jserver-{'x' * 60}-{number}"
        servers.append(replace(server, version="1.3.1", name=name))
    farm.miners[0].servers = tuple(servers)
    async with Simulator(farm, clock=time.time) as simulator:
        code, output, _ = await status(simulator, *COSTS, COLUMNS="80", **MINE)
    assert code == 1
    assert all(len(line) <= 80 and line == line.rstrip() for line in output.splitlines())
    assert "\x1b" not in output
    # Five of the six servers are named.
    screen = " ".join(output.split())
    assert re.search(r" Cost unknown\. 8 4090 on .*, 8 l40s on \S+ and 1 more → Deploy", screen)
