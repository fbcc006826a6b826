"""The exporter as a process, for minutes, against an API that moves and misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from chutes_exporter.feeds.definitions import FEEDS
from tests.pages import parse_page
from tests.program import environment
from tests.replay import Fault, Replay
from tests.support import HOTKEY, TEST_SEED, fetch, free_port, recorded_day, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECONDS = 60
FAULTS = (
    Fault(status=500),
    Fault(status=429, headers={"retry-after": "1"}),
    Fault(status=503, body=b"<html>"),
    Fault(body=b""),
    Fault(body=b'<html>\x00\xff{"data": [[[[ NaN "'),
    Fault(cut_after=200),
    Fault(latency=0.3),
    Fault(latency=3),
)


SHORT_LIVED = """
from chutes_exporter.cli import main
from chutes_exporter.feeds.definitions import FEEDS
for feed in FEEDS:
    object.__setattr__(feed, "ttl", 1)
main()
"""
"""The exporter with answers that are old after a second: most scrapes ask for everything."""


@contextlib.asynccontextmanager
async def exporting(replay: Replay) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run the command; yields its address and itself."""
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SHORT_LIVED),
        *("--api.url", replay.url, "--api.timeout", "1", "--web.listen-address", address),
        *("--log.level", "error"),
        env=environment(MINER_SEED=TEST_SEED, MINER_SS58=HOTKEY),
    )
    try:
        await asyncio.to_thread(wait_for, lambda: fetch(f"http://{address}/-/healthy"))
        yield f"http://{address}", process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def measured(pid: int) -> tuple[int, int]:
    """Return a process's resident memory in pages, and how many files it has open."""
    process = Path(f"/proc/{pid}")
    return int((process / "statm").read_text().split()[1]), len(list((process / "fd").iterdir()))


@pytest.mark.soak
async def test_memory_and_files_do_not_grow() -> None:
    draw = random.Random(4)
    samples: list[tuple[int, int]] = []
    scrapes = 0
    limits = httpx.Limits(max_keepalive_connections=4)
    async with (
        Replay(recorded_day()) as replay,
        exporting(replay) as (url, process),
        httpx.AsyncClient(timeout=10, limits=limits) as client,
    ):
        _, files_at_start = measured(process.pid)
        started = time.monotonic()
        # A minute, and longer where scrapes are slow.
        while (passed := time.monotonic() - started) < SECONDS or scrapes <= 100:
            replay.faults.clear()
            for source in FEEDS:
                if draw.random() < 0.25:
                    replay.faults[source.name] = draw.choice(FAULTS)
            headers = {"X-Prometheus-Scrape-Timeout-Seconds": draw.choice(("0.6", "1", "2"))}
            answers = await asyncio.gather(
                *(client.get(f"{url}/metrics", headers=headers) for _ in range(draw.randint(1, 4)))
            )
            scrapes += len(answers)
            assert {answer.status_code for answer in answers} == {200}
            parse_page(answers[0].text)
            if passed > SECONDS / 4:
                samples.append(measured(process.pid))
    third = len(samples) // 3
    early, late = samples[:third], samples[-third:]
    # The minimum of each third is the memory that stays. Requests add to it only for a moment.
    assert min(pages for pages, _ in late) < 1.1 * min(pages for pages, _ in early)
    # Sixteen connections to the API at most, and the scrapers'.
    assert max(files for _, files in late) <= files_at_start + 16 + 8
