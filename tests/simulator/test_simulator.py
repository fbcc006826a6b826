from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from chutes_exporter.config import Address
from chutes_exporter.simulator import Fault, Simulator
from tests.support import Clock, free_port, get

if TYPE_CHECKING:
    from chutes_exporter.simulator import World


async def test_a_simulator_listens_where_it_is_told_or_on_a_free_port_of_the_loopback_address(
    small_world: World, clock: Clock
) -> None:
    address = Address("127.0.0.1", free_port())
    async with Simulator(small_world, clock=clock, listen=address) as one, Simulator(small_world, clock=clock) as other:
        assert one.url == f"http://{address}"
        assert other.url.startswith("http://127.0.0.1:")
        assert (await get(f"{one.url}/miner/scores")).status_code == 200
        assert (await get(f"{other.url}/miner/scores")).status_code == 200


async def test_a_fault_begins_and_ends_while_the_simulator_runs(simulator: Simulator) -> None:
    url = f"{simulator.url}/miner/scores"
    simulator.faults["scores"] = Fault(status=503)
    assert (await get(url)).status_code == 503
    del simulator.faults["scores"]
    assert (await get(url)).status_code == 200


async def test_an_answer_that_a_fault_cuts_is_no_error_in_the_log(
    simulator: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    simulator.faults["metrics"] = Fault(cut_after=100)
    with pytest.raises(httpx.RemoteProtocolError):
        await get(f"{simulator.url}/miner/metrics/")
    assert [record for record in caplog.records if record.name == "uvicorn.error"] == []


async def test_the_date_is_the_worlds_not_the_machines(simulator: Simulator) -> None:
    response = await get(f"{simulator.url}/miner/scores")
    assert response.headers["date"] == "Tue, 24 Nov 2026 12:00:00 GMT"
    assert len(response.headers.get_list("date")) == 1
