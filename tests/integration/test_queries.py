"""docs/queries.md: a real Prometheus answers every query."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING
from uuid import UUID

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from chutes_exporter.simulator import Simulator, World
from tests.support import HOTKEY, ROOT, Clock, Prometheus, served, served_exporter, watching

if TYPE_CHECKING:
    from pathlib import Path

    from chutes_exporter.simulator.world import Miner

QUERIES = dict(re.findall(r"```promql name=(\S+)\n(.*?)```", (ROOT / "docs" / "queries.md").read_text(), re.DOTALL))
MAY_BE_EMPTY = {
    "to-the-next-better",
    "not-earning-since",
    "stuck-instances",
    "time-to-purge",
    "unsecured-instances",
    "overloaded-chutes",
    "blacklisted",
    "deregistered",
    "doubted",
}
"""Queries for troubles that the simulated world has only at some times."""


def dcgm(miner: Miner) -> Starlette:
    """Answer as NVIDIA's DCGM exporter does on servers whose GPUs have nothing to do."""
    lines = [f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-{UUID(hex=gpu.uuid.removeprefix("GPU-"))}"}} 0' for gpu in miner.gpus]
    page = "\n".join(["# TYPE DCGM_FI_DEV_GPU_UTIL gauge", *lines, ""])
    return Starlette(routes=[Route("/metrics", lambda _request: PlainTextResponse(page))])


async def test_prometheus_answers_every_query(tmp_path: Path) -> None:
    clock = Clock(time.time())
    world = World(start=clock.now)
    async with (
        Simulator(world, clock=clock) as simulator,
        served_exporter(watching(simulator.url), clock) as (url, _),
        served(dcgm(world.miners[0])) as dcgm_url,
    ):
        targets = [address.removeprefix("http://") for address in (url, dcgm_url)]
        with Prometheus(tmp_path, targets) as prometheus:
            await asyncio.to_thread(prometheus.wait_for, "min(chutes_scrape_collector_success) == 1")
            for name, query in QUERIES.items():
                ask = prometheus.query if name in MAY_BE_EMPTY else prometheus.wait_for
                await asyncio.to_thread(ask, query.replace("$hotkey", HOTKEY))


def test_each_query_has_a_name() -> None:
    assert "```promql\n" not in (ROOT / "docs" / "queries.md").read_text()
    assert QUERIES.keys() > MAY_BE_EMPTY
