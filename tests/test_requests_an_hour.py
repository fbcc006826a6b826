"""How many requests a miner's exporter sends to the API and to a node of the chain."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from grafana.boards.exporter import BUDGET
from tests import support
from tests.recorded import RECORDED_AT, answers, key
from tests.support import ROOT, Clock, get, served, served_exporter, watching

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from chutes_exporter.demo.replay import Replay


@pytest.mark.parametrize("with_chain", [False, True])
async def test_a_miner_with_a_key_costs_the_documented_requests_an_hour(
    replay: Replay, clock: Clock, *, with_chain: bool
) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    ((most, to_node),) = re.findall(r"up to (\d+) an hour to the API .*, and (\d+) to", text)
    assert f"up to {most} requests an hour to the API, and {to_node} to the node" in BUDGET
    twice = f"{2 * int(most)} an hour to the API, and {2 * int(to_node)} to the node"
    assert f"Two send twice the requests: {twice}." in text
    chain = {"chain_url": replay.chain_url} if with_chain else {}
    async with served_exporter(watching(replay.url, **chain), clock, monotonic=clock) as (url, _):
        for _minute in range(60):
            assert (await get(f"{url}/metrics")).status_code == 200
            clock.now += 60
    requests = Counter(request.endpoint for request in replay.requests)
    # An answer that never changes is fresh for an hour.
    assert requests["thrash_cooldowns"] == 1
    assert requests.pop("chain", 0) == (int(to_node) if with_chain else 0)
    # After the start, it also reads the 23 older audit reports of the past day. The report of the
    # hour is recorded 3 minutes later than the service makes it, which costs 2 requests more.
    to_api = requests.total() - 23 - 2
    # The document gives an upper limit, so one request less is right, too.
    assert to_api in (int(most) - 1, int(most)), requests


async def test_while_an_audit_report_is_late_the_list_is_requested_each_minute() -> None:
    api = support.replay(answers())
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
    # The list is requested at the start, and in each of the last 12 minutes: the hour began 13
    # minutes after a full one, and no new report comes. The past day has 24 reports.
    assert (requests["/audit/"], requests["/audit/download"]) == (1 + 12, 24)
