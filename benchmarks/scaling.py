"""``make scaling``: measures time, memory and requests against what there is, up to the largest planned sizes.

It prints tables with slopes, and draws them in docs/scaling-*.svg. The exporter and the simulated API run in separate
processes. Requests are counted in a simulated hour, in which the exporter is scraped every minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pygal
from pygal.style import CleanStyle

from benchmarks.bench import (
    LARGEST,
    Scraper,
    exporter,
    machine,
    memory,
    require_fresh,
    series_of,
    upstream_of,
)
from chutes_exporter.api.keys import Hotkey
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.config import Credentials, Settings, make_settings
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator import Simulator, Size, World
from tests.support import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parent.parent / "docs"
TICKS = os.sysconf("SC_CLK_TCK")
ROUNDS = 100
"""Scrapes that are averaged, because the kernel counts CPU time in hundredths of a second."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        amount: The number of things on this axis, for example of chutes.
        size: The size of the world.
        keys: The number of miners that are watched with their keys. 0 means the whole subnet, without a key.
        everything: Whether every collector is on, for all miners.
        scrapers: The number of Prometheus servers that scrape.
    """

    amount: int
    size: Size
    keys: int = 1
    everything: bool = False
    scrapers: int = 1


@dataclass(frozen=True)
class Figures:
    """What a case costs.

    Attributes:
        series: Series of the page.
        first: Seconds of CPU time from the start until the first page is complete.
        warm: Milliseconds of CPU time in which every scraper gets a page of unchanged data once.
        resident: MB of resident memory at rest.
        requests: Requests to the API in an hour.
    """

    series: int
    first: float
    warm: float
    resident: float
    requests: int


def axes() -> dict[str, list[Case]]:
    """Return the cases by what grows. Each ends at the largest planned size."""
    today = Size()
    by_servers = [replace(today, servers=count) for count in (13, 100, 215)]
    by_others = [replace(today, other_servers=count) for count in (28, 60, 107)]
    return {
        "miners": [Case(count, replace(today, miners=count, active_miners=count), keys=0) for count in (64, 128, 256)],
        "chutes": [Case(count, replace(today, chutes=count)) for count in (300, 1000, 2000)],
        "GPUs": [Case(len(world_of(size).miners[0].gpus), size) for size in by_servers],
        "instances": [Case(len(world_of(size).instances(time.time())), size, everything=True) for size in by_others],
        "hotkeys": [Case(count, today, keys=count) for count in (1, 4, 16)],
        "scrapers": [Case(count, today, scrapers=count) for count in (1, 10, 50)],
    }


def world_of(size: Size) -> World:
    """Return a world that begins now."""
    return World(start=time.time(), size=size)


@contextlib.contextmanager
def flags_of(case: Case) -> Iterator[tuple[str, ...]]:
    """Yield the exporter's flags. The hotkey files exist as long as the context."""
    world = world_of(case.size)
    with tempfile.TemporaryDirectory() as directory:
        flags = LARGEST if case.everything else ("--max-series", "400000")
        for uid in range(case.keys):
            path = Path(directory) / str(uid)
            content = {"ss58Address": world.miners[uid].hotkey, "secretSeed": world.seed_of(uid)}
            path.touch(mode=0o600)
            path.write_text(json.dumps(content))
            flags = (*flags, "--hotkey-file", str(path))
        yield flags


