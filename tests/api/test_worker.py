from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.api.worker import Worker
from tests.support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def nothing() -> None:
    """Do nothing, as the last coroutine of a worker."""


@pytest.mark.parametrize("ended_by", ["its caller", "the worker"])
async def test_a_coroutine_ends_with_its_caller_or_with_the_worker(ended_by: str) -> None:
    worker, states = Worker("test"), list[str]()

    async def endless() -> None:
        states.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            states.append("ended")

    caller = asyncio.create_task(worker.run(endless()))
    await until(lambda: states == ["begun"])
    if ended_by == "its caller":
        caller.cancel()
        await until(lambda: states == ["begun", "ended"])
    await worker.aclose(nothing())
    assert states == ["begun", "ended"]
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_generator_that_was_dropped_is_closed_before_the_worker_ends() -> None:
    worker, closed = Worker("test"), list[bool]()

    async def pieces() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0.01)
            closed.append(True)

    async def read_one() -> None:
        async for _ in pieces():
            break

    await worker.aclose(read_one())
    assert closed == [True]
