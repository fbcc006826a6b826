"""The command ``status``. Its figures are worked out anew from the simulated world, without API and collectors."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.commands.status import run_status
from chutes_exporter.simulator import Fault, Simulator, Size, World
from chutes_exporter.simulator.world import TEST_SEED
from tests.commands.support import run
from tests.simulator.farm import L40S, Farm, Machine
from tests.support import HOTKEY, Clock, watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MINE = {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
COSTS = ("--gpu.cost", "l40s=0.5", "--gpu.cost", "h200=3")


async def status(simulator: Simulator, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run the command; returns its exit status and what it wrote."""
    return await run(simulator, "status", *arguments, variables=variables)


async def report(simulator: Simulator, *arguments: str, **variables: str) -> tuple[int, dict[str, Any]]:
    code, output, _ = await status(simulator, "--json", *arguments, **variables)
    return code, json.loads(output)


def kinds(found: dict[str, Any]) -> dict[str, int]:
    return {one["kind"]: one["count"] for one in found["findings"] if one["needs_action"]}


@pytest.fixture
def farm() -> Farm:
    """A quiet world: every GPU of the first miner earns."""
    return Farm(time.time(), [(Machine("l40s", 4), Machine("h200", 4))])


@pytest.fixture
async def quiet(farm: Farm) -> AsyncIterator[Simulator]:
    # The machine's own clock: the command sees it too.
    async with Simulator(farm, clock=time.time) as simulator:
        yield simulator


async def test_every_figure_is_that_of_the_simulated_world() -> None:
    # Nothing changes while the command asks.
    clock = Clock(time.time())
    world = World(start=clock() - 3600, size=Size(miners=20, active_miners=10, chutes=60))
    costs = {
        "4090": 0.25,
        "5090": 0.5,
        "a100": 1.0,
        "l40s": 0.5,
        "h100_sxm": 2.0,
        "h200": 3.0,
        "b200": 4.0,
        "pro_6000": 1.5,
    }
    figures = [f"--gpu.cost={model}={cost}" for model, cost in costs.items()]
    async with Simulator(world, clock=clock) as simulator:
        _, found = await report(simulator, *figures, "--subnet.daily-emission=7200", "--alpha.price=0.5", **MINE)
    expected = _expected(world, clock(), costs)
    (miner,) = found["miners"]
    assert miner["gpus"] == expected.pop("gpus")
    assert {key: miner[key] for key in expected} == pytest.approx(expected, rel=1e-9)
    assert miner["heading_share"] == pytest.approx(_heading(world, clock()), rel=1e-4)
    assert kinds(found) == _expected_actions(world, clock())


def _states(world: World, now: float) -> dict[str, Counter[str]]:
    """Return the GPUs of the first miner by model and state, from the lives of instances and registrations."""
    holders = {gpu.uuid: one for one in world.instances(now, HOTKEY) for gpu in one.gpus}
    found: dict[str, Counter[str]] = {}
    for gpu in world.miners[0].gpus:
        holder = holders.get(gpu.uuid)
        if holder is None:
            state = "idle" if gpu.verified_at else "unverified"
        elif holder.active(now):
            state = "earning"
        else:
            state = "disabled" if holder.activated(now) else "starting"
        found.setdefault(gpu.model, Counter())[state] += 1
    return found


def _expected(world: World, now: float, costs: dict[str, float]) -> dict[str, Any]:
    shares, incentives = world.shares(now), world.incentives(now)
    states = _states(world, now)
    incentive = incentives[HOTKEY] / sum(incentives.values())
    return {
        "rank": 1 + sum(share > shares[HOTKEY] for share in shares.values()),
        "scored_miners": len(shares),
        "share": shares[HOTKEY],
        "incentive_share": incentive,
        "cost_usd_per_hour": sum(costs[model] * counts.total() for model, counts in states.items()),
        "idle_cost_usd_per_hour": sum(costs[model] * counts["idle"] for model, counts in states.items()),
        "estimated_alpha_per_day": incentive * 7200,
        "estimated_usd_per_day": incentive * 3600,
        "gpus": {
            model: {state: counts[state] for state in ("earning", "starting", "disabled", "idle", "unverified")}
            for model, counts in states.items()
        },
    }


