from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.decoding import Shape, Tally
from chutes_exporter.api.endpoints import METAGRAPH, SCORES, SERVERS, STATS, Endpoint
from chutes_exporter.api.errors import TooLargeError, UndecodableError
from chutes_exporter.api.memory import MemoryBudget, garbage_collector_paused, size_of
from tests.support import served, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from chutes_exporter.api.memory import Claim


def traced_memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def opened(budget: MemoryBudget, endpoint: str, cancelled: list[str], name: str, size: int) -> Claim:
    claim = budget.open(endpoint, lambda: cancelled.append(name))
    claim.add(size)
    return claim


def test_the_endpoint_that_takes_most_loses_its_largest_request() -> None:
    budget, cancelled = MemoryBudget(100), list[str]()
    opened(budget, "nodes", cancelled, "small nodes", 20)
    large = opened(budget, "nodes", cancelled, "large nodes", 30)
    scores = opened(budget, "scores", cancelled, "scores", 40)
    scores.add(9)
    assert cancelled == []
    opened(budget, "stats", cancelled, "stats", 5)
    assert cancelled == ["large nodes"]
    assert budget.used == 74
    with pytest.raises(TooLargeError, match="nodes"):
        large.add(1)
    with pytest.raises(TooLargeError, match="nodes"):
        large.keep(1)


def test_a_request_that_is_itself_the_largest_is_refused() -> None:
    budget, cancelled = MemoryBudget(100), list[str]()
    opened(budget, "scores", cancelled, "scores", 40)
    nodes = opened(budget, "nodes", cancelled, "nodes", 41)
    with pytest.raises(TooLargeError, match="nodes takes the most"):
        nodes.add(20)
    nodes.close()
    assert budget.used == 40
    assert cancelled == []


def test_a_request_that_is_being_decoded_is_not_cancelled() -> None:
    budget, cancelled = MemoryBudget(100), list[str]()
    opened(budget, "nodes", cancelled, "nodes", 80).busy = True
    with pytest.raises(TooLargeError):
        opened(budget, "scores", cancelled, "scores", 30)
    assert cancelled == []


def test_an_answer_counts_until_nobody_keeps_it_any_more() -> None:
    budget = MemoryBudget(100)
    claim = opened(budget, "nodes", [], "nodes", 90)
    kept = claim.keep(30)
    claim.close()
    assert (kept.size, budget.used) == (30, 30)
    del kept
    gc.collect()
    assert budget.used == 0


def test_one_endpoint_keeps_a_third_of_the_budget_at_most() -> None:
    budget = MemoryBudget(100)
    first = opened(budget, "nodes", [], "a", 20).keep(20)
    refused = opened(budget, "nodes", [], "b", 20)
    with pytest.raises(TooLargeError, match="nodes"):
        refused.keep(20)
    refused.close()
    others = opened(budget, "scores", [], "c", 20).keep(20)
    # Both exist only until the older one is dropped.
    second = opened(budget, "nodes", [], "d", 30).keep(30, [first])
    assert budget.used == first.size + second.size + others.size


async def test_a_copy_of_an_answer_counts_as_the_answer_does() -> None:
    async def scores(_request: Request) -> Response:
        return Response(json.dumps({"final_scores": {f"{number:x}": number / 7 for number in range(1000)}}))

    app = Starlette(routes=[Route("/miner/scores", scores)])
    async with served(app) as url, ChutesClient(url, timeout=5) as client:
        answer = await client.scores()
        memory = client._memory  # noqa: SLF001 - nothing else shows what counts
        used = memory.used
        copy = replace(answer, doubt="shrunk")
        del answer
        gc.collect()
        assert memory.used == used > 10_000
        del copy
        gc.collect()
        assert memory.used == 0


