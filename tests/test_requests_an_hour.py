"""How many requests a miner's exporter sends to the API."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.recorded import RECORDED_AT, answers, key
from tests.support import Clock, get, replay, served, served_exporter, watching

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


async def test_a_miner_with_a_key_costs_less_than_450_requests_an_hour_at_a_scrape_a_minute() -> (
    None
):
    api = replay(answers())
    requests: Counter[str] = Counter()

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            requests[scope["path"]] += 1
        await api(scope, receive, send)

    clock = Clock(RECORDED_AT)
    async with (
        served(counted) as address,
        served_exporter(watching(address, key()), clock, monotonic=clock) as (url, _),
    ):
        for _minute in range(60):
            assert (await get(f"{url}/metrics")).status_code == 200
            clock.now += 60
    assert requests["/servers/tee/measurements"] == requests["/nodes/supported"] == 1
    # The hour began 13 minutes after a full one. As no new report comes, the list is requested in
    # its last 12 minutes. Miners deleted instances in the hour, so the report before the newest is
    # needed, too.
    assert (requests["/audit/"], requests["/audit/download"]) == (1 + 12, 2)
    assert requests.total() < 450, requests
