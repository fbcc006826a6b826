"""The golden page: the whole exposition of a fixed world at a fixed time, so that every change
shows in review.

``make golden`` writes it anew.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.config import make_settings
from chutes_exporter.feeds.definitions import METAGRAPH
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator import Simulator, Size
from tests.simulator.odd import OddWorld
from tests.support import KEY, NOON, PATIENCE, Clock, read_reports

PAGE = Path(__file__).parent / "golden_page.txt"

# Values that differ between runs: durations, the process, its Python.
_VARYING = re.compile(
    r"^((?:chutes_api_request_duration_seconds_(?:bucket|sum)|chutes_api_clock_offset_seconds"
    r"|chutes_api_response_bytes_total|process_\w+|python_gc_\w+)(?:\{.*\})?) \S+$",
    re.MULTILINE,
)
_VERSIONS = re.compile(r"^(chutes_exporter_build_info|python_info)\{.*$", re.MULTILINE)


def _family(line: str) -> str:
    return re.sub(r"_(total|bucket|sum|count)$", "", line.partition("{")[0])


def _endpoint(line: str) -> str:
    return line.partition('endpoint="')[2].partition('"')[0]


def steady(page: str) -> str:
    """Return a page without what differs from run to run.

    Requests are made at the same time, and their order on the page differs. They are sorted by
    endpoint.
    """
    lines = page.splitlines(keepends=True)
    numbers = [number for number, line in enumerate(lines) if line.startswith("chutes_api_")]
    about_requests = [lines[number] for number in numbers]
    # Sorting is stable: each request's own lines keep their order.
    about_requests.sort(key=lambda line: (_family(line), _endpoint(line)))
    for number, line in zip(numbers, about_requests, strict=True):
        lines[number] = line
    steady_page = _VARYING.sub(r"\1 (varies)", "".join(lines))
    return _VERSIONS.sub(r"\1 (varies)", steady_page)


async def pages() -> dict[Format, str]:
    """Return the pages as they are now."""
    clock = Clock()
    world = OddWorld(
        start=NOON, size=Size(miners=4, active_miners=3, chutes=8, servers=7, other_servers=3)
    )
    async with Simulator(world, clock=clock) as simulator:
        settings = make_settings(
            api_url=simulator.url,
            chain_url=simulator.chain_url,
            api_timeout=PATIENCE,
            keys=(KEY,),
            miners="all",
            collectors={collector.name: True for collector in COLLECTORS},
            gpu_costs={"4090": 0.3, "pro_6000": 0.8},
            server_costs={"pro-6000-0": 2.4},
        )
        async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
            # The chain's answer is dated by the clock of the API, so that must be known before.
            await exporter.feeds.read(METAGRAPH, PATIENCE)
            await exporter.warm_up()
            await read_reports(exporter)
            return {
                form: (await exporter.metrics(form, timeout=PATIENCE)).decode() for form in Format
            }


if __name__ == "__main__":
    PAGE.write_text(steady(asyncio.run(pages())[Format.TEXT]))
