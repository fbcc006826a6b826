"""``make bench``: measures speed and memory, and prints a table with the promised bounds.

Times are ratios within one run, which differ less between machines. Servers run in separate processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
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
from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client import CollectorRegistry, generate_latest

from benchmarks.hostile import KINDS
from benchmarks.plain import PlainCollector
from chutes_exporter.api.endpoints import stats_params
from chutes_exporter.api.keys import Hotkey, address_of
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.config import Address, Credentials, make_settings
from chutes_exporter.feeds.table import FEEDS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator import Simulator, Size, World
from chutes_exporter.simulator.world import TEST_SEED
from chutes_exporter.web.app import make_app
from chutes_exporter.web.server import bound_address, open_socket, serving

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from typing import Self

    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.feed import Feed

HOTKEY = "5GNocjnmB7uTa4jURRRvji6CsUZnEyomrLhpodHdhsLF1Wti"
KEY_ENVIRONMENT = {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
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
    opened = open_socket(Address("127.0.0.1", int(sys.argv[1])))
    async with serving(Starlette(routes=[Route("/metrics", page)]), [opened]):
        await asyncio.Event().wait()
asyncio.run(main())
"""
_STREAM = """
import asyncio, resource, sys, time
from chutes_exporter.api import ChutesClient, Hotkey
async def main():
    async with ChutesClient(sys.argv[1]) as client:
        answer = await client.chutes(Hotkey.from_seed(sys.argv[2]))
        print(answer.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
asyncio.run(main())
"""


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
    with open_socket(Address("127.0.0.1", 0)) as opened:
        return bound_address(opened).port


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


