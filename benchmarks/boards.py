"""``make bench-boards``: measures how long the dashboards wait for Prometheus, and prints a table.

The data is a day of one miner with 1,000 GPUs on a platform with 2,000 chutes and 256 miners. An exporter watches the
miner, and exports all miners. Its page of each hour is repeated each minute, as if it were scraped. So are the results
of the recording rules.

Each panel's queries are sent one after another, as a newly opened dashboard sends them: for all choices and the past
day, with the step that Grafana takes on a screen of 1,600 pixels.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import struct
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from benchmarks.bench import machine
from chutes_exporter.api.meaning import GPU_MODELS
from chutes_exporter.config import Credentials, make_settings
from chutes_exporter.simulator import Simulator, Size, World
from grafana.__main__ import DASHBOARDS
from grafana.boards import BOARDS
from tests.grafana.pictures import rule_levels
from tests.grafana.promql import metrics
from tests.grafana.queries import Window, all_panels, filled, seconds_back, variables
from tests.grafana.scenes import RULES, ask
from tests.support import ROOT, Clock, Prometheus, get, served_exporter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

Labels = dict[str, str]

BOUND: Final = 0.3
"""Seconds that a panel may take."""
SIZE: Final = Size(chutes=2000, servers=215)
STEP: Final = 60
"""Seconds between scrapes, and between evaluations of the rules."""
HOUR: Final = 3600
DAY: Final = 24 * HOUR
WIDTH: Final = 1600
"""Pixels of a dashboard."""
REPEATS: Final = 5
CACHE: Final = ROOT / ".cache" / "bench-boards"
TARGET: Final = {"job": "chutes", "instance": "localhost:10064"}
CHUNK: Final = 8_000_000
"""Bytes of a write request."""
COLUMNS: Final = 24
ROUNDED: Final = {15: 10, 25: 20, 45: 30, 90: 60, 210: 120, 450: 300, 750: 600, 1050: 900, 1500: 1200, 2700: 1800}
"""Grafana's steps in seconds, by the interval below which each is taken."""


def asked_metrics() -> set[str]:
    """Return the names of all series that dashboards and rules read."""
    queries = [query.expr for board in BOARDS for panel in board.panels for query in panel.queries]
    return {name for query in (*queries, *(rule["expr"] for rule in RULES.values())) for name in metrics(query)}


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def field(number: int, content: bytes) -> bytes:
    """Return a field of a protobuf message that holds bytes."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def series_of_page(page: str, names: set[str]) -> Iterator[tuple[Labels, float]]:
    """Return the samples of some metrics of a text page, with the labels that Prometheus adds."""
    for line in page.splitlines():
        match = re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line)
        if match and match[1] in names:
            labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or "")
            unescaped = [
                (name, re.sub(r"\\(.)", lambda one: {"n": "\n"}.get(one[1], one[1]), value)) for name, value in labels
            ]
            yield {"__name__": match[1], **TARGET, **dict(unescaped)}, float(match[3])
    yield {"__name__": "up", **TARGET}, 1.0
    yield {"__name__": "scrape_duration_seconds", **TARGET}, 0.01


class Writer:
    """Writes samples to a Prometheus, in the protocol of remote write.

    Args:
        url: Of the Prometheus.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url}/api/v1/write"

    def repeat(self, samples: Iterable[tuple[Labels, float]], times: Sequence[int]) -> None:
        """Write each sample at several Unix times."""
        # A sample is the value, a double, and the milliseconds.
        ends = [b"\x10" + varint(at * 1000) for at in times]
        head = b"\x12" + bytes([9 + len(ends[0])]) + b"\x09"
        parts = [head, *(end + head for end in ends[:-1]), ends[-1]]
        body = bytearray()
        for labels, value in samples:
            pairs = sorted((name.encode(), text.encode()) for name, text in labels.items() if text)
            written = b"".join(field(1, field(1, name) + field(2, text)) for name, text in pairs)
            body += field(1, written + struct.pack("<d", value).join(parts))
            if len(body) > CHUNK:
                self._send(body)
                body.clear()
        if body:
            self._send(body)

    def _send(self, body: bytearray) -> None:
        # In Snappy's format, as one literal: nothing is compressed.
        literal = b"\xfc" + struct.pack("<I", len(body) - 1)
        request = urllib.request.Request(
            self._url,
            varint(len(body)) + literal + body,
            {
                "Content-Encoding": "snappy",
                "Content-Type": "application/x-protobuf",
                "X-Prometheus-Remote-Write-Version": "0.1.0",
            },
        )
        urllib.request.urlopen(request, timeout=120).close()


def record(prometheus: Prometheus, writer: Writer, times: Sequence[int]) -> int:
    """Write what the recording rules give at the last of several times, and return how many series they have."""
    count = 0
    rules = {name: rule["expr"] for name, rule in RULES.items() if "record" in rule}
    for level in rule_levels(rules):
        found: list[tuple[Labels, float]] = []
        for name in level:
            answer = ask(prometheus, "query", query=rules[name], time=times[-1])
            if answer["status"] != "success":
                raise ValueError(f"{name}: {answer['error']}")
            found += [({**row["metric"], "__name__": name}, float(row["value"][1])) for row in answer["data"]["result"]]
        writer.repeat(found, times)
        count += len(found)
    return count


