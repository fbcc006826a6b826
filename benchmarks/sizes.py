"""Prints page sizes in today's subnet and in the largest planned one (`make sizes`)."""

from __future__ import annotations

import asyncio
import gzip
import time

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.config import make_settings
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator import Simulator, Size, World

WORLDS = {
    "a miner with 60 GPUs, 300 chutes": Size(),
    "a miner with 1,000 GPUs, 2,000 chutes": Size(chutes=2000, servers=215, other_servers=107, source_bytes=40_000),
}


async def measure(title: str, size: Size) -> None:
    """Print how large the pages of one world are, in all and by collector."""
    now = time.time()
    world = World(start=now, size=size)
    key = world.miners[0].key
    async with Simulator(world) as simulator:
        world.all_instances(now)
        everything = {collector.name: True for collector in COLLECTORS}
        modes = {
            "nothing configured": make_settings(api_url=simulator.url),
            "`--hotkey`": make_settings(api_url=simulator.url, hotkeys=[key.address]),
            "`--hotkey-file`": make_settings(api_url=simulator.url, keys=(key,)),
            "`--hotkey-file --miners all`": make_settings(
                api_url=simulator.url, keys=(key,), miners="all", max_series=10**9
            ),
            "every collector, `--miners all`": make_settings(
                api_url=simulator.url,
                keys=(key,),
                miners="all",
                collectors=everything,
                max_series=10**9,
            ),
        }
        instances = len(world.instances(now, key.address))
        print(f"\n## {title}\n")
        print(
            f"{len(world.miners[0].servers)} servers, {len(world.miners[0].gpus)} GPUs, {instances} instances; on the"
        )
        print(f"platform {len(world.chutes)} chutes and {len(world.instances(now))} instances.\n")
        print("| watched | series | page | gzipped |")
        print("|---|---:|---:|---:|")
        page = b""
        for mode, settings in modes.items():
            async with Exporter(settings) as exporter:
                page = await exporter.metrics(Format.TEXT, timeout=600)
            lines = [line for line in page.splitlines() if not line.startswith(b"#")]
            size_of = f"{len(page) / 1e6:.2f} MB | {len(gzip.compress(page, 1)) / 1e6:.2f} MB"
            print(f"| {mode} | {len(lines):,} | {size_of} |")
        print("\n| collector (`--miners all`) | series |\n|---|---:|")
        for collector in COLLECTORS:
            names = tuple(f"{metric.name}{end}".encode() for metric in collector.metrics for end in ("{", " "))
            print(f"| `{collector.name}` | {sum(line.startswith(names) for line in page.splitlines()):,} |")


async def main() -> None:
    """Measure every world."""
    for title, size in WORLDS.items():
        await measure(title, size)


if __name__ == "__main__":
    asyncio.run(main())
