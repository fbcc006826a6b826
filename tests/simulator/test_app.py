from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.simulator import Fault, Simulator, Size, World
from chutes_exporter.simulator.times import MINUTE
from chutes_exporter.simulator.world import DAY, HOUR
from tests.simulator.odd import UPDATED_CHUTE
from tests.simulator.shapes import rows as stream_rows
from tests.support import HOTKEY, KEY, NOON, Clock, get

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNED = KEY.headers(int(NOON))
MESSAGE = f"{HOTKEY}:{int(NOON)}:miner"
WRONG = f"Invalid request signature for hotkey {HOTKEY}. Message: {MESSAGE}"
NOBODY = "5NobodyNobodyNobodyNobodyNobodyNobodyNobodyNobod"


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"X-Chutes-Signature": ""}, "Invalid BT Auth."),
        ({"X-Chutes-Hotkey": ""}, "Invalid BT Auth."),
        ({"X-Chutes-Signature": "00" * 64}, WRONG),
        (
            {"X-Chutes-Signature": "zz"},
            "Invalid signature: zz, with error: non-hexadecimal number found in fromhex() arg at position 0",
        ),
        ({"X-Chutes-Nonce": str(int(NOON) + 1)}, WRONG.replace(str(int(NOON)), str(int(NOON) + 1))),
        ({"X-Chutes-Nonce": "now"}, "Invalid nonce!"),
        (KEY.headers(int(NOON) - 600), "Invalid nonce!"),
        (KEY.headers(int(NOON) + 601), "Invalid nonce!"),
        (Hotkey.from_seed("33" * 32).headers(int(NOON)), "Hotkey is not registered on netuid 64"),
    ],
)
async def test_signatures_are_checked_for_real(simulator: Simulator, change: Mapping[str, str], detail: str) -> None:
    response = await get(f"{simulator.url}/miner/inventory", **{**SIGNED, **change})
    assert response.status_code == 401
    assert response.json() == {"detail": detail}


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({}, "Invalid nonce!"),
        (SIGNED, WRONG.replace(":miner", ":tee")),
        (KEY.headers(int(NOON) - 600, "tee"), "Invalid nonce!"),
        (Hotkey.from_seed("33" * 32).headers(int(NOON), "tee"), "Hotkey is not registered on netuid 64"),
    ],
)
async def test_the_maintenance_policy_wants_another_word(
    simulator: Simulator, headers: Mapping[str, str], detail: str
) -> None:
    response = await get(f"{simulator.url}/servers/maintenance/policy", **headers)
    assert (response.status_code, response.json()) == (401, {"detail": detail})


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


async def test_an_autoscaler_that_has_stopped_leaves_its_last_records(simulator: Simulator, clock: Clock) -> None:
    before = (await get(f"{simulator.url}/chutes/utilization")).json()
    simulator.faults["utilization"] = Fault(as_of=NOON + 1)
    clock.now = NOON + 6 * HOUR
    after = (await get(f"{simulator.url}/chutes/utilization")).json()
    live = dict.fromkeys(("total_instance_count", "active_instance_count", "scalable", "scale_allowance"))
    assert [row | live for row in after] == [row | live for row in before]
    assert after != before


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


async def test_a_good_signature_opens_its_own_miners_data(simulator: Simulator) -> None:
    other = simulator.world.miners[1]
    mine = (await get(f"{simulator.url}/miner/servers/", **SIGNED)).json()["servers"]
    theirs = (await get(f"{simulator.url}/miner/servers/", **other.key.headers(int(NOON)))).json()["servers"]
    assert [server["server_id"] for server in mine] == [s.server_id for s in simulator.world.miners[0].servers]
    assert [server["server_id"] for server in theirs] == [s.server_id for s in other.servers]


