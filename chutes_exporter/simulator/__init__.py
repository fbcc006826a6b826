"""A simulated Chutes API in this process: a world that changes over time, all endpoints, real signature checks."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from chutes_exporter.config import Address
from chutes_exporter.simulator.app import ReceivedRequest, SimulatedApi
from chutes_exporter.simulator.demo import DEFAULT_TROUBLES, TROUBLES, DemoWorld
from chutes_exporter.simulator.faults import Fault, parse_fault
from chutes_exporter.simulator.world import Size, World
from chutes_exporter.web.server import bound_address, open_socket, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


__all__ = [
    "DEFAULT_TROUBLES",
    "TROUBLES",
    "DemoWorld",
    "Fault",
    "ReceivedRequest",
    "Simulator",
    "Size",
    "World",
    "parse_fault",
]


def _hide_cut_answers(record: logging.LogRecord) -> bool:
    """Filter out log lines about incomplete answers, which faults cause on purpose."""
    return "without completing response" not in record.getMessage()


class Simulator:
    """A simulated API on a socket. It is an asynchronous context manager.

    Args:
        world: The simulated world. None makes a new default world.
        clock: The service's clock: Unix time in seconds.
        listen: The address to listen on. None takes a free port of the loopback address.

    Attributes:
        url: Its base address.
        faults: Faults by endpoint name. Change them at any time.
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
        self.faults = self.api.faults
        socket = open_socket(listen or Address("127.0.0.1", 0), "--simulator.listen-address")
        address = bound_address(socket)
        self.url = f"http://{address if address.host else f'127.0.0.1:{address.port}'}"
        self._socket = socket
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        logger = logging.getLogger("uvicorn.error")
        logger.addFilter(_hide_cut_answers)
        self._stack.callback(logger.removeFilter, _hide_cut_answers)
        # Responses have the date of the simulated clock. The short grace period ends requests delayed by a fault.
        await self._stack.enter_async_context(serving(self.api.app, [self._socket], date_header=False, grace=1))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The newest requests, oldest first."""
        return list(self.api.requests)
