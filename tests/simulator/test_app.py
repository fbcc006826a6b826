from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.simulator import Fault, Simulator, parse_fault
from chutes_exporter.simulator.faults import GARBAGE
from tests.support import HOTKEY, KEY, NOON, get

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNED = KEY.headers(int(NOON))


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"X-Chutes-Signature": ""}, "Invalid BT Auth."),
        ({"X-Chutes-Signature": "00" * 64}, "Invalid BT Auth."),
        ({"X-Chutes-Signature": "no hex"}, "Invalid BT Auth."),
        ({"X-Chutes-Nonce": str(int(NOON) + 1)}, "Invalid BT Auth."),
        ({"X-Chutes-Nonce": "now"}, "Invalid nonce!"),
        (KEY.headers(int(NOON) - 600), "Invalid nonce!"),
        (KEY.headers(int(NOON) + 601), "Invalid nonce!"),
        (Hotkey.from_seed("33" * 32).headers(int(NOON)), "Hotkey is not registered"),
    ],
)
async def test_signatures_are_checked_for_real(simulator: Simulator, change: Mapping[str, str], detail: str) -> None:
    response = await get(f"{simulator.url}/miner/inventory", **{**SIGNED, **change})
    assert response.status_code == 401
    assert response.json()["detail"].startswith(detail)


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


async def test_what_is_not_known_is_404_and_what_is_malformed_400(simulator: Simulator) -> None:
    assert (await get(f"{simulator.url}/miner/unique_chute_history/nobody")).status_code == 404
    assert (await get(f"{simulator.url}/miner/chutes/a/b", **SIGNED)).status_code == 404
    assert (await get(f"{simulator.url}/miner/stats?miner_hotkey=x")).status_code == 400
    async with httpx.AsyncClient() as client:
        assert (await client.delete(f"{simulator.url}/miner/jobs/x", headers=SIGNED)).status_code == 404
        assert (await client.delete(f"{simulator.url}/miner/jobs/x")).status_code == 401


async def test_stats_of_an_unknown_miner_are_empty(simulator: Simulator) -> None:
    stranger = Hotkey.from_seed("33" * 32).address
    stats = (await get(f"{simulator.url}/miner/stats?miner_hotkey={stranger}")).json()
    assert stats["past_hour"]["instance_stats"] == []


async def test_a_fault_can_end_after_some_requests(simulator: Simulator) -> None:
    simulator.faults["scores"] = Fault(status=503, times=2)
    statuses = [(await get(f"{simulator.url}/miner/scores?hotkey={HOTKEY}")).status_code for _ in range(3)]
    assert statuses == [503, 503, 200]


async def test_the_date_is_the_worlds_not_the_machines(simulator: Simulator) -> None:
    response = await get(f"{simulator.url}/miner/scores")
    assert response.headers["date"] == "Tue, 24 Nov 2026 12:00:00 GMT"
    assert len(response.headers.get_list("date")) == 1


async def test_a_cut_stream_breaks_off_inside_the_body(simulator: Simulator) -> None:
    simulator.faults["metrics"] = Fault(cut_after=100)
    with pytest.raises(httpx.RemoteProtocolError):
        await get(f"{simulator.url}/miner/metrics/")


async def test_chutes_agree_with_what_one_chute_says(simulator: Simulator) -> None:
    body = (await get(f"{simulator.url}/miner/chutes/", **SIGNED)).text
    rows = [json.loads(line.removeprefix("data: ")) for line in body.split("\n\n") if line]
    one = await get(f"{simulator.url}/miner/chutes/{rows[5]['chute_id']}/{rows[5]['version']}", **SIGNED)
    assert one.json() == rows[5]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("scores=status:503", Fault(status=503)),
        ("scores=latency:0.5", Fault(latency=0.5)),
        ("scores=cut:10", Fault(cut_after=10)),
        ("scores=empty", Fault(body=b"")),
        ("scores=garbage", Fault(body=GARBAGE)),
    ],
)
def test_faults_can_be_written_on_the_command_line(text: str, fault: Fault) -> None:
    assert parse_fault(text) == ("scores", fault)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scores",
        "scores=",
        "scores=status:x",
        "scores=status:99",
        "scores=latency:-1",
        "scores=cut:-1",
        "scores=explode",
        "nothing=status:500",
    ],
)
def test_what_is_no_fault_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="write one like scores=status:503"):
        parse_fault(text)
