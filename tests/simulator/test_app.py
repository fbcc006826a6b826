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
        ({"X-Chutes-Signature": "zz"}, WRONG),
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


async def test_a_fault_can_end_after_some_requests(simulator: Simulator) -> None:
    simulator.faults["scores"] = Fault(status=503, times=2)
    statuses = [(await get(f"{simulator.url}/miner/scores?hotkey={HOTKEY}")).status_code for _ in range(3)]
    assert statuses == [503, 503, 200]


async def test_a_cut_stream_breaks_off_inside_the_body(simulator: Simulator) -> None:
    simulator.faults["metrics"] = Fault(cut_after=100)
    with pytest.raises(httpx.RemoteProtocolError):
        await get(f"{simulator.url}/miner/metrics/")