async def test_a_miner_without_instances_gets_no_items_only_where_it_asks_for_them(simulator: Simulator) -> None:
    headers = simulator.world.miners[-1].key.headers(int(NOON))
    url = f"{simulator.url}/miner/instances/"
    assert (await get(f"{url}?explicit_null=true", **headers)).text == "data: NO_ITEMS\n\n"
    assert (await get(url, **headers)).text == ""


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        (f"unique_chute_history/{NOBODY}", 404, {"detail": f"Miner {NOBODY} not found in metagraph."}),
        ("chutes/nope/nope", 404, {"detail": "chute_id='nope' not found"}),
        ("scores?hotkey=bad%27x", 200, {"raw_values": {"bad'x": None}, "final_scores": {"bad'x": None}}),
        (
            "stats?miner_hotkey=bad%27x",
            200,
            {
                key: {"instance_stats": [], "bounties": [], "compute_units": []}
                for key in ("past_hour", "past_day", "all")
            },
        ),
        (
            "stats?per_chute=maybe",
            422,
            {
                "detail": [
                    {
                        "type": "bool_parsing",
                        "loc": ["query", "per_chute"],
                        "msg": "Input should be a valid boolean, unable to interpret input",
                        "input": "maybe",
                    }
                ]
            },
        ),
        ("thrash_cooldowns", 200, []),
    ],
)
async def test_what_is_not_known_is_answered_in_the_services_own_words(
    simulator: Simulator, path: str, status: int, answer: object
) -> None:
    response = await get(f"{simulator.url}/miner/{path}", **SIGNED)
    assert (response.status_code, response.json()) == (status, answer)


async def test_a_miner_without_activity_has_no_history(simulator: Simulator) -> None:
    hotkey = simulator.world.miners[-1].hotkey
    response = await get(f"{simulator.url}/miner/unique_chute_history/{hotkey}")
    detail = f"Miner {hotkey} not found in unique history cache (yet)"
    assert (response.status_code, response.json()) == (404, {"detail": detail})


async def test_only_an_unfinished_job_of_the_signer_can_be_released(clock: Clock) -> None:
    world = World(start=NOON, size=Size(miners=2, active_miners=1, chutes=30))
    clock.now = NOON + 5 * DAY
    jobs = world.jobs(clock.now)
    stuck = [job for job in jobs if job.stuck]
    headers = KEY.headers(int(clock.now))
    async with Simulator(world, clock=clock) as simulator, httpx.AsyncClient() as client:

        async def release(job_id: str) -> tuple[int, str, str]:
            response = await client.delete(f"{simulator.url}/miner/jobs/{job_id}", headers=headers)
            return response.status_code, response.headers["content-type"].partition(";")[0], response.text

        gone = next(job for job in stuck if job.chute_id != job.chute.chute_id)
        job = next(job for job in stuck if job.chute_id == job.chute.chute_id)
        assert await release(job.job_id) == (200, "application/json", "null")
        # Where the chute is gone, the job is released all the same.
        assert await release(gone.job_id) == (500, "text/plain", "Internal Server Error")
        others = (next(one.job_id for one in jobs if one.finished_at), next(one.job_id for one in jobs if one.waiting))
        for job_id in (job.job_id, gone.job_id, *others, "x"):
            detail = f"job_id='{job_id}' not found or is not associated with your miner"
            assert await release(job_id) == (
                404,
                "application/json",
                json.dumps({"detail": detail}, separators=(",", ":")),
            )
        assert {job.job_id, gone.job_id} <= {one.job_id for one in world.jobs(clock.now) if one.waiting}
        assert (await client.delete(f"{simulator.url}/miner/jobs/x")).status_code == 401


async def test_a_stream_can_end_cleanly_too_early(simulator: Simulator) -> None:
    simulator.faults["chutes"] = Fault(records=25)
    response = await get(f"{simulator.url}/miner/chutes/", **SIGNED)
    assert response.status_code == 200
    assert len(stream_rows(response.content)) == 25
    simulator.faults["instances"] = Fault(records=0)
    assert (await get(f"{simulator.url}/miner/instances/?explicit_null=true", **SIGNED)).content == b""


