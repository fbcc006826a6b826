"""A simulated API in a separate process. It prints its address and serves until it is killed.

Arguments: the fields of the world's size as JSON, and the latency of each answer in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.simulator import Fault, Simulator, Size, World


async def main() -> None:
    """Serve."""
    size = Size(**json.loads(sys.argv[1]))
    latency = float(sys.argv[2])
    world = World(start=time.time(), size=size)
    async with Simulator(world) as simulator:
        if latency:
            simulator.faults.update({endpoint.name: Fault(latency=latency) for endpoint in ENDPOINTS})
        world.prepare(time.time())
        print(simulator.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