BODIES: list[tuple[Endpoint[Any], bytes]] = [
    (METAGRAPH, b"[" + b",".join(b'{"hotkey":"%x"}' % number for number in range(40_000)) + b"]"),
    (METAGRAPH, json.dumps([{"hotkey": str(n), "stake": n / 7, "coldkey": "x" * n} for n in range(2_000)]).encode()),
    (METAGRAPH, json.dumps([{"hotkey": f"{n}😀" * 500} for n in range(2_000)], ensure_ascii=False).encode()),
    (SCORES, json.dumps({"final_scores": {f"{number:x}": number / 7 for number in range(40_000)}}).encode()),
    (SERVERS, json.dumps({"servers": [{"server_id": "a", "gpus": [{"uuid": str(n)} for n in range(9_000)]}]}).encode()),
    (SERVERS, b'{"servers":[{"server_id":"a","gpus":[{}],%s}]}' % b",".join(b'"%x":1' % n for n in range(100_000))),
    (STATS, json.dumps({"all": {"instance_stats": [{"miner_hotkey": str(n)} for n in range(40_000)]}}).encode()),
]


@pytest.mark.parametrize(("endpoint", "body"), BODIES)
def test_decoding_takes_no_more_memory_than_was_asked_for(endpoint: Endpoint[Any], body: bytes) -> None:
    shape = endpoint.shape
    assert isinstance(shape, Shape)
    tracemalloc.start()
    try:
        value = shape.decode(body, Tally())
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < shape.memory(body) + 100_000
    assert left < 1.2 * size_of(value) + 100_000


def test_stats_that_cannot_be_read_are_left_to_the_decoder() -> None:
    assert isinstance(STATS.shape, Shape)
    assert STATS.shape.memory(b"<html>") == 0


async def stalling(size: int) -> AsyncIterator[bytes]:
    """Send an endless answer as far as so many bytes, and no further."""
    yield b" " * size
    await asyncio.Event().wait()


async def test_answers_that_stall_make_room_for_those_that_come() -> None:
    points = json.dumps([{"time": "2026-11-17 13:00:00+00", "count": number} for number in range(8_000)]).encode()

    async def metagraph(_request: Request) -> Response:
        return StreamingResponse(stalling(3_500_000))

    async def history(_request: Request) -> Response:
        return Response(points)

    routes = [Route("/miner/metagraph", metagraph), Route("/miner/unique_chute_history/{hotkey}", history)]
    async with served(Starlette(routes=routes)) as url, ChutesClient(url, max_memory=4_000_000) as client:
        waiting = asyncio.create_task(client.metagraph())
        while client._memory.used < 3_500_000:  # noqa: SLF001 - until all has come
            await asyncio.sleep(0.01)
        assert (await client.unique_chute_history("x")).count == 8_000
        with pytest.raises(TooLargeError, match="may take 4 MB of memory, and metagraph takes the most"):
            await asyncio.wait_for(waiting, 10)


async def test_memory_is_free_again_after_every_answer_and_every_error() -> None:
    good = json.dumps([{"hotkey": f"{number:048}"} for number in range(9_000)]).encode()
    bodies = [good, b"[" + b"1," * 900_000 + b"1]", b"x" * 5_000_000, b"<html>"]

    async def metagraph(request: Request) -> Response:
        return Response(bodies[int(request.query_params["body"])])

    async with (
        served(Starlette(routes=[Route("/miner/metagraph", metagraph)])) as url,
        ChutesClient(url, max_memory=12_000_000) as client,
    ):
        for _ in range(4):
            for number, error in enumerate((None, TooLargeError, UndecodableError, UndecodableError)):
                fetching = client.fetch(METAGRAPH, params={"body": str(number)})
                if error is None:
                    assert (await fetching).count == 9_000
                else:
                    with pytest.raises(error):
                        await fetching
        gc.collect()
        assert client._memory.used == 0  # noqa: SLF001 - what the limit counts


async def test_an_error_that_is_kept_does_not_keep_the_answer() -> None:
    async def metagraph(_request: Request) -> Response:
        return Response(b"[" + b"x" * 20_000_000)

    async with served(Starlette(routes=[Route("/miner/metagraph", metagraph)])) as url, ChutesClient(url) as client:
        tracemalloc.start()
        try:
            with pytest.raises(UndecodableError) as error:
                await client.metagraph()
            kept = error.value
            del error
            assert kept.advice
            # The thread that decoded holds the answer until it runs again, which may be after the client.
            await until(lambda: traced_memory() < 5_000_000)
        finally:
            tracemalloc.stop()


def test_a_pause_leaves_the_garbage_collector_as_it_was() -> None:
    with garbage_collector_paused():
        assert not gc.isenabled()
        with garbage_collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
