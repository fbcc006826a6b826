"""A simulated API in a separate process. It prints its address and serves until it is killed.

Arguments: the fields of the world's size as JSON, and the latency of each answer in seconds. With a latency, the first
answer to each request is kept and sent again, so that computing answers takes no time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

from chutes_exporter.simulator import Simulator, Size, World

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Kept:
    """Sends the first answer to each request again, after a latency.

    Args:
        app: Answers.
        latency: Seconds before each answer.
    """

    def __init__(self, app: ASGIApp, latency: float) -> None:
        self._app = app
        self._latency = latency
        self._answers: dict[tuple[str, bytes], list[Message]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        asked = scope["path"], scope["query_string"]
        if asked not in self._answers:
            messages: list[Message] = []

            async def keep(message: Message) -> None:
                messages.append(message)

            await self._app(scope, receive, keep)
            self._answers[asked] = messages
        await asyncio.sleep(self._latency)
        for message in self._answers[asked]:
            await send(message)


async def main() -> None:
    """Serve."""
    size = Size(**json.loads(sys.argv[1]))
    latency = float(sys.argv[2])
    world = World(start=time.time(), size=size)
    async with Simulator(world) as simulator:
        if latency:
            simulator.app.add_middleware(Kept, latency=latency)
        world.prepare(time.time())
        print(simulator.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
