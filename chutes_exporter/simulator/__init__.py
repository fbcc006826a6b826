"""A Chutes API that lives in this process: a seeded world that moves, every endpoint, real signature checks.

async with Simulator() as simulator:
    client = ChutesClient(simulator.url)
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from chutes_exporter.config import Address
from chutes_exporter.simulator.app import Asked, SimulatedApi
from chutes_exporter.simulator.faults import Fault, parse_fault
from chutes_exporter.simulator.world import Size, World
from chutes_exporter.web.server import bound_address, open_socket, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


def _about_cut_answers(record: logging.LogRecord) -> bool:
    """Keep from the log that the server was left with half an answer: that is what a fault wants."""
    return "without completing response" not in record.getMessage()


__all__ = ["Asked", "Fault", "Simulator", "Size", "World", "parse_fault"]


class Simulator:
    """A simulated API on a socket. An asynchronous context manager.

    Args:
        world: What it tells of; a new default world when None.
        clock: Unix time in seconds, as the service sees it.
        listen: Where to listen; any free port of the loopback address by default.

    Attributes:
        url: Its base address.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        clock: Callable[[], float] = time.time,
        listen: Address | None = None,
    ) -> None:
        self.world = world or World(start=clock())
        self.api = SimulatedApi(self.world, clock)
        socket = open_socket(listen or Address("127.0.0.1", 0))
        address = bound_address(socket)
        self.url = f"http://{address if address.host else f'127.0.0.1:{address.port}'}"
        self._socket = socket
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        logger = logging.getLogger("uvicorn.error")
        logger.addFilter(_about_cut_answers)
        self._stack.callback(logger.removeFilter, _about_cut_answers)
        # The answers carry the simulated clock's date, not the server's; requests that a fault holds up end with it.
        await self._stack.enter_async_context(serving(self.api.app, [self._socket], date_header=False, grace=1))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def faults(self) -> dict[str, Fault]:
        """How endpoints misbehave, by name; change it at any time."""
        return self.api.faults

    @property
    def asked(self) -> list[Asked]:
        """The newest requests, oldest first."""
        return list(self.api.asked)
