"""How many requests a miner's exporter sends to the API and to a node of the chain."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from grafana.boards.exporter import BUDGET
from tests.exporters import served_exporter, watching
from tests.support import ROOT, Clock, get

if TYPE_CHECKING:
    from tests.replay import Replay


async def test_a_miner_with_a_key_costs_the_documented_requests_an_hour(
    replay: Replay, clock: Clock
) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    ((most, to_node),) = re.findall(r"up to (\d+) an hour to the API .*, and (\d+) to", text)
    assert f"up to {most} requests an hour to the API, and {to_node} to the node" in BUDGET
    twice = f"{2 * int(most)} an hour to the API, and {2 * int(to_node)} to the node"
    assert f"Two send twice the requests: {twice}." in text
    settings = watching(replay.url, chain_url=replay.chain_url)
    async with served_exporter(settings, clock, monotonic=clock) as (url, _):
        for _minute in range(60):
            assert (await get(f"{url}/metrics")).status_code == 200
            clock.now += 60
    requests = Counter(request.endpoint for request in replay.requests)
    # An answer that never changes is fresh for an hour.
    assert requests["thrash_cooldowns"] == 1
    assert requests.pop("chain") == int(to_node)
    # After the start, it also reads the 23 older audit reports of the past day. The report of the
    # hour is recorded 3 minutes later than the service makes it, which costs 2 requests more.
    to_api = requests.total() - 23 - 2
    # The document gives an upper limit, so one request less is right, too.
    assert to_api in (int(most) - 1, int(most)), requests
