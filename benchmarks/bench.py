"""``make bench``: measures speed and memory, and prints a table with the promised bounds.

Times are ratios within one run, which differ less between machines. Servers run in separate processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.endpoints import AUDIT, AUDIT_REPORT, stats_params
from chutes_exporter.api.keys import Hotkey
from chutes_exporter.collectors.base import Samples
from chutes_exporter.config import make_settings
from chutes_exporter.feeds.requests import newest_report
from chutes_exporter.feeds.table import FEEDS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.page.rendering import collect
from chutes_exporter.simulator import Size
from chutes_exporter.simulator.world import TEST_SEED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from chutes_exporter.feeds.feed import Feed

HOTKEY = "5GNocjnmB7uTa4jURRRvji6CsUZnEyomrLhpodHdhsLF1Wti"
KEY_ENVIRONMENT = {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
SIZE = Size(chutes=316, servers=14, other_servers=7)
"""A subnet in which the page of one miner has about 13,000 series."""
LARGE = Size(chutes=2450, servers=100, other_servers=50)
LARGE_FLAGS = ("--miners", "all", "--max-series", "400000", "--collector.stats_per_chute")
"""Together, they make a page of about 200,000 series."""
HERE = Path(__file__).parent
_FLOOR = """
import asyncio, pathlib, sys
from starlette.applications import Starlette
from starlette.routing import Route
from chutes_exporter.config import Address
from chutes_exporter.web.app import _PageResponse
from chutes_exporter.web.server import open_socket, serving
body = pathlib.Path(sys.argv[2]).read_bytes()
async def page(_request): return _PageResponse([body], "text/plain")
async def main():
    with open_socket(Address("127.0.0.1", int(sys.argv[1]))) as opened:
        async with serving(Starlette(routes=[Route("/metrics", page)]), [opened]):
            await asyncio.Event().wait()
asyncio.run(main())
"""
_IMPORTS = "import click, httpx, prometheus_client, starlette.applications, uvicorn"


class Table:
    """A table that is printed row by row.

    Attributes:
        missed: Number of values outside their bounds.
    """

    def __init__(self) -> None:
        self.missed = 0
        print(f"Measured {time.strftime('%Y-%m-%d')} on {machine()}.\n")
        print("| what | bound | measured | holds |\n|---|---|---|---|")

    def row(self, what: str, bound: str, measured: str, *, holds: bool) -> None:
        """Print a row."""
        self.missed += not holds
        print(f"| {what} | {bound} | {measured} | {'yes' if holds else '**no**'} |", flush=True)


def machine() -> str:
    """Describe this machine."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