def _heading(world: World, now: float) -> float:
    rates: Counter[str] = Counter()
    for one in world.instances(now):
        blacklisted = world.by_hotkey[one.hotkey].blacklist_reason
        # The miner's own disabled instances count, because they are known.
        counted = one.active(now) or (one.hotkey == HOTKEY and one.disabled(now) and one.activated(now))
        if counted and not blacklisted:
            rates[one.hotkey] += one.multiplier(now)  # type: ignore[assignment]
    return rates[HOTKEY] / sum(rates.values())


def _number(version: str | None) -> list[int]:
    assert version is not None
    return [int(part) for part in version.split(".")]


def _expected_actions(world: World, now: float) -> dict[str, int]:
    states = _states(world, now)
    instances = world.instances(now, HOTKEY)
    stuck = sum(
        1 for job in world.jobs(now) if job.finished_at is None and job.miner is not None and job.miner.hotkey == HOTKEY
    )
    purges = 0
    for one in instances:
        if not one.activated(now):
            probed = one.last_verified_at(now)
            purges += now > (one.created_at + 3.5 * 3600 if probed is None else probed + 3 * 3600) - 45 * 60
    servers = world.miners[0].servers
    versions = [server.version_at(now) for server in servers if server.is_tee]
    upgrades = sum(_number(version) < _number(world.target) for version in versions)
    return {
        kind: count
        for kind, count in {
            "stuck_jobs": stuck,
            "purges": purges,
            "versions_refused": sum(version not in world.accepted_versions for version in versions),
            "upgrades": upgrades,
            "servers_without_tee": sum(not server.is_tee for server in servers),
            "unverified_gpus": sum(counts["unverified"] for counts in states.values()),
            "idle_gpus": sum(counts["idle"] for counts in states.values()),
        }.items()
        if count
    }


async def test_where_nothing_needs_action_the_exit_status_is_0(quiet: Simulator, farm: Farm) -> None:
    # A launch within the past hour is a note.
    now = time.time()
    _relaunch(farm, now, now - 1800, 600)
    code, found = await report(quiet, **MINE)
    assert (code, found["action_needed"], found["all_known"]) == (0, False, True)
    assert next(one["kind"] for one in found["findings"]) == "unsecured_instances"
    assert found["not_known"] == []
    (miner,) = found["miners"]
    assert miner["gpus"]["h200"] == {"earning": 4, "starting": 0, "disabled": 0, "idle": 0, "unverified": 0}
    assert miner["cost_usd_per_hour"] is miner["estimated_alpha_per_day"] is None
    code, output, errors = await status(quiet, **MINE)
    assert (code, errors) == (0, "")
    assert output.startswith("Nothing needs action.\n")
    assert "\n-  Do not stop this instance before " in output
    assert "For costs, add --gpu.cost MODEL=USD_PER_HOUR.\nFor estimated earnings, add --subnet." in output


async def test_each_endpoint_is_asked_once_and_the_public_ones_without_a_signature(quiet: Simulator) -> None:
    await status(quiet, **MINE)
    asked = {one.endpoint: one.signed for one in quiet.requests}
    assert asked == {
        "metagraph": False,
        "scores": False,
        "active_instances": True,
        "servers": True,
        "nodes": True,
        "inventory": True,
        "instances": True,
        "jobs": True,
        "maintenance": True,
        "miner_gpus": False,
        "tee_measurements": False,
    }
    assert len(quiet.requests) == len(asked)


def _stick(farm: Farm, _now: float) -> None:
    farm.stuck += [HOTKEY, HOTKEY]


