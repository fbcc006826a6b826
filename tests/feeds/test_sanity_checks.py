"""Answers that look right and are wrong: which are doubted, and what the cache makes of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from chutes_exporter.api import records as r
from chutes_exporter.api.answer import Answer
from chutes_exporter.feeds.cache import FeedCache
from chutes_exporter.feeds.definitions import (
    ACTIVE_INSTANCES,
    BOUNTIES,
    CHUTE_METRICS,
    CHUTES,
    HELD_GPUS,
    INSTANCES,
    METAGRAPH,
    NODES,
    UTILIZATION,
)
from chutes_exporter.feeds.sanity_checks import DoubtedError, reason_to_doubt
from tests.support import Clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chutes_exporter.feeds.feed import Feed

MINER = "5miner"


def answer(records: Sequence[r.Record], *, rejected: int = 0) -> Answer[Any]:
    """Return an answer with some records, beside rejected ones."""
    return Answer(list(records), len(records), rejected)


def chutes(count: int, *, bounties: int = 0) -> list[r.Chute]:
    """Return the chutes c0, c1 and so on. The first ones have bounties."""
    return [
        r.Chute(f"c{number}", bounty=100 if number < bounties else None) for number in range(count)
    ]


def running(*ids: str | None) -> list[r.ActiveInstance]:
    """Return an active instance of each chute. None is a chute that is not known."""
    return [
        r.ActiveInstance(f"i{number}", chute_id=chute_id) for number, chute_id in enumerate(ids)
    ]


def demand(count: int, requests: int = 1) -> list[r.ChuteMetrics]:
    """Return metrics of the chutes c0, c1 and so on, each with some requests."""
    return [
        r.ChuteMetrics(f"c{number}", total_invocations=requests, utilization=0)
        for number in range(count)
    ]


def load(count: int, utilization: float) -> list[r.ChuteUtilization]:
    """Return the autoscaler's view of the chutes c0, c1 and so on."""
    return [
        r.ChuteUtilization(f"c{number}", utilization_15m=utilization) for number in range(count)
    ]


def bounties(count: int) -> list[r.Bounty]:
    return [r.Bounty(f"c{number}") for number in range(count)]


def gpus(*ids: str) -> list[r.Node]:
    return [r.Node(uuid) for uuid in ids]


SERVER = [r.Server("s", gpus=[r.ServerGpu("g1"), r.ServerGpu("g2")]), r.Server("without GPUs")]
HELD = [r.InventoryItem("g1", chute_id="c1"), r.InventoryItem("g2")]
SEATS = [r.MetagraphNode(f"5{number}") for number in range(10)]


class Case(NamedTuple):
    """An answer of a feed, and what is known when it comes.

    Attributes:
        new: The records of this answer.
        old: The records of the answer before, None if this is the first.
        others: The records of the feeds that the checks compare it with, or None if unknown.
        doubt: The reason to doubt it, None if it is not doubted.
    """

    feed: Feed[Any]
    new: Sequence[r.Record]
    old: Sequence[r.Record] | None = None
    others: Sequence[Sequence[r.Record] | None] = ()
    doubt: str | None = None