@contextlib.contextmanager
def process(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the context ends."""
    # As when installed: compiled modules are kept. Otherwise each start would compile all modules again.
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    running = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**own, **(environment or {})},
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


@contextlib.contextmanager
def upstream(size: Size, latency: float = 0) -> Iterator[str]:
    """Run a simulated API of a size and yield its address."""
    script = str(HERE / "upstream.py")
    with process(sys.executable, script, json.dumps(dataclasses.asdict(size)), str(latency)) as running:
        assert running.stdout is not None
        yield running.stdout.readline().strip()


@contextlib.contextmanager
def exporter(url: str, *flags: str) -> Iterator[tuple[str, int, float]]:
    """Run the exporter with the test key.

    Yields:
        Its address, the id of its process, and the seconds until it answered.
    """
    port = free_port()
    command = str(Path(sys.executable).parent / "chutes-exporter")
    started = time.perf_counter()
    listen = ("--web.listen-address", f"127.0.0.1:{port}")
    with process(command, "--api.url", url, *listen, *flags, environment=KEY_ENVIRONMENT) as running:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/-/healthy")
        yield address, running.pid, time.perf_counter() - started


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def wait_for(url: str) -> None:
    """Wait until a URL returns 200."""
    # Use one client, because making clients takes CPU time from the server.
    with httpx.Client() as client:
        for _ in range(4000):
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return
            time.sleep(0.005)
    raise TimeoutError(url)


def scrape(url: str) -> str:
    """Return a page of an exporter, in which every collector must have fresh data."""
    page = httpx.get(f"{url}/metrics", timeout=60, headers={"X-Prometheus-Scrape-Timeout-Seconds": "60"}).text
    require_fresh(page)
    return page


def require_fresh(page: str) -> None:
    """Raise if a collector failed or is cut, because then the measurement is invalid."""
    lines = page.splitlines()
    states = [line for line in lines if line.startswith("chutes_scrape_collector_success{")]
    wrong = [line for line in states if not line.endswith(" 1.0")]
    wrong += [line for line in lines if line.startswith("chutes_scrape_collector_cut{") and not line.endswith(" 0.0")]
    if wrong or not states:
        raise RuntimeError(f"not everything is on the page: {wrong}")


def series_of(page: str) -> int:
    """Return how many series a page has."""
    return sum(1 for line in page.splitlines() if not line.startswith("#"))


class Scraper:
    """A client that spends little time itself: one connection, on which it reads gzip pages without looking at them.

    Args:
        url: The page.
    """

    def __init__(self, url: str) -> None:
        address = httpx.URL(url)
        self._request = (
            f"GET {address.raw_path.decode()} HTTP/1.1\r\nHost: {address.host}\r\nAccept-Encoding: gzip\r\n"
            "X-Prometheus-Scrape-Timeout-Seconds: 60\r\n\r\n"
        ).encode()
        self._socket = socket.create_connection((address.host, address.port or 80))
        self._buffer = bytearray(4 * 2**20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def seconds(self) -> float:
        """Scrape once and return how long it took."""
        started = time.perf_counter()
        self._socket.sendall(self._request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._socket.recv(4096)
        head, _, body = head.partition(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length:")[2].split()[0]) - len(body)
        while left:
            left -= self._socket.recv_into(self._buffer, min(left, len(self._buffer)))
        return time.perf_counter() - started


@contextlib.contextmanager
def apart(*servers: int) -> Iterator[None]:
    """Let this process and some servers run on different cores, if there are several.

    Otherwise the scheduler's choice, which stays for seconds, changes the ratio of two servers by a fifth.

    Args:
        servers: Ids of the servers' processes.
    """
    cores = os.sched_getaffinity(0)
    for server in servers:
        os.sched_setaffinity(server, {max(cores)})
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        for pid in (0, *servers):
            os.sched_setaffinity(pid, cores)


def bench_warm(table: Table) -> None:
    """Check the time of a page of unchanged data."""
    with upstream(SIZE) as api, exporter(api) as (url, pid, _):
        page = scrape(url)
        warm, floor = against_floor(f"{url}/metrics", pid)
    what = f"warm page of {series_of(page):,} series, gzip"
    table.row(
        f"{what}, against the same bytes from memory by the same server",
        "5 x",
        f"{warm / floor:.1f} x ({warm * 1e3:.1f} ms)",
        holds=warm <= 5 * floor,
    )
    families = list(text_string_to_metric_families(page))
    generated = min(seconds_of_generate_latest(families) for _ in range(5))
    table.row(
        f"{what}, against `generate_latest` of the same families",
        "10 x faster",
        f"{generated / warm:.0f} x ({generated * 1e3:.0f} ms)",
        holds=generated >= 10 * warm,
    )


def against_floor(url: str, pid: int) -> tuple[float, float]:
    """Return the seconds of a page, and of the same bytes from memory."""
    port = free_port()
    floor_url = f"http://127.0.0.1:{port}/metrics"
    with tempfile.NamedTemporaryFile() as page, Scraper(url) as scraper:
        with httpx.stream("GET", url, headers={"Accept-Encoding": "gzip"}, timeout=60) as response:
            page.writelines(response.iter_raw())
        page.flush()
        with process(sys.executable, "-c", _FLOOR, str(port), page.name) as floor_server:
            wait_for(floor_url)
            with apart(pid, floor_server.pid), Scraper(floor_url) as floor_scraper:
                # In turn, so that both meet the same noise. The quickest tenth has the least of it.
                pairs = [(scraper.seconds(), floor_scraper.seconds()) for _ in range(300)]
    warm, floor = (statistics.quantiles(times, n=10)[0] for times in zip(*pairs, strict=True))
    return warm, floor


def seconds_of_generate_latest(families: list[Any]) -> float:
    """Return the CPU seconds of the client library's rendering."""
    registry: Any = SimpleNamespace(collect=lambda: families)
    started = time.process_time()
    generate_latest(registry)
    return time.process_time() - started


async def bench_renewed(table: Table) -> None:
    """Check the time of a page of which everything changed."""
    settings = make_settings(api_url="http://unused", keys=keys())
    with upstream(SIZE) as api:
        async with Exporter(dataclasses.replace(settings, api_url=api)) as running:
            page = (await running.metrics(Format.TEXT, timeout=60)).decode()
            require_fresh(page)
            own, theirs = [], []
            for _ in range(15):
                for feed in running.feeds.states():
                    running.feeds.expire(feed)
                await running.warm_up()
                started = time.process_time()
                await running.metrics(Format.TEXT, timeout=60)
                own.append(time.process_time() - started)
                states = running.feeds.states()
                snapshots = {feed: state.snapshot for feed, state in states.items() if state.snapshot is not None}
                started = time.process_time()
                families: list[Any] = []
                for entry in running.plan.entries:
                    samples = Samples()
                    collect(entry, snapshots, samples)
                    families += samples.collect()
                own_registries = running.telemetry.registry, running.telemetry.exchanges.registry
                families += [family for registry in own_registries for family in registry.collect()]
                building = time.process_time() - started
                theirs.append(building + seconds_of_generate_latest(families))
    table.row(
        f"page of {series_of(page):,} series of which everything changed, CPU, against building the families and "
        "`generate_latest`",
        "1.3 x",
        f"{min(own) / min(theirs):.2f} x ({min(own) * 1e3:.0f} ms)",
        holds=min(own) <= 1.3 * min(theirs),
    )


def keys() -> tuple[Hotkey, ...]:
    """Return the test key."""
    return (Hotkey.from_seed(TEST_SEED),)


async def bench_cold(table: Table) -> None:
    """Check that a first scrape takes as long as the slowest feed, which sends two requests for an audit report."""
    with upstream(SIZE, latency=1) as api:
        slowest = max(
            await report_seconds(api), *[seconds_of(api, feed) for feed in FEEDS if feed.endpoint is not AUDIT_REPORT]
        )
        ratio = min([await cold_seconds(api) / slowest for _ in range(3)])
    what = "cold scrape, each endpoint answering in 1 s, against the slowest feed (two requests)"
    table.row(what, "1.3 x", f"{ratio:.2f} x", holds=ratio <= 1.3)


async def cold_seconds(api: str) -> float:
    """Return the seconds of a new exporter's first page."""
    # Not the command, because its warm-up would request everything before.
    async with Exporter(make_settings(api_url=api, keys=keys())) as running:
        started = time.perf_counter()
        page = await running.metrics(Format.TEXT, timeout=60, gzipped=True)
        seconds = time.perf_counter() - started
    require_fresh(gzip.decompress(page).decode())
    return seconds


async def report_seconds(api: str) -> float:
    """Return the seconds in which the newest audit report arrives."""
    async with ChutesClient(api) as client:
        # The simulated API computes its first answer, which takes longer.
        await newest_report(client)
        started = time.perf_counter()
        await newest_report(client)
        return time.perf_counter() - started


def seconds_of(api: str, feed: Feed[Any]) -> float:
    """Return the seconds in which a plain client gets the answer of a feed, without decoding it."""
    endpoint, key = feed.endpoint, Hotkey.from_seed(TEST_SEED)
    params = stats_params(None, per_chute=True) if feed.per_chute else endpoint.query
    request = httpx.Request(
        "GET",
        f"{api}{endpoint.path.format(hotkey=HOTKEY)}",
        params=params,
        headers={"Accept-Encoding": "gzip", **key.headers(int(time.time()), endpoint.purpose)},
    )
    with httpx.Client(timeout=60) as client:
        # The simulated API computes its first answer, which takes longer.
        client.send(request).raise_for_status()
        started = time.perf_counter()
        client.send(request)
        return time.perf_counter() - started


def bench_memory(table: Table) -> None:
    """Check the memory of a small and of a large page."""
    for size, flags, limit in ((SIZE, (), 80), (LARGE, LARGE_FLAGS, 400)):
        with upstream(size) as api, exporter(api, *flags) as (url, pid, _):
            page = [scrape(url) for _ in range(3)][-1]
            taken = resident(pid)
        what = f"resident memory with a page of {series_of(page):,} series"
        table.row(what, f"{limit} MB", f"{taken:.0f} MB", holds=taken <= limit)


def bench_start(table: Table) -> None:
    """Check the time from the start of the program to its first answer."""
    starts, imports = [], []
    with upstream(Size(chutes=20, servers=1, other_servers=1)) as api:
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", _IMPORTS], check=True)
            imports.append(time.perf_counter() - started)
            with exporter(api) as (_, _, seconds):
                starts.append(seconds)
    start, least = statistics.median(starts), statistics.median(imports)
    what = "first answer after the start, against importing click, httpx, starlette, uvicorn and prometheus_client"
    table.row(what, "2 x", f"{start / least:.1f} x ({start:.2f} s)", holds=start <= 2 * least)


async def bench_crowd(table: Table, seconds: float) -> None:
    """Check that many scrapers cause no further requests to the API."""
    scrapes = 0
    with upstream(SIZE) as api, exporter(api) as (url, _, _):
        began = time.monotonic()
        ends = began + seconds

        async def scrape_on() -> None:
            nonlocal scrapes
            async with httpx.AsyncClient(timeout=60) as client:
                while time.monotonic() < ends:
                    await client.get(f"{url}/metrics")
                    scrapes += 1

        await asyncio.gather(*(scrape_on() for _ in range(50)))
        page = httpx.get(f"{url}/metrics").text
    requests = {
        line.split('endpoint="')[1].split('"')[0]: float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith("chutes_api_requests_total{")
    }
    ttls: dict[str, list[float]] = {}
    for feed in FEEDS:
        ttls.setdefault(feed.endpoint.name, []).append(feed.ttl)
    # A request for the newest audit report asks for the list of them first.
    ttls[AUDIT.name] = ttls[AUDIT_REPORT.name]
    # Each feed is requested once, and again after each time to live. An endpoint can have several feeds.
    excess = max(count - sum(1 + (ends - began) // ttl for ttl in ttls[name]) for name, count in requests.items())
    table.row(
        f"50 scrapers for {seconds:.0f} s ({scrapes:,} scrapes): requests beyond one per feed and time to live",
        "0",
        f"{max(excess, 0):.0f} ({sum(requests.values()):.0f} requests to {len(requests)} endpoints)",
        holds=excess <= 0,
    )


def main() -> None:
    """Run all benchmarks."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    table = Table()
    bench_warm(table)
    asyncio.run(bench_renewed(table))
    asyncio.run(bench_cold(table))
    bench_memory(table)
    bench_start(table)
    asyncio.run(bench_crowd(table, seconds))
    sys.exit(bool(table.missed))


if __name__ == "__main__":
    main()