def _relaunch(farm: Farm, now: float, created: float, activated: float | None) -> None:
    (old, *_) = farm.on(farm.miners[0], 0, now)
    farm.end([old], now - 5 * 3600)
    verified = None if activated is None else 90
    farm.launch(farm.miners[0], old.gpus, L40S, created, verified=verified, activated=activated)


async def test_actions_are_numbered_by_cost_and_have_a_command(quiet: Simulator, farm: Farm) -> None:
    now = time.time()
    _stick(farm, now)
    _relaunch(farm, now, now - 3 * 3600, None)
    farm.end(farm.on(farm.miners[0], 1, now), now)
    code, output, _ = await status(quiet, *COSTS, **MINE)
    assert code == 1
    assert output.startswith("3 things need action, 12.00 USD per hour idle.\n")
    actions = re.findall(r"^(\d\. .*)\n(?:   (.*)\n)?   → (.*)$", output.replace("\n   0.", " 0."), re.MULTILINE)
    assert [(text, things) for text, things, _ in actions[::2]] == [
        ("1. 4 GPUs are idle. 12.00 USD per hour.", "4 h200"),
        ("3. 2 jobs are stuck with the miner.", ""),
    ]
    assert actions[1][0].startswith("2. 1 instance has not started. The service deletes it in ")
    assert actions[1][0].endswith(" UTC). 0.50 USD per hour.")
    assert actions[1][1].startswith("l40s-model")
    assert [command for *_, command in actions] == [
        "Deploy chutes on them: chutes-exporter advise",
        "Look at its pod: kubectl --context l40s-0 -n chutes get pods",
        "List and release them: chutes-exporter release-job",
    ]


async def test_a_miner_without_a_seat_is_said_beside_what_is_refused(quiet: Simulator, farm: Farm) -> None:
    assert HOTKEY in farm.by_hotkey
    farm.deregister(farm.miners[0])
    code, found = await report(quiet, **MINE)
    assert code == 1
    assert kinds(found) == {"not_registered": 1}
    assert "nodes" in {one["feed"] for one in found["not_known"]}
    code, output, _ = await status(quiet, **MINE)
    assert code == 1
    assert "\nGPUs: -\n" in output
    assert "\nScore share -, heading for -. Rank -." in output
    assert output.count("not registered") == 1


async def test_a_model_without_a_cost_is_named(quiet: Simulator, farm: Farm) -> None:
    now = time.time()
    farm.end(farm.on(farm.miners[0], 0, now), now)
    money = ("--subnet.daily-emission", "7200", "--alpha.price", "2")
    _, output, _ = await status(quiet, *COSTS, *money, **MINE)
    assert re.search(r"^all( +\d){6} +14 +2$", output, re.MULTILINE)
    assert re.search(r"^Estimated earnings per day: [\d.,]+ alpha, [\d.,]+ USD\.$", output, re.MULTILINE)
    _, output, _ = await status(quiet, *COSTS[2:], *money[:2], **MINE)
    assert output.startswith("1 thing needs action, 4 GPUs idle at an unknown cost.\n")
    assert "\n1. 4 GPUs are idle. Cost unknown.\n" in output
    assert re.search(r"^all( +\d){6} +- +-$", output, re.MULTILINE)
    assert "\nThe cost of l40s is unknown: add --gpu.cost l40s=USD_PER_HOUR.\nFor estimated earnings, add" in output
    assert re.search(r"^Estimated earnings per day: [\d.,]+ alpha\.$", output, re.MULTILINE)


async def test_a_failed_request_is_reported_and_the_exit_status_is_3(quiet: Simulator) -> None:
    quiet.faults["jobs"] = Fault(status=503)
    code, found = await report(quiet, **MINE)
    assert (code, found["action_needed"], found["all_known"]) == (3, False, False)
    (gap,) = found["not_known"]
    assert (gap["feed"], gap["reason"]) == ("jobs", "503 simulated fault")
    code, output, _ = await status(quiet, **MINE)
    assert code == 3
    assert "? jobs: 503 simulated fault\n  → " in output
    assert output.startswith("Nothing needs action, as far as known.\n")


