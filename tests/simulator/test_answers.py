"""The simulated answers have the fields and the types of recorded ones, and the values of the simulated world."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.simulator import Fault, Simulator, World
from chutes_exporter.simulator.answers import stats_window
from chutes_exporter.simulator.times import MINUTE
from chutes_exporter.simulator.world import DAY, HOUR, Work
from tests.simulator.odd import UPDATED_CHUTE, OddWorld
from tests.simulator.shapes import SHAPES, records, shape
from tests.simulator.shapes import rows as stream_rows
from tests.support import HOTKEY, KEY, NOON, Clock, get, recording

if TYPE_CHECKING:
    from chutes_exporter.api.keys import Purpose


def recorded_as(directory: Path, name: str) -> bytes:
    return recording(directory / "extra", EXTRA[name]) if name in EXTRA else recording(directory, name)


ANSWERS = {
    **{one.name: one.path for one in ENDPOINTS if one.name not in ("chute", "release_job", "thrash_cooldowns")},
    "unique_chute_history": f"/miner/unique_chute_history/{HOTKEY}",
    "stats_per_chute": "/miner/stats?per_chute=true",
}
EXTRA = {name: name for name in ("utilization", "bounties", "rolling_updates")} | {"maintenance": "maintenance_policy"}
"""Recordings of the endpoints outside the miner API, which are in a folder of their own."""
RECORDED = [SHAPES]
if directory := os.environ.get("CHUTES_EXPORTER_TEST_RECORDINGS"):
    RECORDED.append(
        {
            part: shape(found)
            for name in ANSWERS
            for part, found in records(name, recorded_as(Path(directory), name)).items()
        }
    )


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
async def test_every_field_is_there_with_the_type_that_it_was_recorded_with(
    small_world: World, name: str, *, odd: bool
) -> None:
    world = OddWorld(start=NOON, size=small_world.size) if odd else small_world
    async with Simulator(world, clock=Clock()) as simulator:
        purpose: Purpose = "tee" if name == "maintenance" else "miner"
        body = (await get(simulator.url + ANSWERS[name], **KEY.headers(int(NOON), purpose))).content
    for part, found in records(name, body).items():
        assert found, part
        simulated = shape(found)
        for recorded in RECORDED:
            assert simulated.keys() == recorded[part].keys(), part
            assert {field: types - recorded[part][field] for field, types in simulated.items()} == {
                field: set() for field in simulated
            }, part


async def test_one_chute_is_answered_as_in_the_list_of_all(simulator: Simulator) -> None:
    headers = KEY.headers(int(NOON))
    found = records("chutes", (await get(f"{simulator.url}/miner/chutes/", **headers)).content)["chutes"]
    one = await get(f"{simulator.url}/miner/chutes/{found[5]['chute_id']}/{found[5]['version']}", **headers)
    assert one.json() == found[5]


SIGNED = KEY.headers(int(NOON))


async def test_stats_are_those_of_the_window_for_all_or_one(simulator: Simulator) -> None:
    everybody = (await get(f"{simulator.url}/miner/stats")).json()
    (one,) = (await get(f"{simulator.url}/miner/stats?miner_hotkey={HOTKEY}")).json()["past_day"]["instance_stats"]
    assert one in everybody["past_day"]["instance_stats"]
    assert one["invocation_count"] == one["total_instances"]
    assert one["total_bounty"] == one["bounty_count"]
    assert everybody["all"]["compute_units"] == everybody["all"]["instance_stats"]
    raw = (await get(f"{simulator.url}/miner/scores")).json()["raw_values"][HOTKEY]
    assert raw["instance_compute_units"] == one["compute_units"]
    for yes in ("true", "1", "Yes"):
        found = (await get(f"{simulator.url}/miner/stats?per_chute={yes}")).json()["past_hour"]
        assert found["bounties"] == []
        assert all(row["chute_id"] for row in found["instance_stats"])


async def test_a_miner_without_compute_units_has_no_record(simulator: Simulator, small_world: World) -> None:
    sums = dict(small_world.work(NOON, HOUR))
    sums["5idle", ""] = Work(1, 0, 3600.0, 0.0)
    hotkeys = {row["miner_hotkey"] for row in stats_window(sums, per_chute=False)["instance_stats"]}
    assert hotkeys == {hotkey for hotkey, _ in small_world.work(NOON, HOUR)}
    idle = small_world.miners[-1].hotkey
    assert (await get(f"{simulator.url}/miner/stats?miner_hotkey={idle}")).json()["all"]["instance_stats"] == []


async def test_the_metagraph_has_raw_incentives_and_the_time_of_first_sight(
    simulator: Simulator, small_world: World, clock: Clock
) -> None:
    first = (await get(f"{simulator.url}/miner/metagraph")).json()
    assert {seat["hotkey"]: seat["incentive"] for seat in first if seat["incentive"]} == small_world.incentives(NOON)
    assert 65_500 < sum(seat["incentive"] for seat in first) <= 65_535
    for seat, miner in zip(first, small_world.miners, strict=True):
        assert seat["incentive"] <= seat["vtrust"] <= seat["incentive"] * 1.1
        assert datetime.fromisoformat(seat["synced_at"] + "+00:00").timestamp() == pytest.approx(miner.registered_at)
        assert seat["stake"] == pytest.approx(seat["alpha_stake"] + seat["tao_stake"])
        assert (seat["ip"] == "0") == (seat["port"] == 0)
        if miner.validator:
            assert (seat["incentive"], seat["vtrust"]) == (0, 0)
            assert str(ipaddress.ip_address(int(seat["ip"]))) == f"203.0.113.{miner.uid}"
    clock.now += HOUR
    second = (await get(f"{simulator.url}/miner/metagraph")).json()
    assert [seat["synced_at"] for seat in first] == [seat["synced_at"] for seat in second]
    assert [seat["stake"] for seat in first] != [seat["stake"] for seat in second]


async def test_times_have_an_offset_where_the_service_sends_one(simulator: Simulator) -> None:
    async def rows(path: str) -> list[dict[str, Any]]:
        return stream_rows((await get(f"{simulator.url}/miner/{path}", **SIGNED)).content)

    for job in await rows("jobs/"):
        for field in ("created_at", "started_at", "finished_at", "updated_at"):
            assert job[field] is None or "+" not in job[field]
    instances = await rows("instances/")
    assert any(one["stop_billing_at"] for one in instances)
    for one in instances:
        assert one["stop_billing_at"] is None or "+" not in one["stop_billing_at"]
        assert one["created_at"].endswith("+00:00")
        assert (one["billed_to"] is None) == (one["stop_billing_at"] is None) or not one["activated_at"]
    assert all(node["created_at"].endswith("+00:00") for node in await rows("nodes/"))
    history = (await get(f"{simulator.url}/miner/unique_chute_history/{HOTKEY}")).json()
    assert (len(history), history[-1]["time"]) == (169, "2026-11-24 12:00:00+00")


async def test_hardware_has_the_units_of_the_service(simulator: Simulator) -> None:
    nodes = stream_rows((await get(f"{simulator.url}/miner/nodes/", **SIGNED)).content)
    for node in nodes:
        assert 1.4e6 <= node["clock_rate"] <= 2.6e6
        assert 24 * 2**30 <= node["memory"] <= 180 * 2**30
        assert re.fullmatch(r"[0-9a-f]{32}", node["uuid"])
    servers = (await get(f"{simulator.url}/miner/servers/", **SIGNED)).json()["servers"]
    listed = {gpu["uuid"]: (gpu["verified_at"], gpu["verification_error"]) for one in servers for gpu in one["gpus"]}
    assert listed == {node["uuid"]: (node["verified_at"], node["verification_error"]) for node in nodes}


async def test_the_inventory_has_the_gpus_of_instances_in_any_state(clock: Clock) -> None:
    world = World(start=NOON)
    miner = next(
        one
        for one in world.miners
        if {(i.active(NOON), i.disabled(NOON)) for i in world.instances(NOON, one.hotkey)}
        >= {(True, False), (False, False), (False, True)}
    )
    async with Simulator(world, clock=clock) as simulator:
        headers = miner.key.headers(int(NOON))
        inventory = (await get(f"{simulator.url}/miner/inventory", **headers)).json()
        instances = stream_rows((await get(f"{simulator.url}/miner/instances/", **headers)).content)
        active = (await get(f"{simulator.url}/miner/active_instances/", **headers)).json()
    there = world.instances(NOON, miner.hotkey)
    assert {(row["gpu_id"], row["active"]) for row in inventory} == {
        (gpu.uuid, one.active(NOON)) for one in there for gpu in one.gpus
    }
    disabled = {row["instance_id"] for row in instances if not row["active"] and row["activated_at"]}
    assert disabled == {one.instance_id for one in there if one.disabled(NOON)} != set()
    assert {row["instance_id"] for row in active} == {
        one.instance_id for one in world.instances(NOON) if one.active(NOON)
    }
    assert all(row["compute_multiplier"] > 0 for row in active)


async def test_demand_is_calculated_every_two_minutes_for_chutes_with_an_instance(
    simulator: Simulator, small_world: World, clock: Clock
) -> None:
    clock.now = NOON + 119
    found = stream_rows((await get(f"{simulator.url}/miner/metrics/")).content)
    there = {one.chute.chute_id for one in small_world.instances(NOON)}
    assert {row["chute_id"] for row in found} == there < {chute.chute_id for chute in small_world.chutes}
    for row in found:
        assert row["start_date"] == row["end_date"] == "2026-11-24T12:00:00+00:00"
        assert row["error_count"] == 0
        assert row["per_second_price_usd"] == pytest.approx(row["compute_multiplier"] * 4.5 / 3600)
        active = [one for one in small_world.instances(NOON) if one.active(NOON)]
        assert row["instance_count"] == sum(1 for one in active if one.chute.chute_id == row["chute_id"])


async def test_chutes_show_their_factors_and_the_age_of_their_bounty(simulator: Simulator, small_world: World) -> None:
    rows = stream_rows((await get(f"{simulator.url}/miner/chutes/", **SIGNED)).content)
    assert any(row["bounty"] for row in rows)
    for row, chute in zip(rows, small_world.chutes, strict=True):
        assert row["effective_compute_multiplier"] == pytest.approx(
            math.prod(row["compute_multiplier_factors"].values())
        )
        age = small_world.bounty_age(chute, NOON)
        assert row["bounty"] == (None if age is None else min(100 + 3 * int(age), 86400))
        assert ("bounty_boost" in row["compute_multiplier_factors"]) == (age is not None)
        assert ("legacy placeholder" in row["code"]) == (row["chutes_version"] == "0.5.11")
        assert len(row["code"] + row["readme"]) > 4000


async def test_images_are_built_fail_and_wait(simulator: Simulator) -> None:
    images = stream_rows((await get(f"{simulator.url}/miner/images/", **SIGNED)).content)
    assert len(images) == 8
    for image in images:
        assert (image["build_completed_at"] is not None) == (image["status"] == "built and pushed")
        assert (image["build_started_at"] is None) == (image["status"] == "pending build")
    assert {image["status"].partition(":")[0] for image in images} == {
        "built and pushed",
        "building",
        "pending build",
        "error",
    }


async def test_a_maintenance_policy_is_about_the_signers_tee_servers(simulator: Simulator, clock: Clock) -> None:
    async def policy() -> Any:
        headers = KEY.headers(int(clock.now), "tee")
        return (await get(f"{simulator.url}/servers/maintenance/policy", **headers)).json()

    found = await policy()
    window = found["active_window"]
    assert window["upgrade_window_start"] == "2026-11-23 21:00:00+00:00"
    assert window["upgrade_window_end"] == "2026-11-27 21:00:00+00:00"
    servers = (await get(f"{simulator.url}/miner/servers/", **SIGNED)).json()["servers"]
    tee = {one["server_id"]: one for one in servers if one["is_tee"]}
    assert {one["server_id"] for one in found["servers"]} == tee.keys()
    for one in found["servers"]:
        assert one["in_maintenance"] is tee[one["server_id"]]["maintenance_pending"]
        assert one["version"] == tee[one["server_id"]]["version"]
        assert one["needs_upgrade"] == (one["version"] in (None, "0.2.9"))
    assert {one["version"] for one in found["servers"]} >= {None, "0.2.9"}
    slots = set()
    for hours in range(0, 84, 3):
        clock.now = NOON + hours * HOUR
        found = await policy()
        assert found["current_slots"] == sum(one["in_maintenance"] for one in found["servers"])
        slots.add(found["current_slots"])
    assert slots == {0, 1}
    clock.now = NOON + 90 * HOUR
    assert await policy() == {"active_window": None, "current_slots": 0, "servers": []}


async def test_utilization_agrees_with_the_instances_of_now_and_the_autoscalers_last_run(
    simulator: Simulator, small_world: World, clock: Clock
) -> None:
    clock.now = NOON + 25 * MINUTE
    rows = (await get(f"{simulator.url}/chutes/utilization")).json()
    instances = small_world.instances(clock.now)
    by_id = {chute.chute_id: chute for chute in small_world.chutes}
    assert [row["chute_id"] for row in rows] == [chute.chute_id for chute in small_world.chutes if chute.scaled]
    for row in rows:
        chute = by_id[row["chute_id"]]
        own = [one for one in instances if one.chute is chute]
        active = sum(one.active(clock.now) for one in own)
        assert (row["total_instance_count"], row["active_instance_count"]) == (len(own), active)
        assert row["target_count"] == small_world.target_instances(chute, NOON)
        assert row["scale_allowance"] == max(0, row["target_count"] - active)
        assert row["scalable"] is (row["scale_allowance"] > 0)
        assert row["timestamp"] == "2026-11-24T12:00:00"
        assert row["name"] == (chute.name if chute.public else "[private chute]")
        assert row["instance_count"] == sum(
            one.active(NOON) for one in small_world.instances(NOON) if one.chute is chute
        )
        loads = [row[f"utilization_{window}"] for window in ("current", "5m", "15m", "1h")]
        assert any(loads) == (row["instance_count"] > 0)
        assert row["rate_limit_ratio_1h"] == pytest.approx(
            row["rate_limited_requests_1h"] / (row["total_requests_1h"] or 1), abs=1e-4
        )
    assert {row["action_taken"] for row in rows} == {"no_action", "scale_up_candidate", "scale_down_candidate"}
    # Some chutes have room for more instances, some have none, and some refuse requests.
    assert {0, 1, 2} <= {row["scale_allowance"] for row in rows}
    assert any(row["rate_limit_ratio_5m"] for row in rows)
    assert any(row["name"] == "[private chute]" for row in rows)


async def test_open_bounties_are_those_of_the_chutes_and_of_one_that_is_gone(
    simulator: Simulator, small_world: World, clock: Clock
) -> None:
    clock.now = NOON + 0.5
    rows = (await get(f"{simulator.url}/bounties/")).json()
    assert rows == sorted(rows, key=lambda row: row["created_at"])
    by_chute = {row["chute_id"]: row for row in rows}
    for chute in small_world.chutes:
        age = small_world.bounty_age(chute, clock.now)
        row = by_chute.pop(chute.chute_id, None)
        assert (row is None) == (age is None)
        if row is not None and age is not None:
            assert row["created_at"] == pytest.approx(clock.now - age)
            assert row["seconds_elapsed"] == int(age)
            assert row["bounty_amount"] == min(100 + 3 * int(age), 86400)
            assert row["time_remaining"] + age == pytest.approx(DAY if chute.public else HOUR, abs=1)
    assert by_chute == {}
    clock.now = NOON + 13 * HOUR
    gone = (await get(f"{simulator.url}/bounties/")).json()
    assert len([row for row in gone if row["chute_id"] not in {chute.chute_id for chute in small_world.chutes}]) == 1
    simulator.faults["bounties"] = Fault(redis_down=True)
    assert (await get(f"{simulator.url}/bounties/")).json() == []


async def test_a_rolling_update_names_the_new_version_of_its_chute(simulator: Simulator, small_world: World) -> None:
    rows = (await get(f"{simulator.url}/chutes/rolling_updates")).json()
    versions = {chute.chute_id: chute.version(NOON) for chute in small_world.chutes}
    assert small_world.chutes[UPDATED_CHUTE].chute_id in {row["chute_id"] for row in rows}
    for row in rows:
        assert row["new_version"] == versions[row["chute_id"]] != row["old_version"]
        assert row["permitted"]
        started = datetime.fromisoformat(row["started_at"] + "+00:00").timestamp()
        assert NOON - 12 * HOUR < started <= NOON
