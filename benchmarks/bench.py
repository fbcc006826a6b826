"""``make bench``: measures speed, memory and page sizes, and prints the tables of docs/dev/performance.md.

Times are CPU times and ratios within one run, which differ less between machines. It fails if a figure exceeds its
bound.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client import generate_latest

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.collectors.base import Samples
from chutes_exporter.config import make_settings
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.page.rendering import collect
from chutes_exporter.simulator import Simulator, Size, World
from chutes_exporter.simulator.world import TEST_SEED

if TYPE_CHECKING:
    from collections.abc import Callable

HOTKEY = "5GNocjnmB7uTa4jURRRvji6CsUZnEyomrLhpodHdhsLF1Wti"
SMALL = Size(chutes=316, servers=14, other_servers=7)
LARGE = Size(chutes=2450, servers=100, other_servers=50)
MANY_SERIES = ("--miners", "all", "--max-series", "400000", "--collector.stats_per_chute")
"""With :data:`LARGE`, the page has about 200,000 series."""
WORLDS = {
    "60 GPUs, 300 chutes": Size(),
    "1,000 GPUs, 2,000 chutes": Size(chutes=2000, servers=215, other_servers=107, source_bytes=40_000),
}


def series_of(page: bytes) -> int:
    """Return how many series a page has."""
    return sum(1 for line in page.split(b"\n") if line and not line.startswith(b"#"))


async def cpu_seconds(running: Exporter, *, renewed: bool) -> float:
    """Return the least CPU time of a page of which everything or nothing has changed."""
    measured = []
    for _ in range(15):
        if renewed:
            for feed in running.feeds.states():
                running.feeds.expire(feed)
            await running.warm_up()
        started = time.process_time()
        await running.metrics(Format.TEXT, timeout=60)
        measured.append(time.process_time() - started)
    return min(measured)


def least(work: Callable[[], object]) -> float:
    """Return the least CPU time of some work."""
    measured = []
    for _ in range(15):
        started = time.process_time()
        work()
        measured.append(time.process_time() - started)
    return min(measured)


async def bench_page() -> list[tuple[str, str, str, bool]]:
    """Compare pages with ``generate_latest`` of the same families."""
    world = World(start=time.time(), size=SMALL)
    async with Simulator(world) as api:
        settings = make_settings(api_url=api.url, keys=(world.miners[0].key,))
        async with Exporter(settings) as running:
            series = series_of(await running.metrics(Format.TEXT, timeout=60))

            def families() -> list[Any]:
                states = running.feeds.states()
                snapshots = {feed: state.snapshot for feed, state in states.items() if state.snapshot is not None}
                found: list[Any] = []
                for entry in running.plan.entries:
                    samples = Samples()
                    collect(entry, snapshots, samples)
                    found += samples.collect()
                return [*found, *running.telemetry.registry.collect(), *running.telemetry.exchanges.registry.collect()]

            made = families()
            kept: Any = SimpleNamespace(collect=lambda: made)
            built: Any = SimpleNamespace(collect=families)
            unchanged = least(lambda: generate_latest(kept)) / await cpu_seconds(running, renewed=False)
            changed = await cpu_seconds(running, renewed=True) / least(lambda: generate_latest(built))
    return [
        (
            f"page of {series:,} series of which nothing changed, against `generate_latest`",
            "5 x faster",
            f"{unchanged:.1f} x",
            unchanged >= 5,
        ),
        (
            "page of which everything changed, against building the families and `generate_latest`",
            "1.3 x",
            f"{changed:.2f} x",
            changed <= 1.3,
        ),
    ]


def bench_memory(size: Size, limit: int, *flags: str) -> tuple[str, str, str, bool]:
    """Measure the resident memory of the exporter's process after some scrapes."""
    command = str(Path(sys.executable).parent / "chutes-exporter")
    upstream = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bench", json.dumps(asdict(size))], stdout=subprocess.PIPE, text=True
    )
    assert upstream.stdout is not None
    arguments = (command, "--api.url", upstream.stdout.readline().strip(), "--web.listen-address", "127.0.0.1:0")
    environment = {**os.environ, "MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
    running = subprocess.Popen([*arguments, *flags], stderr=subprocess.PIPE, text=True, env=environment)
    assert running.stderr is not None
    try:
        listening = next(line for line in running.stderr if "msg=listening" in line)
        url = f"http://{listening.partition('addresses=')[2].split()[0]}/metrics"
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": "60"}
        page = [httpx.get(url, headers=headers, timeout=60).content for _ in range(3)][-1]
        status = Path(f"/proc/{running.pid}/status").read_text()
    finally:
        for process in (running, upstream):
            process.kill()
            process.communicate()
    taken = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    what = f"resident memory with a page of {series_of(page):,} series"
    return what, f"{limit} MB", f"{taken:.0f} MB", taken <= limit


async def page_sizes(size: Size) -> dict[str, str]:
    """Return how large the pages of a world are: series, bytes, and bytes compressed."""
    world = World(start=time.time(), size=size)
    key, everything = world.miners[0].key, {collector.name: True for collector in COLLECTORS}
    sizes = {}
    world.grow(time.time())
    async with Simulator(world) as api:
        modes: dict[str, dict[str, Any]] = {
            "nothing configured": {},
            "one miner with `--hotkey`": {"hotkeys": [key.address]},
            "one miner with its key": {"keys": (key,)},
            "every collector, `--miners all`": {"keys": (key,), "miners": "all", "collectors": everything},
        }
        for mode, options in modes.items():
            async with Exporter(
                make_settings(api_url=api.url, api_timeout=600, max_series=10**9, **options)
            ) as running:
                page = await running.metrics(Format.TEXT, timeout=600)
            sizes[mode] = f"{series_of(page):,} ({len(page) / 1e6:.1f} MB, {len(gzip.compress(page, 1)) / 1e6:.1f} MB)"
    return sizes


async def serve(size: Size) -> None:
    """Serve a simulated API until the process is killed, and print its address."""
    world = World(start=time.time(), size=size)
    async with Simulator(world) as api:
        world.grow(time.time())
        print(api.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Run all benchmarks."""
    print(f"Measured {time.strftime('%Y-%m-%d')} on {os.cpu_count()} cores, Python {platform.python_version()}.\n")
    print("| what | bound | measured | holds |\n|---|---|---|---|")
    rows = [*asyncio.run(bench_page()), bench_memory(SMALL, 100), bench_memory(LARGE, 450, *MANY_SERIES)]
    for what, bound, measured, holds in rows:
        print(f"| {what} | {bound} | {measured} | {'yes' if holds else '**no**'} |")
    columns = [asyncio.run(page_sizes(size)) for size in WORLDS.values()]
    print(f"\n| watched | {' | '.join(WORLDS)} |\n|---|---:|---:|")
    for mode in columns[0]:
        print(f"| {mode} | {' | '.join(column[mode] for column in columns)} |")
    sys.exit(not all(holds for *_, holds in rows))


if __name__ == "__main__":
    asyncio.run(serve(Size(**json.loads(sys.argv[1])))) if len(sys.argv) > 1 else main()
