"""A simulated API in a separate process. It prints its address and serves until it is killed.

Arguments: number of chutes, number of servers, bytes of each chute's code, latency in seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.simulator import Fault, Simulator, Size, World


async def main() -> None:
    """Serve."""
    chutes, servers, source_bytes = map(int, sys.argv[1:4])
    latency = float(sys.argv[4])
    size = Size(chutes=chutes, servers=servers, other_servers=max(1, servers // 2), source_bytes=source_bytes)
    world = World(start=time.time(), size=size)
    async with Simulator(world) as simulator:
        if latency:
            simulator.faults.update({endpoint.name: Fault(latency=latency) for endpoint in ENDPOINTS})
        world.prepare(time.time())
        print(simulator.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