async def test_without_any_answer_the_screen_says_that_nothing_is_known(farm: Farm) -> None:
    async with Simulator(farm, clock=time.time) as gone:
        pass
    code, output, _ = await status(gone, **MINE)
    assert code == 3
    assert output.startswith("Nothing is known, because no request succeeded.\n")
    assert "Nothing needs action" not in output


async def test_without_a_key_only_public_data_is_shown(quiet: Simulator, farm: Farm) -> None:
    farm.end(farm.on(farm.miners[0], 0, time.time()), time.time())
    code, output, _ = await status(quiet, "--hotkey", HOTKEY)
    assert code == 0
    assert output.startswith("Nothing needs action, as far as known.\n")
    assert "it is not known whether GPUs, instances, jobs or" in output
    assert {one.endpoint for one in quiet.requests} == {"metagraph", "scores", "miner_gpus"}
    assert not any(one.signed for one in quiet.requests)


async def test_several_miners_have_a_section_each(quiet: Simulator, farm: Farm) -> None:
    other = farm.miners[3].hotkey
    _stick(farm, 0)
    code, found = await report(quiet, "--hotkey", other, **MINE)
    assert code == 1
    assert [one["hotkey"] for one in found["miners"]] == sorted([HOTKEY, other])
    assert [one["hotkey"] for one in found["findings"] if one["needs_action"]] == [HOTKEY]


async def test_a_fleet_of_one_model_has_no_line_of_sums() -> None:
    async with Simulator(Farm(time.time(), [(Machine("l40s", 2),)]), clock=time.time) as simulator:
        _, output, _ = await status(simulator, **MINE)
    assert re.search(r"^l40s +2 +0 +0 +0 +0 +2$", output, re.MULTILINE)
    assert "\nall" not in output


async def test_a_miner_with_nothing_has_no_gpus(farm: Farm) -> None:
    newcomer = farm.miners[5].key
    async with Simulator(farm, clock=time.time) as simulator:
        settings = watching(simulator.url, newcomer)
        assert await run_status(settings, as_json=False) == 0


async def test_the_screen_fits_80_columns_and_cannot_be_steered_by_the_api() -> None:
    machines = [Machine(model, 8, idle=8) for model in ("4090", "a100", "l40s", "h200", "b200", "pro_6000")]
    farm = Farm(time.time(), [machines])
    farm.miners[0].servers = tuple(
        replace(server, version="1.3.1", name=f"\x1b[2Jserver-{'x' * 60}-{number}")
        for number, server in enumerate(farm.miners[0].servers)
    )
    async with Simulator(farm, clock=time.time) as simulator:
        code, output, _ = await status(simulator, *COSTS, COLUMNS="80", **MINE)
    assert code == 1
    assert all(len(line) <= 80 and line == line.rstrip() for line in output.splitlines())
    assert "\x1b" not in output
    assert "48 GPUs are idle. Cost unknown.\n   8 4090, 8 a100, 8 b200, 8 h200, 8 l40s and 1 more\n" in output


async def test_a_wrong_command_line_has_the_exit_status_2_and_names_the_flag(quiet: Simulator) -> None:
    for arguments, words in (
        ((), "status needs a miner: add --hotkey or --hotkey-file"),
        (("--gpu.cost", "h100"), "'h100' is not a name, = and a number"),
        (("--hotkey", "5x"), "SS58 address"),
        (("--alpha.price", "much"), "'--alpha.price'"),
    ):
        code, output, errors = await status(quiet, *arguments)
        assert (code, output) == (2, "")
        assert words in errors
    assert not quiet.requests


async def test_an_unknown_model_is_warned_of_on_standard_error(quiet: Simulator) -> None:
    code, output, errors = await status(quiet, "--json", "--gpu.cost", "rtx9000=1", **MINE)
    assert code == 0
    assert json.loads(output)["action_needed"] is False
    assert "Warning: --gpu.cost has an unknown GPU model: rtx9000. The known models are 3090," in errors
