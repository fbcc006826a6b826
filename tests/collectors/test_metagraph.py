"""What the seats tell beyond the numbers of the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chutes_exporter.simulator import Fault
from tests.support import HOTKEY, get, scrape, series, watching

if TYPE_CHECKING:
    from chutes_exporter.simulator import Simulator


async def test_seats_that_validate_do_not_go_first(simulator: Simulator) -> None:
    seats = (await get(f"{simulator.url}/miner/metagraph")).json()
    behind = series("chutes_miner_seats_behind", hotkey=HOTKEY)
    before = (await scrape(watching(simulator.url)))[behind]
    idle = [seat for seat in seats if seat["incentive"] == 0]
    assert len(idle) > 2
    for seat in idle[:2]:
        seat["vtrust"] = 0.9
    simulator.faults["metagraph"] = Fault(body=json.dumps(seats).encode())
    assert (await scrape(watching(simulator.url)))[behind] == before - 2
