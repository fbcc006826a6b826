"""``make bench``: measures speed, memory and page sizes, and prints the tables of
docs/dev/performance.md.

Times are CPU times and ratios within one run, which differ less between machines. It fails if a
figure exceeds its bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.large_day import LargeDay
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.collectors.base import Samples
from chutes_exporter.config import Address, make_settings
from chutes_exporter.demo.replay import Replay
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.feeds.fleet import Joined, fleet_answers, known_answers
from chutes_exporter.fleet.model import join_fleet
from chutes_exporter.fleet.offers import find_demand
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.page.maker import exported_miners, run_collector
from chutes_exporter.web.app import make_app
from chutes_exporter.web.server import bound_address, open_socket, serving
from tests.support import HOTKEY, KEY, TEST_SEED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    Row = tuple[str, str, str, bool]
    """What is measured, its bound, the figure, and whether it holds."""

SMALL = {"gpus": 104}
MIDDLE = {"gpus": 760}
"""With the key of a miner, the page has about 20,000 series."""
LARGE = {"gpus": 6800, "miners": 250}
MANY_SERIES = ("--miners", "all", "--max-series", "400000")
"""The most series that :data:`LARGE` has."""
BIG_FLEET = {"gpus": 996, "miners": 250}
THE_SAME_SETTINGS: dict[str, Any] = {"miners": "all", "max_series": 400_000}
DAYS = {
    "38 GPUs, 24 miners": {},
    "104 GPUs, 24 miners": {"gpus": 104},
    "996 GPUs, 250 miners": BIG_FLEET,
}


def series_of(page: bytes) -> int:
    """Return how many series a page has."""
    return sum(1 for line in page.split(b"\n") if line and not line.startswith(b"#"))


async def cpu_time(work: Callable[[], Awaitable[object]]) -> float:
    """Return the CPU time of some work."""
    started = time.process_time()
    await work()
    return time.process_time() - started


async def least(
    work: Callable[[], Awaitable[object]],
    before: Callable[[], Awaitable[object]] | None = None,
    times: int = 15,
) -> float:
    """Return the least CPU time of some work, before which something else is done."""
    measured = []
    for _ in range(times):
        if before:
            await before()
        measured.append(await cpu_time(work))
    return min(measured)


def families_of(running: Exporter) -> list[Any]:
    """Return the families of a page as the library takes them."""
    states = running.feeds.states()
    joined = Joined(known_answers(states))
    miners = exported_miners(running.settings, joined)
    found: list[Any] = []
    for entry in running.plan.entries:
        samples = Samples()
        run_collector(entry, joined, miners, samples)
        found += samples.families()
    return [
        *found,
        *running.telemetry.registry.collect(),
        *running.telemetry.request_counters.registry.collect(),
    ]


async def bench_page() -> list[Row]:
    """Compare pages with ``generate_latest`` of the same families."""
    async with Replay(LargeDay(**SMALL)) as api:
        settings = make_settings(api_url=api.url, api_timeout=600, keys=(KEY,))
        async with Exporter(settings) as running:
            series = series_of(await running.metrics(Format.TEXT, timeout=60))

            def families() -> list[Any]:
                return families_of(running)

            async def library(collect: Callable[[], list[Any]]) -> None:
                generate_latest(SimpleNamespace(collect=collect))

            async def page() -> None:
                await running.metrics(Format.TEXT, timeout=60)

            async def renew() -> None:
                for feed in running.feeds.states():
                    running.feeds.expire(feed)
                await running.warm_up()

            made = families()
            unchanged = await least(lambda: library(lambda: made)) / await least(page)
            changed = await least(page, before=renew) / await least(lambda: library(families))
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


_CLIENT = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for line in sys.stdin:
    headers = {"Accept": sys.argv[2], "Accept-Encoding": "gzip"}
    connection.request("GET", "/metrics", headers=headers)
    connection.getresponse().read()
    print("read", flush=True)
"""