CASES = {
    "a list that lost more than a fifth": Case(METAGRAPH, old=SEATS, new=SEATS[:7], doubt="shrunk"),
    "a list that lost a fifth": Case(METAGRAPH, old=SEATS, new=SEATS[:8]),
    "a GPU that only a server lists": Case(
        NODES, new=gpus("g1"), others=[SERVER], doubt="disagrees"
    ),
    "GPUs, and servers that are unknown": Case(NODES, new=gpus("g1"), others=[None]),
    "no GPUs, and servers that have some": Case(NODES, new=[], others=[SERVER], doubt="disagrees"),
    "no GPUs, and servers that are unknown": Case(NODES, new=[], others=[None], doubt="disagrees"),
    "no GPUs and no servers": Case(NODES, new=[], others=[[]]),
    "a chute that holds GPUs without an instance": Case(
        INSTANCES, new=[], others=[HELD], doubt="disagrees"
    ),
    "an instance of an unknown chute": Case(INSTANCES, new=[r.Instance("i")], others=[HELD]),
    "two chutes that run and are not listed": Case(
        CHUTES, new=chutes(5), others=[running("c0", "x", "y"), None]
    ),
    "three chutes that run and are not listed": Case(
        CHUTES, new=chutes(5), others=[running("x", "y", "z"), []], doubt="disagrees"
    ),
    "three chutes with demand that are not listed": Case(
        CHUTES, new=chutes(1), others=[None, demand(4)], doubt="disagrees"
    ),
    "bounties of chutes that are gone": Case(
        CHUTES, old=chutes(9, bounties=3), new=chutes(9), others=[None, None], doubt="no_bounties"
    ),
    "two bounties that were claimed": Case(
        CHUTES, old=chutes(9, bounties=2), new=chutes(9), others=[None, None]
    ),
    "a platform without demand": Case(CHUTE_METRICS, new=demand(9, requests=0), doubt="no_demand"),
    "a platform without load": Case(UTILIZATION, new=load(9, 0.0), doubt="no_demand"),
    "open bounties that are gone": Case(
        BOUNTIES, old=bounties(3), new=[], others=[None], doubt="no_bounties"
    ),
    "no open bounties, and chutes with some": Case(
        BOUNTIES, new=[], others=[chutes(9, bounties=3)], doubt="no_bounties"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_doubted_for_its_reason(name: str) -> None:
    case = CASES[name]
    old = None if case.old is None else answer(case.old)
    doubt = reason_to_doubt(case.feed.checks, old, answer(case.new), case.others)
    assert doubt == case.doubt


def test_a_chute_that_cannot_be_read_may_be_one_with_a_bounty() -> None:
    new = answer(chutes(9), rejected=1)
    assert reason_to_doubt(CHUTES.checks, answer(chutes(9, bounties=3)), new, [None, None]) is None


async def let_others_run() -> None:
    """Wait until other tasks have had their turns."""
    for _ in range(9):
        await asyncio.sleep(0)


class Api:
    """Answers that a test changes, and a cache that requests them.

    Attributes:
        records: The records of each feed by name. A request for another feed fails.
        once: Records of a feed's next answers, by name. They come before those above.
        held: Names of feeds whose answers never come.
        asked: How often each feed was requested.
    """

    def __init__(self, **records: Sequence[r.Record]) -> None:
        self.records = records
        self.once: dict[str, list[Sequence[r.Record]]] = {}
        self.held = set[str]()
        self.asked: Counter[str] = Counter()
        self.clock = Clock(0.0)
        self.cache = FeedCache(self.fetch, monotonic=self.clock, clock=self.clock)

    async def fetch(self, feed: Feed[Any]) -> Answer[Any]:
        """Answer a request of the cache."""
        self.asked[feed.name] += 1
        if feed is ACTIVE_INSTANCES:
            await let_others_run()  # Its answer comes last.
        if feed.name in self.held:
            await asyncio.Event().wait()
        return answer(self._next_records(feed.name))

    def _next_records(self, name: str) -> Sequence[r.Record]:
        if once := self.once.get(name):
            return once.pop(0)
        return self.records[name]

    async def read(self, feed: Feed[Any], *, at: float = 0.0) -> tuple[int, str | None]:
        """Return the number of records at a time in seconds, and the newest answer's doubt."""
        self.clock.now = at
        await self.cache.read(feed, 5)
        state = self.cache.states()[feed]
        assert state.kept is not None
        answer_in_use = state.kept.answer
        if isinstance(state.last_error, DoubtedError):
            # The newest answer did not replace the one in use.
            return answer_in_use.count, state.last_error.doubt
        return answer_in_use.count, answer_in_use.doubt


async def test_the_last_good_answer_stays_until_its_maximum_age() -> None:
    api = Api(metrics=demand(9))
    assert await api.read(CHUTE_METRICS) == (9, None)
    api.records["metrics"] = demand(8, requests=0)
    for at in (115, 500, 899):
        assert await api.read(CHUTE_METRICS, at=at) == (9, "no_demand")
    # After its maximum age of 900 seconds, a doubted answer is better than none.
    assert await api.read(CHUTE_METRICS, at=1100) == (8, "no_demand")
    # Then the next doubted answer replaces it.
    api.records["metrics"] = demand(7, requests=0)
    assert await api.read(CHUTE_METRICS, at=1300) == (7, "no_demand")
    api.records["metrics"] = demand(6)
    assert await api.read(CHUTE_METRICS, at=1500) == (6, None)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(5, 10, (10, None)), (5, 6, (6, None)), (5, 3, (10, "shrunk")), (3, 5, (10, "shrunk"))],
    ids=["back", "confirmed", "shrinking", "growing"],
)
async def test_a_list_that_shrank_is_accepted_if_a_second_answer_is_about_as_long(
    first: int, second: int, expected: tuple[int, str | None]
) -> None:
    api = Api(metagraph=SEATS)
    await api.read(METAGRAPH)
    api.once["metagraph"] = [SEATS[:first]]
    api.records["metagraph"] = SEATS[:second]
    assert await api.read(METAGRAPH, at=175) == expected
    assert api.asked["metagraph"] == 1 + 2
    # The next answer is compared with an accepted one, and not requested twice again.
    _, doubt = expected
    if doubt is None:
        assert await api.read(METAGRAPH, at=350) == expected
        assert api.asked["metagraph"] == 1 + 2 + 1


async def test_a_second_short_answer_does_not_confirm_what_another_endpoint_denies() -> None:
    api = Api(servers=SERVER, nodes=gpus("g1", "g2"))
    await api.read(NODES.of(MINER))
    api.records["nodes"] = []
    assert await api.read(NODES.of(MINER), at=115) == (2, "disagrees")
    api.records["servers"] = []
    assert await api.read(NODES.of(MINER), at=230) == (0, None)


async def test_an_instance_that_just_ended_is_no_doubt() -> None:
    instances = [r.Instance(f"i{number}", chute_id=f"c{number}") for number in range(9)]
    held = [r.InventoryItem(f"g{number}", chute_id=f"c{number}") for number in range(9)]
    api = Api(inventory=held, instances=instances)
    # The instances are due sooner than the inventory.
    feed = replace(INSTANCES.of(MINER), ttl=20)
    await api.read(feed)
    api.records |= {"inventory": held[:8], "instances": instances[:8]}
    # The inventory is still fresh and names the chute: both are requested once more, and agree.
    assert await api.read(feed, at=30) == (8, None)
    assert api.asked == {"instances": 3, "inventory": 2}


async def test_an_older_answer_is_no_evidence_after_an_error() -> None:
    api = Api(servers=SERVER, nodes=gpus("g1", "g2"))
    await api.read(NODES.of(MINER))
    # The request for servers fails now. The older answer names the GPU g2, which may be gone.
    api.records = {"nodes": gpus("g1")}
    assert await api.read(NODES.of(MINER), at=115) == (1, None)


async def test_evidence_that_is_being_requested_is_awaited() -> None:
    # No GPUs are held, although an instance runs. The answer about the instance comes last.
    api = Api(held_gpus=[], active_instances=running("c"))
    _, held = await asyncio.gather(api.read(ACTIVE_INSTANCES), api.read(HELD_GPUS))
    assert held == (0, "disagrees")