async def fill(prometheus: Prometheus, size: Size, end: float) -> None:
    """Let a Prometheus know the day before a Unix time."""
    clock = Clock(end - DAY)
    world = World(start=end - DAY, size=size)
    names = asked_metrics()
    writer = Writer(prometheus.url)
    async with Simulator(world, clock=clock) as simulator:
        settings = make_settings(
            api_url=simulator.url,
            credentials=Credentials((world.miners[0].key,), (), ()),
            miners="all",
            collectors={"job_details": True},
            gpu_costs=[f"{model}=1.5" for model in GPU_MODELS],
            daily_emission=2900.0,
            alpha_price=4.0,
            max_series=400_000,
        )
        async with served_exporter(settings, clock, monotonic=clock) as (url, _):
            for hour in range(25):
                clock.now = end - DAY + hour * HOUR
                world.prepare(clock.now)
                page = (await get(f"{url}/metrics")).text
                # What is gone must be out of sight, 5 minutes after its last sample, when the next page begins.
                last = clock.now + (HOUR - 5 * 60 if hour < 24 else STEP)
                times = range(int(clock.now), int(last), STEP)
                samples = list(series_of_page(page, names))
                await asyncio.to_thread(writer.repeat, samples, times)
                recorded = await asyncio.to_thread(record, prometheus, writer, times)
                print(f"hour {hour}: {len(samples):,} series, {recorded:,} recorded ones", file=sys.stderr)


def make_day(directory: Path, size: Size) -> None:
    """Leave the data of a day in the directory of a Prometheus."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    end = time.time() // HOUR * HOUR
    with Prometheus(directory, receives=True) as prometheus:
        asyncio.run(fill(prometheus, size, end))
    (directory / "end.json").write_text(json.dumps(end))


def grafana_step(seconds: float, width: int) -> int:
    """Return the seconds between the points of a line: Grafana's interval for a time range and a width in pixels."""
    interval = seconds / width
    return max(STEP, next((step for below, step in ROUNDED.items() if interval < below), HOUR))


def questions(panel: Mapping[str, Any], window: Window, values: Mapping[str, str]) -> Iterator[str]:
    """Return the paths and parameters of a panel's requests."""
    step = grafana_step(window.seconds, panel["gridPos"]["w"] * WIDTH // COLUMNS)
    for target in panel["targets"]:
        wide = max(step, seconds_back(target["interval"]))
        times = {"__interval": f"{wide}s", "__rate_interval": f"{max(wide + STEP, 4 * STEP)}s"}
        asked: dict[str, Any] = {"query": filled(target["expr"], {**values, **times})}
        if target["range"]:
            asked |= {"start": window.start, "end": window.end, "step": wide}
            yield f"query_range?{urllib.parse.urlencode(asked)}"
        else:
            yield f"query?{urllib.parse.urlencode(asked | {'time': window.end})}"


def seconds_of(url: str, asked: Sequence[str]) -> float:
    """Return how long the requests of a panel take, one after another."""
    began = time.perf_counter()
    for question in asked:
        with urllib.request.urlopen(f"{url}/api/v1/{question}", timeout=120) as response:
            response.read()
    return time.perf_counter() - began


def measure(directory: Path, title: str = "") -> dict[str, list[tuple[float, str]]]:
    """Return the median seconds and the title of each panel by board, the slowest first.

    Args:
        directory: Of the Prometheus.
        title: Only panels whose title contains this text are measured.
    """
    end = json.loads((directory / "end.json").read_text())
    found: dict[str, list[tuple[float, str]]] = {}
    with Prometheus(directory) as prometheus:
        for board in BOARDS:
            dashboard = json.loads((DASHBOARDS / f"{board.uid}.json").read_text())
            window = Window(end, seconds_back(dashboard["time"]["from"]), STEP)
            values = {name: one.query for name, one in variables(dashboard, prometheus, window).items()}
            found[board.uid] = sorted(
                (
                    (
                        statistics.median(
                            seconds_of(prometheus.url, list(questions(panel, window, values))) for _ in range(REPEATS)
                        ),
                        panel["title"],
                    )
                    for panel in all_panels(dashboard)
                    if title in panel["title"]
                ),
                reverse=True,
            )
        prometheus.at = end
        counted = prometheus.query('count({__name__!=""})')
    print(
        f"Measured {time.strftime('%Y-%m-%d')} on {machine()}, with {prometheus_version()} and "
        f"{sum(counted.values()):,.0f} series.\n"
    )
    return found


def prometheus_version() -> str:
    """Return the name and version of the Prometheus that runs."""
    command = [shutil.which("prometheus") or "", "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    return " ".join((said.stdout or said.stderr).split()[:3]).replace(", version", "").partition("+")[0]


def main() -> None:
    """Make the day and measure each panel."""
    parser = argparse.ArgumentParser(prog="make bench-boards", description="Measure the queries of the dashboards.")
    parser.add_argument("--reuse", action="store_true", help="use the data of the last time")
    parser.add_argument("--all", action="store_true", help="print every panel, not only the slowest of each board")
    parser.add_argument("--panel", default="", help="measure only panels whose title contains this text")
    parser.add_argument("--chutes", type=int, default=SIZE.chutes, help="of the platform")
    parser.add_argument("--servers", type=int, default=SIZE.servers, help="of the miner")
    chosen = parser.parse_args()
    if not (chosen.reuse and (CACHE / "end.json").exists()):
        make_day(CACHE, Size(chutes=chosen.chutes, servers=chosen.servers))
    found = {uid: panels for uid, panels in measure(CACHE, chosen.panel).items() if panels}
    print("| dashboard | panels | slowest panel | seconds | holds |\n|---|---:|---|---:|---|")
    for uid, panels in found.items():
        for seconds, title in panels if chosen.all else panels[:1]:
            holds = "yes" if seconds < BOUND else "**no**"
            print(f"| {uid} | {len(panels)} | {title} | {seconds:.3f} | {holds} |")
    if any(panels[0][0] >= BOUND for panels in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
