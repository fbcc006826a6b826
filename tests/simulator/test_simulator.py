from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import get

if TYPE_CHECKING:
    from chutes_exporter.simulator import Simulator


async def test_the_date_is_the_worlds_not_the_machines(simulator: Simulator) -> None:
    response = await get(f"{simulator.url}/miner/scores")
    assert response.headers["date"] == "Tue, 24 Nov 2026 12:00:00 GMT"
    assert len(response.headers.get_list("date")) == 1
