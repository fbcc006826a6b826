"""The simulated answers have the fields of recorded ones, and agree with each other."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.simulator import DemoWorld, Simulator, World
from chutes_exporter.simulator.times import DAY, HOUR, MINUTE
from tests.support import HOTKEY, KEY, NOON, RECORDINGS, Clock, get

if TYPE_CHECKING:
    from pathlib import Path

Row = dict[str, Any]

PATHS = {
    **{one.name: one.path for one in ENDPOINTS if one.name not in ("chute", "release_job", "thrash_cooldowns")},
    "unique_chute_history": f"/miner/unique_chute_history/{HOTKEY}",
    "stats_per_chute": "/miner/stats?per_chute=true",
    "held_gpus": "/nodes/?detailed=true",
    "miner_gpus": f"/nodes/?detailed=true&hotkey={HOTKEY}",
    "instances": "/miner/instances/?explicit_null=true",
}
"""The request of each answer."""
FILES = {
    "maintenance": "maintenance_policy",
    "held_gpus": "nodes_detailed",
    "miner_gpus": "nodes_detailed_one",
    "supported_gpus": "nodes_supported",
}
"""The recordings whose names differ."""
FREE_KEYS = {
    "compute_multiplier_factors",
    "permitted",
    "job_args",
    "result",
    "extra",
    "raw_values",
    "final_scores",
    "idle",
}
"""Objects whose keys are no fields."""


def parsed(body: bytes) -> Any:
    """Return the JSON of an answer. A stream is a list."""
    if not body.startswith(b"data: "):
        return json.loads(body)
    return [json.loads(line[6:]) for line in body.decode().split("\n") if line.startswith("data: {")]


def fields(value: Any, path: str = "") -> set[str]:
    """Return the paths of all fields of an answer. Ids and models that are keys are left out."""
    if isinstance(value, list):
        return {field for one in value for field in fields(one, path)}
    if not isinstance(value, dict):
        return set()
    found = set()
    for key, part in value.items():
        name = "*" if key[0].isdigit() or key[0].isupper() or key in ("a100", "l40s", "pro_6000") else key
        found.add(f"{path}.{name}")
        if key not in FREE_KEYS:
            found |= fields(part, f"{path}.{name}")
    return found


def recorded(name: str) -> Any:
    """Return the recorded answer of an endpoint."""
    file = FILES.get(name, name)
    paths: list[Path] = [*RECORDINGS.glob(f"{file}.*"), *(RECORDINGS / "extra").glob(f"{file}.*")]
    return parsed(paths[0].read_bytes())


async def answer(simulator: Simulator, name: str, now: float = NOON) -> Any:
    """Return the simulated answer of an endpoint to the first miner."""
    headers = KEY.headers(int(now), "tee" if name == "maintenance" else "miner")
    return parsed((await get(simulator.url + PATHS[name], **headers)).content)


@pytest.mark.parametrize("name", PATHS)
async def test_an_answer_has_fields_of_a_recorded_one(small_world: World, name: str) -> None:
    async with Simulator(small_world, clock=Clock()) as simulator:
        simulated = fields(await answer(simulator, name))
    assert simulated
    assert simulated <= fields(recorded(name))


async def test_the_endpoints_agree_about_gpus_instances_and_scores() -> None:
    world = DemoWorld(start=NOON)
    async with Simulator(world, clock=Clock()) as simulator:
        found = {name: await answer(simulator, name) for name in PATHS}
        totals = (await get(f"{simulator.url}/nodes/")).json()
    own = found["miner_gpus"][HOTKEY]
    held = Counter(gpu["chute"]["instance_id"] for gpu in own["provisioned"])
    assert held.keys() == {one["instance_id"] for one in found["instances"]}
    assert held.total() == len(found["inventory"])
    assert held.total() + sum(own["idle"].values()) == len(found["nodes"])
    assert found["held_gpus"][HOTKEY] == own
    for state in ("provisioned", "idle"):
        everybody = [one[state] for one in found["held_gpus"].values()]
        assert sum(one[state] for one in totals.values()) == sum(
            len(one) if isinstance(one, list) else sum(one.values()) for one in everybody
        )
    active = Counter(one["chute_id"] for one in found["active_instances"])
    assert all(one["active_instance_count"] == active[one["chute_id"]] for one in found["utilization"])
    with_bounty = {one["chute_id"] for one in found["bounties"]}
    assert with_bounty & {one["chute_id"] for one in found["chutes"]}
    assert not with_bounty & active.keys()
    work = next(one for one in found["stats"]["past_day"]["instance_stats"] if one["miner_hotkey"] == HOTKEY)
    assert found["scores"]["raw_values"][HOTKEY]["instance_compute_units"] == work["compute_units"]
    assert sum(found["scores"]["final_scores"].values()) == pytest.approx(1)


async def test_the_network_is_one_of_tee_servers_and_private_chutes() -> None:
    world = DemoWorld(start=NOON)
    async with Simulator(world, clock=Clock()) as simulator:
        chutes, supported, accepted, servers = [
            await answer(simulator, name) for name in ("chutes", "supported_gpus", "tee_measurements", "servers")
        ]
    assert len(chutes) == 490
    assert 0.95 < sum(one["tee"] for one in chutes) / len(chutes) < 1
    assert 0.8 < sum("private_tee" in one["compute_multiplier_factors"] for one in chutes) / len(chutes) < 0.95
    assert sum(one["node_selector"]["supported_gpus"] == ["pro_6000"] for one in chutes) / len(chutes) > 0.85
    assert supported["pro_6000"]["hourly_rate"] == 1.8
    versions = {one["version"] for one in accepted}
    assert versions == {"1.3.1", "1.4.0"}
    assert {one["version"] for one in servers["servers"] if one["is_tee"]} <= versions


async def test_a_maintenance_window_is_announced_opens_and_ends(small_world: World, clock: Clock) -> None:
    async with Simulator(small_world, clock=clock) as simulator:
        seen = []
        for clock.now in (NOON - 3 * DAY, NOON - DAY, NOON, NOON + 4 * DAY):
            policy = await answer(simulator, "maintenance", clock.now)
            window = policy["active_window"]
            seen.append((window and window["target_measurement_version"], policy["window_open"]))
            assert bool(policy["servers"]) == (window is not None)
    assert seen == [(None, False), ("1.4.0", False), ("1.4.0", True), ("1.4.0", False)]


def test_only_instances_without_tee_are_probed(small_world: World) -> None:
    for tee in (True, False):
        instances = [
            one
            for one in small_world.instances(NOON)
            if bool(one.chute.tee) == tee and one.active(NOON) and NOON - (one.activated_at or 0) > HOUR
        ]
        assert instances
        assert {one.last_verified_at(NOON) == one.verified_at for one in instances} == {tee}


def test_the_service_purges_a_slow_start_within_2_minutes() -> None:
    world = World(start=NOON)
    purged = [one for one in world.all_instances(NOON) if one.end.name == "PURGED" and one.ended_at <= NOON]
    assert {one.verified_at is None for one in purged} == {True, False}
    for one in purged:
        limit = one.created_at + 3.5 * HOUR if one.verified_at is None else one.verified_at + 3 * HOUR
        assert 0 <= one.ended_at - max(limit, one.disabled_at or 0) <= 2 * MINUTE


@pytest.mark.parametrize("public", [True, False])
def test_instances_become_active_only_where_the_launch_rules_let_them(*, public: bool) -> None:
    world = World(start=NOON)
    started = [
        one
        for one in world.all_instances(NOON)
        if one.chute.public == public and one.activated_at is not None and one.activated_at > NOON - DAY
    ]
    assert started
    for one in started:
        before = (one.activated_at or 0) - 1
        active = world.lives.active(one.chute, before)
        if one.chute.private_rules:
            assert active or world.bounty(one.chute, before)
        assert active <= one.chute.max_instances