def settings_of(case: Case, api: str) -> Settings:
    """Return the settings that the flags of a case make."""
    world = world_of(case.size)
    keys = tuple(Hotkey.from_seed(world.seed_of(uid)) for uid in range(case.keys))
    return make_settings(
        api_url=api,
        max_series=400_000,
        credentials=Credentials(keys, (), ()),
        miners="all" if case.everything or not case.keys else "watched",
        collectors={one.name: True for one in COLLECTORS} if case.everything else {},
    )


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(case: Case) -> Figures:
    """Measure a case."""
    with (
        flags_of(case) as flags,
        upstream_of(case.size) as api,
        exporter(api, *flags, key=False) as (url, running, _),
        contextlib.ExitStack() as stack,
    ):
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": "60"}
        page = httpx.get(f"{url}/metrics", timeout=60, headers=headers).text
        require_fresh(page)
        first = cpu_seconds(running.pid)
        scrapers = [stack.enter_context(Scraper(f"{url}/metrics", "gzip")) for _ in range(case.scrapers)]
        with ThreadPoolExecutor(case.scrapers) as threads:
            list(threads.map(Scraper.scrape, scrapers))
            before = cpu_seconds(running.pid)
            rounds = max(5, ROUNDS // case.scrapers)
            for _ in range(rounds):
                list(threads.map(Scraper.scrape, scrapers))
            warm = (cpu_seconds(running.pid) - before) / rounds
        resident = memory(running.pid, "VmRSS")
    requests = asyncio.run(requests_an_hour(case.size, lambda api: settings_of(case, api), scrape=whole_page))
    return Figures(series_of(page), first, warm * 1e3, resident, requests)


Scrape = Callable[[int, Exporter], Awaitable[None]]
"""Scrapes everything that one of several exporters is asked for."""


async def whole_page(_number: int, running: Exporter) -> None:
    """Scrape the page of an exporter."""
    await running.page(Format.TEXT, timeout=60)


def share_of(targets: list[str], shards: int) -> Scrape:
    """Make a function that scrapes an exporter's page and probes its share of the targets."""

    async def scrape(number: int, running: Exporter) -> None:
        await whole_page(number, running)
        for target in targets[number::shards]:
            await running.probe(target, Format.TEXT, timeout=60)

    return scrape


async def requests_an_hour(
    size: Size, settings: Callable[[str], Settings], *, scrape: Scrape, exporters: int = 1
) -> int:
    """Count the requests of a simulated hour, in which each exporter is scraped every minute.

    Args:
        size: The size of the world.
        settings: Makes the settings from the address of the API.
        scrape: Scrapes an exporter once.
        exporters: Number of exporters.
    """
    clock = Clock(time.time())
    async with (
        Simulator(World(start=clock.now, size=size), clock=clock) as simulator,
        contextlib.AsyncExitStack() as stack,
    ):
        running = [
            await stack.enter_async_context(Exporter(settings(simulator.url), clock=clock, monotonic=clock))
            for _ in range(exporters)
        ]
        # The first scrape requests everything at once. The hour begins after it.
        count = 0
        for minute in range(61):
            simulator.api.requests.clear()
            for number, one in enumerate(running):
                await scrape(number, one)
            count += len(simulator.requests) if minute else 0
            clock.now += 60
    return count


def shards() -> None:
    """Print what it costs to share the miners of a subnet among exporters, each with its own Prometheus."""
    size = Size()
    targets = list(world_of(size).by_hotkey)
    print(
        "\n| exporters | miners of each | series of each | CPU of each for a round of probes | memory of each | ",
        end="",
    )
    print("requests an hour, all |\n|---:|---:|---:|---:|---:|---:|")
    for count in (1, 2, 4):
        mine = targets[::count]
        with (
            upstream_of(size) as api,
            exporter(api, key=False) as (url, running, _),
            httpx.Client(timeout=60) as client,
        ):
            series = [series_of(client.get(f"{url}/probe?target={target}").text) for target in mine]
            before = cpu_seconds(running.pid)
            for _ in range(5):
                for target in mine:
                    client.get(f"{url}/probe?target={target}")
            seconds = (cpu_seconds(running.pid) - before) / 5
            resident = memory(running.pid, "VmRSS")
        requests = asyncio.run(
            requests_an_hour(
                size, lambda api: make_settings(api_url=api), scrape=share_of(targets, count), exporters=count
            )
        )
        print(
            f"| {count} | {len(mine)} | {sum(series):,} | {seconds:.2f} s | {resident:.0f} MB | {requests:,} |",
            flush=True,
        )


def subnets(count: int = 10) -> None:
    """Print what exporters of several subnets cost together, each with an API of its own."""
    with contextlib.ExitStack() as stack:
        began = [
            stack.enter_context(exporter(stack.enter_context(upstream_of(Size())), key=False)) for _ in range(count)
        ]
        pages = [httpx.get(f"{url}/metrics", timeout=60) for url, _, _ in began]
        first = sum(cpu_seconds(running.pid) for _, running, _ in began)
        resident = sum(memory(running.pid, "VmRSS") for _, running, _ in began)
        shared = sum(proportional_memory(running.pid) for _, running, _ in began)
    requests = count * asyncio.run(requests_an_hour(Size(), lambda api: make_settings(api_url=api), scrape=whole_page))
    series = sum(series_of(page.text) for page in pages)
    print(
        f"\n{count} exporters of {count} subnets: {series:,} series, "
        f"{first:.1f} s of CPU time until all pages are complete, "
        f"{resident:.0f} MB resident ({shared:.0f} MB if shared memory counts once), {requests:,} requests an hour."
    )


def proportional_memory(pid: int) -> float:
    """Return the MB of a process, in which memory that several processes share is divided among them."""
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("Pss:")[2].split()[0]) / 1024