async def test_without_its_prometheus_the_service_knows_no_demand_and_says_zero(simulator: Simulator) -> None:
    before = stream_rows((await get(f"{simulator.url}/miner/metrics/")).content)
    simulator.faults["metrics"] = Fault(zeros=True)
    after = stream_rows((await get(f"{simulator.url}/miner/metrics/")).content)
    demand = {"total_invocations", "total_compute_time", "rate_limit_count", "utilization", "total_usage_usd"}
    assert any(row[field] for row in before for field in demand)
    assert not any(row[field] for row in after for field in demand)
    assert [row | dict.fromkeys(demand) for row in before] == [row | dict.fromkeys(demand) for row in after]
    simulator.faults["utilization"] = Fault(zeros=True)
    rows = (await get(f"{simulator.url}/chutes/utilization")).json()
    assert not any(row["utilization_1h"] or row["total_requests_1h"] for row in rows)
    assert any(row["scale_allowance"] for row in rows)


async def test_without_its_redis_the_service_has_no_bounties_histories_and_scores(
    simulator: Simulator, clock: Clock
) -> None:
    clock.now = NOON + 300
    down = ("chutes", "chute", "scores", "stats", "unique_chute_history")
    before = (await get(f"{simulator.url}/miner/stats")).json()
    simulator.faults.update(dict.fromkeys(down, Fault(redis_down=True)))
    headers = KEY.headers(int(clock.now))
    chutes = stream_rows((await get(f"{simulator.url}/miner/chutes/", **headers)).content)
    assert {row["bounty"] for row in chutes} == {None}
    assert not any("bounty_boost" in row["compute_multiplier_factors"] for row in chutes)
    one = await get(f"{simulator.url}/miner/chutes/{chutes[0]['chute_id']}/{chutes[0]['version']}", **headers)
    assert one.json() == chutes[0]
    response = await get(f"{simulator.url}/miner/unique_chute_history/{HOTKEY}")
    assert response.status_code == 404
    response = await get(f"{simulator.url}/miner/scores")
    assert (response.status_code, response.json()) == (503, {"detail": "Waiting for cache to populate."})
    # Stats are worked out there and then, and only then is a hotkey looked at.
    assert (await get(f"{simulator.url}/miner/stats?miner_hotkey={HOTKEY}")).json() != before
    response = await get(f"{simulator.url}/miner/stats?miner_hotkey=bad%27x")
    assert (response.status_code, response.json()) == (400, {"detail": "Invalid hotkey parameter."})


async def test_a_cache_that_nobody_refreshes_keeps_its_last_answer_for_ever(simulator: Simulator, clock: Clock) -> None:
    paths = ("scores", "stats", f"unique_chute_history/{HOTKEY}")
    before = [(await get(f"{simulator.url}/miner/{path}")).json() for path in paths]
    clock.now += DAY
    moved = [(await get(f"{simulator.url}/miner/{path}")).json() for path in paths]
    simulator.faults.update(dict.fromkeys(("scores", "stats", "unique_chute_history"), Fault(as_of=NOON + 1)))
    after = [(await get(f"{simulator.url}/miner/{path}")).json() for path in paths]
    assert after == before
    assert all(one != other for one, other in zip(before, moved, strict=True))


async def test_a_fault_can_end_after_some_requests(simulator: Simulator) -> None:
    simulator.faults["scores"] = Fault(status=503, times=2)
    statuses = [(await get(f"{simulator.url}/miner/scores?hotkey={HOTKEY}")).status_code for _ in range(3)]
    assert statuses == [503, 503, 200]


async def test_a_cut_stream_breaks_off_inside_the_body(simulator: Simulator) -> None:
    simulator.faults["metrics"] = Fault(cut_after=100)
    with pytest.raises(httpx.RemoteProtocolError):
        await get(f"{simulator.url}/miner/metrics/")
