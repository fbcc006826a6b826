"""The whole way: simulator, exporter, and Debian's real Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator import Fault, Simulator, World
from chutes_exporter.simulator.times import DAY, HOUR
from tests.recorded import NAMES
from tests.simulator.odd import OddWorld
from tests.support import (
    HOTKEY,
    NOON,
    RECORDINGS,
    Clock,
    Prometheus,
    count_openmetrics,
    get,
    recording,
    replay,
    series,
    served,
    served_exporter,
    watching,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.types import ASGIApp


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return series("", **values)[1]


def complaints(log: str) -> list[str]:
    """Return what Prometheus logged about samples, or warned of at all."""
    return [
        line
        for line in log.splitlines()
        if re.search(r"level=(warn|error)|duplicate sample|out of order|out-of-order", line, re.IGNORECASE)
    ]


@contextlib.asynccontextmanager
async def scraped(app: ASGIApp | None, simulator: Simulator | None, directory: Path) -> AsyncIterator[Prometheus]:
    """Run exporter and Prometheus over an API; yields when two scrapes are done."""
    async with contextlib.AsyncExitStack() as stack:
        url = simulator.url if simulator is not None else await stack.enter_async_context(served(app))  # type: ignore[arg-type]
        exporter_url, _ = await stack.enter_async_context(served_exporter(watching(url)))
        with Prometheus(directory, [exporter_url.removeprefix("http://")]) as prometheus:
            await asyncio.to_thread(prometheus.wait_for, "count_over_time(up[1m]) >= 2 and up == 1")
            await asyncio.to_thread(prometheus.stand_still)
            yield prometheus
            page = (await get(f"{exporter_url}/metrics", Accept="application/openmetrics-text")).text
            samples = count_openmetrics(page)
            assert list((await asyncio.to_thread(prometheus.query, "scrape_samples_scraped")).values()) == [samples]
            assert complaints(prometheus.log) == []


@pytest.fixture(scope="module")
def world() -> World:
    """An odd world of the full size, whose time stands still."""
    return OddWorld(start=NOON)


async def test_promql_gives_the_simulators_own_numbers(world: World, tmp_path: Path) -> None:
    async with (
        Simulator(world, clock=Clock()) as simulator,
        scraped(None, simulator, tmp_path) as prometheus,
    ):
        ask = prometheus.query
        assert list((await asyncio.to_thread(ask, "up")).values()) == [1]

        # GPUs that are idle: verified, and held by nothing.
        held = {gpu.uuid for instance in world.instances(NOON, HOTKEY) for gpu in instance.gpus}
        idle = [gpu for gpu in world.miners[0].gpus if gpu.uuid not in held and gpu.verified_at]
        assert idle
        answer = await asyncio.to_thread(ask, IDLE)
        assert {dict(found)["gpu_id"] for found in answer} == {gpu.uuid for gpu in idle}
        answer = await asyncio.to_thread(ask, 'sum by (gpu) (chutes_fleet_gpus{state="idle"}) > 0')
        assert answer == {labels(gpu=model): count for model, count in Counter(gpu.model for gpu in idle).items()}
        answer = await asyncio.to_thread(ask, "sum(chutes_fleet_gpus)")
        assert answer == {labels(): len(world.miners[0].gpus)}

        # My share and rank.
        shares = world.shares(NOON)
        answer = await asyncio.to_thread(ask, f'sum(chutes_miner_score_ratio{{hotkey="{HOTKEY}"}})')
        assert answer == {labels(): pytest.approx(shares[HOTKEY])}
        answer = await asyncio.to_thread(ask, f'sum(chutes_miner_score_rank{{hotkey="{HOTKEY}"}})')
        assert answer == {labels(): sorted(shares.values(), reverse=True).index(shares[HOTKEY]) + 1}
        mine, everybodys = (
            f'sum(chutes_{whose}_window_compute_units{{window="1d"}})' for whose in ("miner", "platform")
        )
        answer = await asyncio.to_thread(ask, f"{mine} / {everybodys}")
        assert answer == {labels(): pytest.approx(shares[HOTKEY])}

        # Compute units in the past hour, by chute name.
        units: dict[str, float] = defaultdict(float)
        for instance in world.all_instances(NOON, HOTKEY):
            if instance.counts(NOON):
                units[instance.chute.name or ""] += instance.units_within(NOON - HOUR, NOON)
        answer = await asyncio.to_thread(
            ask,
            'sum by (name) (chutes_miner_chute_window_compute_units{window="1h"}'
            " * on(chute_id) group_left(name) chutes_chute_info)",
        )
        assert answer == {labels(name=name): pytest.approx(value) for name, value in units.items() if value}
        assert len(answer) > 5


IDLE = "chutes_gpu_in_use == 0 and on(gpu_id) chutes_gpu_verified == 1"


async def test_no_gpu_counts_as_idle_while_its_state_is_unknown(world: World, tmp_path: Path) -> None:
    async with Simulator(world, clock=Clock()) as simulator:
        simulator.faults["inventory"] = Fault(status=503)
        async with scraped(None, simulator, tmp_path) as prometheus:
            assert await asyncio.to_thread(prometheus.query, "chutes_gpu_verified == 1")
            assert await asyncio.to_thread(prometheus.query, IDLE) == {}


async def test_any_text_survives_the_way_into_prometheus(tmp_path: Path) -> None:
    nasty = 'q " b \\ n \n r \r t \t u \u2028 \x85 \x7f \x01 e \N{GRINNING FACE} r \u202e a \u00a0 {}=,#'
    bodies = {name: recording(RECORDINGS, name) for name in NAMES}
    metagraph = json.loads(bodies["metagraph"])
    for node in metagraph:
        node["blacklist_reason"] = nasty
    bodies["metagraph"] = json.dumps(metagraph).encode()
    bodies["metrics"] += f"data: {json.dumps({'chute_id': nasty, 'utilization': 1})}\n\n".encode()
    async with scraped(replay(bodies), None, tmp_path) as prometheus:
        reasons = await asyncio.to_thread(prometheus.query, "chutes_miner_blacklist_info")
        assert {dict(one)["reason"] for one in reasons} == {nasty}
        ids = {
            dict(one)["chute_id"] for one in await asyncio.to_thread(prometheus.query, "chutes_chute_utilization_ratio")
        }
        assert nasty in ids


async def test_the_world_moves_and_prometheus_sees_it(world: World, tmp_path: Path) -> None:
    clock = Clock()
    async with (
        Simulator(world, clock=clock) as simulator,
        served_exporter(watching(simulator.url), clock, monotonic=clock) as (url, _),
    ):
        with Prometheus(tmp_path, [url.removeprefix("http://")]) as prometheus:
            query = "sum(chutes_miner_score_ratio)"
            before = await asyncio.to_thread(prometheus.wait_for, query)
            expected = world.shares(NOON + DAY)[HOTKEY]
            clock.now += DAY
            deadline = time.monotonic() + 20
            while (after := await asyncio.to_thread(prometheus.query, query)) in (before, {}):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
            assert after == {labels(): pytest.approx(expected)}
