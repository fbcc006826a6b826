from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.simulator import Fault, Simulator, Size, World
from chutes_exporter.simulator.times import DAY
from tests.simulator.test_answers import parsed
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
async def test_unknown_ids_get_the_errors_of_the_service(
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
    assert len(parsed(response.content)) == 25
    simulator.faults["instances"] = Fault(records=0)
    assert (await get(f"{simulator.url}/miner/instances/?explicit_null=true", **SIGNED)).content == b""


async def test_without_its_prometheus_the_service_knows_no_demand_and_says_zero(simulator: Simulator) -> None:
    before = parsed((await get(f"{simulator.url}/miner/metrics/")).content)
    simulator.faults["metrics"] = Fault(zeros=True)
    after = parsed((await get(f"{simulator.url}/miner/metrics/")).content)
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
    chutes = parsed((await get(f"{simulator.url}/miner/chutes/", **headers)).content)
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


async def test_an_autoscaler_that_has_stopped_leaves_its_last_records(simulator: Simulator, clock: Clock) -> None:
    before = (await get(f"{simulator.url}/chutes/utilization")).json()
    simulator.faults["utilization"] = Fault(as_of=NOON + 1)
    clock.now = NOON + DAY / 4
    after = (await get(f"{simulator.url}/chutes/utilization")).json()
    live = dict.fromkeys(("total_instance_count", "active_instance_count", "scalable", "scale_allowance"))
    assert [row | live for row in after] == [row | live for row in before]
    assert after != before
