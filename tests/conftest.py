from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog

from chutes_exporter.simulator import Simulator, Size, World
from tests.support import NOON, Clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def small_world() -> World:
    return World(start=NOON, size=Size(miners=12, active_miners=6, chutes=30))


@pytest.fixture
async def simulator(small_world: World, clock: Clock) -> AsyncIterator[Simulator]:
    """A simulator whose time stands still at noon, unless the test moves it."""
    async with Simulator(small_world, clock=clock) as running:
        yield running


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()