@contextlib.asynccontextmanager
async def scraping(app: ASGIApp, form: Format) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Serve an application, and yield a function that lets another process scrape it once."""
    pipe = asyncio.subprocess.PIPE
    with open_socket(Address("127.0.0.1", 0)) as opened:
        async with serving(app, [opened]):
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _CLIENT, str(bound_address(opened).port), form.value),
                stdin=pipe,
                stdout=pipe,
            )
            assert client.stdin is not None
            assert client.stdout is not None

            async def scrape() -> None:
                client.stdin.write(b"\n")  # type: ignore[union-attr] # checked above
                assert await client.stdout.readline() == b"read\n"  # type: ignore[union-attr]

            try:
                await scrape()
                yield scrape
            finally:
                client.stdin.close()
                await client.wait()


async def bench_scrape(size: dict[str, int], **settings: Any) -> list[Row]:
    """Compare scrapes, compressed, of a page of which nothing changed: with the same bytes from
    memory, and with what the library does for each scrape.
    """
    write: dict[Format, Callable[[Any], bytes]] = {
        Format.TEXT: generate_latest,
        Format.OPENMETRICS: openmetrics.generate_latest,
    }
    slower, faster = {}, {}
    async with Replay(LargeDay(**size)) as api:
        settings |= {"api_url": api.url, "api_timeout": 600, "keys": (KEY,)}
        # Time stands still, because on a slow machine, answers would become stale between scrapes.
        async with Exporter(make_settings(**settings), monotonic=lambda: 0.0) as running:
            await running.warm_up()
            made = families_of(running)
            families = SimpleNamespace(collect=lambda: made)
            series = series_of(await running.metrics(Format.TEXT, timeout=60))
            for form in Format:
                page = await running.metrics(form, timeout=60, gzipped=True)

                async def from_memory(_: Request, page: bytes = page) -> Response:
                    return Response(page, headers={"Content-Encoding": "gzip"})

                async def library(form: Format = form) -> None:
                    gzip.compress(write[form](families))

                memory = Starlette(routes=[Route("/metrics", from_memory)])
                async with (
                    scraping(memory, form) as scrape_memory,
                    scraping(make_app(running), form) as scrape_page,
                ):
                    # In turn, so that a busy machine slows both down.
                    times = [
                        (await cpu_time(scrape_memory), await cpu_time(scrape_page))
                        for _ in range(100)
                    ]
                still, warm = map(min, zip(*times, strict=True))
                slower[form.name] = warm / still
                faster[form.name] = await least(library, times=3) / warm
    return [
        (
            f"scrape of {series:,} series of which nothing changed, against its bytes from memory",
            "8 x",
            _by_format(slower),
            max(slower.values()) <= 8,
        ),
        (
            "the same, against `generate_latest` and `gzip`",
            "25 x faster",
            _by_format(faster),
            min(faster.values()) >= 25,
        ),
    ]


def _by_format(ratios: dict[str, float]) -> str:
    return " / ".join(f"{ratio:.1f} x {name.lower()}" for name, ratio in ratios.items())


async def bench_fleet(size: dict[str, int], limit: int) -> Row:
    """Measure how long it takes to join the answers about a miner into its fleet."""
    async with Replay(LargeDay(**size)) as api:
        settings = make_settings(api_url=api.url, api_timeout=600, keys=(KEY,))
        async with Exporter(settings) as running:
            await running.warm_up()
            known = {
                feed.name: state.kept.answer
                for feed, state in running.feeds.states().items()
                if state.kept is not None and feed.hotkey in (HOTKEY, THE_PLATFORM)
            }
    answers = fleet_answers(known, HOTKEY)
    answers = replace(answers, demand=find_demand(answers))
    gpus = len(join_fleet(answers).gpus)

    async def join() -> None:
        # A copy has found nothing yet.
        join_fleet(replace(answers))

    taken = 1000 * await least(join, times=30)
    what = f"time to join a fleet of {gpus:,} GPUs"
    return what, f"{limit} ms", f"{taken:.0f} ms", taken <= limit


async def bench_memory(size: dict[str, int], limit: int, *flags: str) -> Row:
    """Measure the resident memory of the exporter's process after some scrapes."""
    environment = {**os.environ, "MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
    async with Replay(LargeDay(**size)) as api, httpx.AsyncClient(timeout=600) as client:
        command = (Path(sys.executable).parent / "chutes-exporter", "--api.url", api.url)
        process = await asyncio.create_subprocess_exec(
            *command,
            "--web.listen-address",
            "127.0.0.1:0",
            "--api.timeout",
            "300",
            *flags,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        assert process.stderr is not None
        try:
            while b"msg=listening" not in (line := await process.stderr.readline()):
                assert line
            url = f"http://{line.decode().partition('addresses=')[2].split()[0]}/metrics"
            headers = {"X-Prometheus-Scrape-Timeout-Seconds": "600"}
            page = [(await client.get(url, headers=headers)).content for _ in range(3)][-1]
            status = Path(f"/proc/{process.pid}/status").read_text()  # noqa: ASYNC240 - in memory
        finally:
            process.kill()
            await process.communicate()
    taken = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    what = f"resident memory with a page of {series_of(page):,} series"
    return what, f"{limit} MB", f"{taken:.0f} MB", taken <= limit


async def page_sizes(size: dict[str, int]) -> dict[str, str]:
    """Return how large the pages of a day are: series, bytes, and bytes compressed."""
    everything = {collector.name: True for collector in COLLECTORS}
    sizes = {}
    async with Replay(LargeDay(**size)) as api:
        modes: dict[str, dict[str, Any]] = {
            "nothing configured": {},
            "one miner with `--hotkey`": {"hotkeys": [HOTKEY]},
            "one miner with its key": {"keys": (KEY,)},
            "the same, `--chutes all`": {"keys": (KEY,), "chutes": "all"},
            "every collector, `--miners all`": {
                "keys": (KEY,),
                "miners": "all",
                "collectors": everything,
            },
        }
        for mode, options in modes.items():
            urls: dict[str, Any] = {"api_url": api.url, "chain_url": api.chain_url}
            async with Exporter(
                make_settings(**urls, api_timeout=600, max_series=10**9, **options)
            ) as running:
                page = await running.metrics(Format.TEXT, timeout=600)
            sizes[mode] = (
                f"{series_of(page):,} ({len(page) / 1e6:.1f} MB, "
                f"{len(gzip.compress(page, 1)) / 1e6:.1f} MB)"
            )
    return sizes


async def main() -> None:
    """Run all benchmarks."""
    print(
        f"Measured {time.strftime('%Y-%m-%d')} on {os.cpu_count()} cores, Python "
        f"{platform.python_version()}.\n"
    )
    print("| what | bound | measured | holds |\n|---|---|---|---|")
    rows = [
        *await bench_page(),
        *await bench_scrape(MIDDLE),
        *await bench_scrape(LARGE, **THE_SAME_SETTINGS),
        await bench_fleet(BIG_FLEET, 50),
        await bench_memory(SMALL, 100),
        await bench_memory(LARGE, 450, *MANY_SERIES),
    ]
    for what, bound, measured, holds in rows:
        print(f"| {what} | {bound} | {measured} | {'yes' if holds else '**no**'} |")
    columns = [await page_sizes(size) for size in DAYS.values()]
    print(f"\n| watched | {' | '.join(DAYS)} |\n|---|{'---:|' * len(DAYS)}")
    for mode in columns[0]:
        print(f"| {mode} | {' | '.join(column[mode] for column in columns)} |")
    sys.exit(not all(holds for *_, holds in rows))


if __name__ == "__main__":
    asyncio.run(main())