def table(what: str, cases: list[Case], found: list[Figures]) -> None:
    """Print the figures of an axis, and how much each grows with 100 more."""
    print(f"\n| {what} | series | CPU to the first page | CPU of a warm round | memory | requests an hour |")
    print("|---:|---:|---:|---:|---:|---:|")
    for case, one in zip(cases, found, strict=True):
        print(
            f"| {case.amount:,} | {one.series:,} | {one.first:.2f} s | {one.warm:.2f} ms | {one.resident:.0f} MB "
            f"| {one.requests:,} |"
        )
    amounts = [case.amount for case in cases]

    def slope(values: list[float]) -> float:
        return statistics.linear_regression(amounts, values).slope * 100

    print(
        f"| *each 100 more* | {slope([one.series for one in found]):+,.0f} "
        f"| {slope([one.first for one in found]):+.3f} s "
        f"| {slope([one.warm for one in found]):+.2f} ms | {slope([one.resident for one in found]):+.1f} MB "
        f"| {slope([one.requests for one in found]):+,.0f} |",
        flush=True,
    )


def plot(name: str, title: str, unit: str, lines: dict[str, list[tuple[float, float]]]) -> None:
    """Draw lines over the part of the largest planned size."""
    chart = pygal.XY(
        title=title,
        x_title="part of the largest planned size, %",
        y_title=unit,
        style=CleanStyle(background="white", plot_background="white"),
        width=900,
        height=480,
        range=(0, 1.05 * max(value for line in lines.values() for _, value in line)),
        xrange=(0, 100),
        js=(),
        truncate_legend=-1,
        disable_xml_declaration=True,
    )
    for label, points in lines.items():
        chart.add(label, points)
    (DOCS / f"scaling-{name}.svg").write_text(chart.render(is_unicode=True) + "\n")


def main() -> None:
    """Measure, print and draw everything."""
    print(f"Measured {time.strftime('%Y-%m-%d')} on {machine()}.")
    drawn: dict[str, list[tuple[Case, Figures]]] = {}
    for what, cases in axes().items():
        found = [measure(case) for case in cases]
        table(what, cases, found)
        drawn[what] = list(zip(cases, found, strict=True))
    for name, title, unit in (
        ("first", "CPU time until the first page is complete", "seconds"),
        ("resident", "Resident memory at rest", "MB"),
        ("requests", "Requests to the API", "requests an hour"),
    ):
        lines = {
            what: [(100 * case.amount / pairs[-1][0].amount, round(getattr(one, name), 2)) for case, one in pairs]
            for what, pairs in drawn.items()
        }
        plot(name, title, unit, lines)
    shards()
    subnets()


if __name__ == "__main__":
    main()