def upstream(
    chutes: int, servers: int, *, source_bytes: int = 4096, latency: float = 0
) -> contextlib.AbstractContextManager[str]:
    """Run a simulated API with miners that are half as large as the first. Yield its address."""
    others = max(1, servers // 2)
    return upstream_of(Size(chutes=chutes, servers=servers, other_servers=others, source_bytes=source_bytes), latency)


@contextlib.contextmanager
def upstream_of(size: Size, latency: float = 0) -> Iterator[str]:
    """Run a simulated API of a size and yield its address."""
    script = str(HERE / "upstream.py")
    with process(sys.executable, script, json.dumps(dataclasses.asdict(size)), str(latency)) as running:
        assert running.stdout is not None
        yield running.stdout.readline().strip()


@contextlib.contextmanager
def hostile_api(kind: str) -> Iterator[str]:
    """Run a hostile API and yield its address."""
    with process(sys.executable, "-m", "benchmarks.hostile", kind) as running:
        assert running.stdout is not None
        yield running.stdout.readline().strip()


@contextlib.contextmanager
def memory_limit(megabytes: int) -> Iterator[tuple[str, ...]]:
    """Make a control group with a memory limit, if possible. Yield the start of a command that runs in it."""
    group = f"chutes-exporter-{os.getpid()}"
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        directory = Path(root) / group
        try:
            if limit == "memory.max":
                Path(root, "cgroup.subtree_control").write_text("+memory")
            directory.mkdir()
            (directory / limit).write_text(str(megabytes * 2**20))
        except OSError:
            continue
        try:
            yield ("sh", "-c", f'echo $$ > {directory}/cgroup.procs && exec "$@"', "sh")
        finally:
            directory.rmdir()
        return
    yield ()


@contextlib.contextmanager
def exporter(
    url: str,
    *flags: str,
    limits: tuple[str, ...] = (),
    path: str = "/-/ready",
    key: bool = True,
    tls: ssl.SSLContext | None = None,
    authorization: str | None = None,
) -> Iterator[tuple[str, subprocess.Popen[str], float]]:
    """Run the exporter.

    Args:
        url: The address of the API.
        flags: Its flags.
        limits: The start of a command that runs it within limits.
        path: The path that must answer 200 before the exporter counts as started.
        key: Whether it has the test key.
        tls: The TLS context of a client, if the flags make the exporter serve TLS.
        authorization: The Authorization header, if the flags make the exporter ask for a password.

    Yields:
        Its address, its process, and the seconds until the path answered.
    """
    port = free_port()
    command = str(Path(sys.executable).parent / "chutes-exporter")
    started = time.perf_counter()
    listen = ("--web.listen-address", f"127.0.0.1:{port}")
    environment = KEY_ENVIRONMENT if key else {}
    with process(*limits, command, "--api.url", url, *listen, *flags, environment=environment) as running:
        address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        wait_for(f"{address}{path}", tls=tls, authorization=authorization)
        yield address, running, time.perf_counter() - started


def memory(pid: int, what: str) -> float:
    """Return the MB of a field in /proc/PID/status, or infinity if the process was killed."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024 if f"{what}:" in status else float("inf")


def wait_for(url: str, *, tls: ssl.SSLContext | None = None, authorization: str | None = None) -> None:
    """Wait until a URL returns 200."""
    headers = {"Authorization": authorization} if authorization else {}
    # Use one client, because making clients takes CPU time from the server.
    with httpx.Client(verify=tls or True, headers=headers) as client:
        for _ in range(2000):
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return
            time.sleep(0.005)
    raise TimeoutError(url)


def timed(client: httpx.Client, url: str, count: int) -> list[float]:
    """Return the durations of some requests."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        client.get(url, headers={"Accept-Encoding": "identity", "X-Prometheus-Scrape-Timeout-Seconds": "60"})
        times.append(time.perf_counter() - started)
    return times


async def bench_cold(table: Table) -> None:
    """Check that a first scrape takes as long as the slowest endpoint."""
    with upstream(300, 14, latency=1) as api:
        slowest = max([seconds_of(api, feed) for feed in FEEDS])
        ratio = min([await cold_seconds(api) / slowest for _ in range(3)])
    what = "cold scrape, each endpoint answering in 1 s, quietest of 3 rounds"
    table.row(what, "1.10 x slowest", f"{ratio:.2f} x", holds=ratio <= 1.10)


async def cold_seconds(api: str) -> float:
    """Return the seconds of a new exporter's first scrape."""
    # Do not run the command, because its warm-up would request everything before.
    opened = open_socket(Address("127.0.0.1", 0))
    address = bound_address(opened)
    async with Exporter(settings_with_key(api)) as running, serving(make_app(running), [opened]):
        # A client in the same process must not take time of its own.
        reader, writer = await asyncio.open_connection(address.host, address.port)
        started = time.perf_counter()
        writer.write(
            b"GET /metrics HTTP/1.1\r\nHost: exporter\r\nAccept-Encoding: gzip\r\nConnection: close\r\n"
            b"X-Prometheus-Scrape-Timeout-Seconds: 60\r\n\r\n"
        )
        answer = await reader.read()
        seconds = time.perf_counter() - started
        writer.close()
    require_fresh(gzip.decompress(answer.partition(b"\r\n\r\n")[2]).decode())
    return seconds


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


def settings_with_key(api: str, **more: Any) -> Settings:
    """Return the settings of an exporter with a key."""
    return make_settings(api_url=api, credentials=Credentials((Hotkey.from_seed(TEST_SEED),), (), ()), **more)


def require_fresh(page: str) -> None:
    """Raise if a collector failed or is cut, because then the measurement is invalid."""
    lines = page.splitlines()
    states = [line for line in lines if line.startswith("chutes_scrape_collector_success{")]
    wrong = [line for line in states if not line.endswith(" 1")]
    wrong += [line for line in lines if line.startswith("chutes_scrape_collector_cut{") and not line.endswith(" 0")]
    if wrong or not states:
        raise RuntimeError(f"not everything is on the page: {wrong}")


class Scraper:
    """A client that spends little time itself: one connection, on which it reads answers without looking at them.

    Args:
        url: The page.
        coding: The Accept-Encoding.
        tls: The TLS context of the connection. None connects without TLS.
        authorization: The Authorization header. None sends none.
    """

    def __init__(
        self, url: str, coding: str, *, tls: ssl.SSLContext | None = None, authorization: str | None = None
    ) -> None:
        address = httpx.URL(url)
        headers = f"Authorization: {authorization}\r\n" if authorization else ""
        self._request = (
            f"GET {address.raw_path.decode()} HTTP/1.1\r\nHost: {address.host}\r\nAccept-Encoding: {coding}\r\n"
            f"{headers}X-Prometheus-Scrape-Timeout-Seconds: 60\r\n\r\n"
        ).encode()
        self._socket = socket.create_connection((address.host, address.port or 80))
        if tls:
            self._socket = tls.wrap_socket(self._socket, server_hostname=address.host)
        self._buffer = bytearray(4 * 2**20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def seconds(self) -> float:
        """Scrape once and return how long it took."""
        started = time.perf_counter()
        self.scrape()
        return time.perf_counter() - started

    def scrape(self) -> int:
        """Scrape once and return the size of the body."""
        self._socket.sendall(self._request)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._socket.recv(4096)
        head, _, body = head.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split()[0])
        left = size - len(body)
        while left:
            left -= self._socket.recv_into(self._buffer, left if left < len(self._buffer) else 0)
        return size


ALL = ("--miners", "all", "--max-series", "400000", "--collector.stats_per_chute")
SIZES: tuple[tuple[int, int, tuple[str, ...], float], ...] = ((316, 14, (), 3.0), (1000, 100, ALL, 2.0))
"""Chutes, servers, flags, and how many times the floor a warm page may take. They make 13,000 and 200,000 series."""


def bench_warm(table: Table) -> None:
    """Check that a page of unchanged data costs little more than sending its bytes."""
    for chutes, servers, flags, bound in SIZES:
        with upstream(chutes, servers) as api, exporter(api, *flags) as (url, running, _):
            page = httpx.get(f"{url}/metrics", timeout=60).text
            require_fresh(page)
            series = series_of(page)
            for coding, plain in (("gzip", False), ("identity", True)):
                ratio, warm, size = against_floor(f"{url}/metrics", running.pid, coding)
                what = f"warm scrape of {series:,} series, {coding} ({size / 1e6:.2f} MB)"
                table.row(what, f"{bound:.0f} x floor", f"{ratio:.2f} x ({warm * 1e3:.2f} ms)", holds=ratio <= bound)
                if plain:
                    bench_plain(table, api, series, warm)


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
        for one in (0, *servers):
            os.sched_setaffinity(one, cores)


def against_floor(url: str, pid: int, coding: str) -> tuple[float, float, int]:
    """Compare a page with the same bytes from memory; returns the ratio, the seconds and the bytes."""
    port = free_port()
    floor_url = f"http://127.0.0.1:{port}/metrics"
    with tempfile.NamedTemporaryFile() as page, Scraper(url, coding) as scraper:
        with httpx.stream("GET", url, headers={"Accept-Encoding": coding}, timeout=60) as response:
            page.writelines(response.iter_raw())
        page.flush()
        with process(sys.executable, "-c", _FLOOR, str(port), page.name) as floor_server:
            wait_for(floor_url)
            with apart(pid, floor_server.pid), Scraper(floor_url, coding) as floor_scraper:
                # In turn, so that both meet the same noise. The quickest tenth has the least of it.
                pairs = [(scraper.seconds(), floor_scraper.seconds()) for _ in range(300)]
                size = floor_scraper.scrape()
    warm, floor = (statistics.quantiles(times, n=10)[0] for times in zip(*pairs, strict=True))
    return warm / floor, warm, size


def series_of(page: str) -> int:
    """Return how many series a page has."""
    return sum(1 for line in page.splitlines() if not line.startswith("#"))


def bench_plain(table: Table, api: str, series: int, warm: float) -> None:
    """Compare a warm page with the plain script's rendering of as many series."""
    plain = PlainCollector(api, Hotkey.from_seed(TEST_SEED))
    plain.fetch()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(plain)
    lines = series_of(generate_latest(registry).decode())
    started = time.perf_counter()
    generate_latest(registry)
    ratio = (time.perf_counter() - started) / lines * series / warm
    what = f"warm scrape of {series:,} series, against the plain script's rendering"
    table.row(what, "10 x faster", f"{ratio:.0f} x", holds=ratio >= 10)


def bench_small(table: Table) -> None:
    """Check that a small answer on a kept connection does not wait for an acknowledgement."""
    with upstream(100, 4) as api, exporter(api) as (url, _, _):
        for path in ("/-/healthy", "/metrics?collect[]=scores", f"/probe?target={HOTKEY}"):
            with Scraper(f"{url}{path}", "identity") as scraper:
                typical = statistics.median(scraper.seconds() for _ in range(20))
            what = f"20 answers of {path.partition('?')[0]} on one connection, median"
            table.row(what, "10 ms", f"{typical * 1e3:.1f} ms", holds=typical <= 0.01)


async def bench_renewed(table: Table) -> None:
    """Check that renewing one feed costs as much as its part of the page, and little besides."""
    for chutes, servers, flags, _ in SIZES:
        choice: dict[str, Any] = {"miners": "all", "collectors": {"stats_per_chute": True}} if flags else {}
        with upstream(chutes, servers) as api:
            async with Exporter(settings_with_key(api, max_series=10**9, **choice)) as running:
                await running.page(Format.TEXT, timeout=60)
                feeds = [state.feed for state in running.feeds.states()]
                for gzipped in (True, False):
                    await renew_each(table, running, feeds, gzipped=gzipped)


async def renew_each(table: Table, running: Exporter, feeds: list[Feed[Any]], *, gzipped: bool) -> None:
    """Renew each of some feeds alone, and compare with renewing all."""
    unchanged = await renewal(running, [], gzipped=gzipped)
    whole = await renewal(running, feeds, gzipped=gzipped) - unchanged
    costs = [await renewal(running, [feed], gzipped=gzipped) - unchanged for feed in feeds]
    sizes = [await lines_of(running, feed) for feed in feeds]
    page = await running.page(Format.TEXT, timeout=60)
    slope, fixed = statistics.linear_regression(sizes, costs)
    ratio, besides = slope * len(page) / whole, fixed / whole
    table.row(
        f"{series_of(page.decode()):,} series, {'gzip' if gzipped else 'identity'}, one of {len(feeds)} feeds renewed: "
        "cost of each byte of its lines, and of all else, against all feeds renewed",
        "1.25 x, 0.15 x",
        f"{ratio:.2f} x (slope {slope * 1e9:.0f} ms for each MB; all: {whole * 1e3:.0f} ms), "
        f"{besides:.2f} x ({fixed * 1e3:.1f} ms)",
        holds=ratio <= 1.25 and besides <= 0.15,
    )


async def renewal(running: Exporter, feeds: list[Feed[Any]], *, gzipped: bool) -> float:
    """Return the seconds of a page after some feeds have new answers, quickest of 5."""
    times = []
    for _ in range(5):
        await running.metrics(Format.TEXT, timeout=60, gzipped=gzipped)
        for feed in feeds:
            running.feeds.expire(feed)
            await running.feeds.read(feed, 60)
        started = time.perf_counter()
        await running.metrics(Format.TEXT, timeout=60, gzipped=gzipped)
        times.append(time.perf_counter() - started)
    return min(times)


async def lines_of(running: Exporter, feed: Feed[Any]) -> int:
    """Return the bytes of the lines of the collectors that read a feed."""
    names = [one.name for one in running.collectors if feed.name in {other.name for other in (*one.feeds, *one.extra)}]
    page = await running.page(Format.TEXT, timeout=60, collect=names) if names else b""
    own = (b"chutes_feed_", b"chutes_scrape_", b"chutes_api_", b"process_", b"python_", b"#")
    return sum(len(line) for line in page.splitlines() if not line.startswith(own))


async def bench_loop(table: Table) -> None:
    """Check that a huge page does not block the event loop."""
    # Other processes on the machine also delay the loop, so take the best of three rounds.
    with upstream(2000, 100) as api:
        rounds = [await longest_gap(api) for _ in range(3)]
    longest, series = min(rounds)
    what = f"event loop held by a page of {series:,} series, quietest of 3 rounds"
    table.row(what, "20 ms", f"{longest:.0f} ms", holds=longest <= 20)


async def longest_gap(api: str) -> tuple[float, int]:
    """Scrape a new exporter. Return the longest blocking of the event loop in milliseconds, and the series."""
    gaps: list[float] = []

    async def heartbeat() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    settings = settings_with_key(api, miners="all", collectors={"stats_per_chute": True}, max_series=10**9)
    # As the command does, so that the garbage collector does not scan the libraries.
    gc.freeze()
    opened = open_socket(Address("127.0.0.1", 0))
    async with Exporter(settings) as running, serving(make_app(running), [opened]):
        url = f"http://{bound_address(opened)}/metrics"
        # The scraper is another process, so that reading the page does not block this loop.
        beating = asyncio.create_task(heartbeat())
        for _ in range(3):
            scraper = await asyncio.create_subprocess_exec(
                "curl", "-s", "-o", "/dev/null", "-H", "X-Prometheus-Scrape-Timeout-Seconds: 60", url
            )
            await scraper.wait()
        beating.cancel()
        page = await running.page(Format.TEXT, timeout=60)
    require_fresh(page.decode())
    return max(gaps) * 1000, sum(1 for line in page.splitlines() if not line.startswith(b"#"))


async def bench_crowd(table: Table, seconds: float) -> None:
    """Check that many scrapers cause no further requests to the API."""
    times: list[float] = []
    with upstream(300, 14) as api, exporter(api) as (url, _, _):
        began = time.monotonic()
        ends = began + seconds

        async def scrape_on() -> None:
            async with httpx.AsyncClient(timeout=60) as client:
                while time.monotonic() < ends:
                    started = time.perf_counter()
                    await client.get(f"{url}/metrics")
                    times.append(time.perf_counter() - started)

        await asyncio.gather(*(scrape_on() for _ in range(50)))
        page = httpx.get(f"{url}/metrics").text
    asked = {
        line.split('"')[1]: float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith("chutes_api_requests_total{")
    }
    ttls: dict[str, list[float]] = {}
    for feed in FEEDS:
        ttls.setdefault(feed.endpoint.name, []).append(feed.ttl)
    # Each feed is requested once, and again after each time to live. The endpoint of stats has two feeds.
    excess = {name: count - sum(1 + (ends - began) // ttl for ttl in ttls[name]) for name, count in asked.items()}
    worst = max(excess, key=lambda name: excess[name])
    what = f"50 scrapers for {seconds:.0f} s ({len(times):,} scrapes)"
    table.row(
        f"{what}: requests beyond one an endpoint and time to live",
        "0",
        f"{max(excess[worst], 0):.0f} ({sum(asked.values()):.0f} requests to {len(asked)} endpoints)",
        holds=excess[worst] <= 0,
    )
    ratio = statistics.quantiles(times, n=100)[98] / statistics.median(times)
    table.row(f"{what}: p99 against the median", "5 x", f"{ratio:.1f} x", holds=ratio <= 5)


def bench_stream(table: Table) -> None:
    """Check that a long stream takes little more memory than a short one."""
    peaks = []
    for chutes, source_bytes in ((100, 10_000), (1000, 100_000)):
        with upstream(chutes, 1, source_bytes=source_bytes) as api:
            output = subprocess.run(
                [sys.executable, "-c", _STREAM, api, TEST_SEED], capture_output=True, text=True, check=True
            ).stdout
        size, peak = map(int, output.split())
        peaks.append((size, peak))
    (small, low), (large, high) = peaks
    ratio = high / low
    what = f"peak memory of a stream of {large / 1e6:.0f} MB against {small / 1e6:.1f} MB"
    table.row(what, "1.3 x", f"{ratio:.2f} x", holds=ratio <= 1.3)


async def bench_hotkeys(table: Table) -> None:
    """Check that watching all miners causes as many requests as watching one, except for the history."""
    counts = []
    world = World(start=time.time(), size=Size(chutes=100))
    for hotkeys in (1, 256):
        async with Simulator(world) as simulator:
            # The history needs a request for each miner. It is off by default beyond 16 hotkeys.
            settings = make_settings(
                api_url=simulator.url,
                hotkeys=list(world.by_hotkey)[:hotkeys],
                collectors={"unique_chute_history": False} if hotkeys == 1 else {},
            )
            async with Exporter(settings) as running:
                await running.page(Format.TEXT, timeout=60)
            counts.append(len(simulator.requests))
    table.row(
        "requests for 256 hotkeys against one", "the same", f"{counts[1]} and {counts[0]}", holds=counts[0] == counts[1]
    )


def bench_process(table: Table) -> None:
    """Check that the process is small and starts fast."""
    readiness: list[float] = []
    resident = 0.0
    for _ in range(5):
        with upstream(300, 14) as api, exporter(api) as (url, running, ready):
            readiness.append(ready)
            httpx.get(f"{url}/metrics", timeout=60)
            time.sleep(1)
            resident = memory(running.pid, "VmRSS")
    table.row("resident memory at rest, after a scrape", "45 MB", f"{resident:.0f} MB", holds=resident <= 45)
    typical = statistics.median(readiness)
    table.row("ready after the start, median of 5", "0.3 s", f"{typical:.2f} s", holds=typical <= 0.3)


LARGEST = ("--miners", "all", "--max-series", "500000", *(f"--collector.{one.name}" for one in COLLECTORS))
"""The flags for the largest planned page."""


def bench_large(table: Table) -> None:
    """Measure the memory for the largest planned subnet."""
    with (
        upstream(2000, 215, source_bytes=40_000) as api,
        memory_limit(512) as limits,
        exporter(api, *LARGEST, limits=limits) as (url, running, _),
    ):
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": "100"}
        page, *_ = [httpx.get(f"{url}/metrics", timeout=100, headers=headers) for _ in range(3)]
        peak = memory(running.pid, "VmHWM")
    require_fresh(page.text)
    series = sum(1 for line in page.text.splitlines() if not line.startswith("#"))
    what = f"peak of resident memory for a page of {series:,} series, of answers of 130 MB"
    table.row(what, "512 MB", f"{peak:.0f} MB", holds=peak < 512)


def bench_hostile_api(table: Table) -> None:
    """Check that the process stays small if the API sends bad answers on all endpoints at once."""
    for what, limit, flags in (("a miner's page", 256, ()), ("the largest page", 512, LARGEST)):
        peaks = {kind: hostile_peak(kind, limit, flags) for kind in KINDS}
        worst = max(peaks, key=lambda kind: peaks[kind])
        table.row(
            f"peak of resident memory for {what}, bad answers on all endpoints, worst of {len(KINDS)} kinds ({worst})",
            f"{limit} MB",
            f"{peaks[worst]:.0f} MB",
            holds=peaks[worst] < limit,
        )


def hostile_peak(kind: str, limit: int, flags: tuple[str, ...]) -> float:
    """Return the exporter's peak memory in MB, in a control group if possible."""
    with (
        hostile_api(kind) as api,
        memory_limit(limit) as limits,
        exporter(api, *flags, limits=limits, path="/-/healthy") as (url, running, _),
        contextlib.suppress(httpx.TransportError),
    ):
        ends = time.monotonic() + 20
        while time.monotonic() < ends:
            httpx.get(f"{url}/metrics", timeout=100, headers={"X-Prometheus-Scrape-Timeout-Seconds": "5"})
        return memory(running.pid, "VmHWM")
    return float("inf")


def bench_hostile_requests(table: Table) -> None:
    """Check that requests for many different pages do not grow the process."""
    count = 3000
    with upstream(300, 14) as api, exporter(api) as (url, running, _), httpx.Client(timeout=60) as client:
        for _ in range(3):
            client.get(f"{url}/metrics")
        before = memory(running.pid, "VmRSS")
        for number in range(count):
            query = "".join(f"&collect[]={one.name}" for bit, one in enumerate(COLLECTORS) if number >> bit & 1)
            client.get(f"{url}/metrics?{query}")
            client.get(f"{url}/probe?target={address_of(number.to_bytes(32))}{query}")
        grown = memory(running.pid, "VmRSS") - before
    what = f"growth by {2 * count:,} requests for pages that differ"
    table.row(what, "20 MB", f"{grown:.0f} MB", holds=grown <= 20)


def main() -> None:
    """Run all benchmarks."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    table = Table()
    bench_process(table)
    bench_large(table)
    bench_hostile_api(table)
    bench_hostile_requests(table)
    asyncio.run(bench_cold(table))
    bench_small(table)
    bench_warm(table)
    asyncio.run(bench_renewed(table))
    bench_stream(table)
    asyncio.run(bench_hotkeys(table))
    asyncio.run(bench_loop(table))
    asyncio.run(bench_crowd(table, seconds))
    sys.exit(bool(table.missed))


if __name__ == "__main__":
    main()
