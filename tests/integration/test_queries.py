"""docs/queries.md: a real Prometheus answers every query about the recorded world."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING
from uuid import UUID

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.recorded import RECORDED_AT, answers, key, raw_json
from tests.support import HOTKEY, ROOT, Clock, Prometheus, replay, served, served_exporter, watching

if TYPE_CHECKING:
    from pathlib import Path

QUERIES = dict(re.findall(r"```promql name=(\S+)\n(.*?)```", (ROOT / "docs" / "queries.md").read_text(), re.DOTALL))
NOTHING_TO_SHOW = {"not-earning-since", "blacklisted", "deregistered", "doubted"}
"""Queries for troubles that the recorded miner does not have."""


def dcgm() -> Starlette:
    """Answer as NVIDIA's DCGM exporter does on servers whose GPUs have nothing to do."""
    ids = [
        re.sub("^GPU-", "", gpu["uuid"])
        for server in raw_json(answers())["servers"]["servers"]
        for gpu in server["gpus"]
    ]
    lines = [f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-{UUID(hex=gpu_id)}"}} 0' for gpu_id in ids]
    page = "\n".join(["# TYPE DCGM_FI_DEV_GPU_UTIL gauge", *lines, ""])
    return Starlette(routes=[Route("/metrics", lambda _request: PlainTextResponse(page))])


async def test_prometheus_answers_every_query(tmp_path: Path) -> None:
    async with (
        served(replay(answers())) as api,
        served_exporter(watching(api, key()), Clock(RECORDED_AT)) as (url, _),
        served(dcgm()) as dcgm_url,
    ):
        targets = [address.removeprefix("http://") for address in (url, dcgm_url)]
        with Prometheus(tmp_path, targets) as prometheus:
            await asyncio.to_thread(prometheus.wait_for, "min(chutes_scrape_collector_success) == 1")
            for name, query in QUERIES.items():
                ask = prometheus.query if name in NOTHING_TO_SHOW else prometheus.wait_for
                # Prometheus' own time goes on.
                asked = query.replace("$hotkey", HOTKEY).replace("time()", f"{RECORDED_AT:.0f}")
                await asyncio.to_thread(ask, asked)


def test_each_query_has_a_name() -> None:
    assert "```promql\n" not in (ROOT / "docs" / "queries.md").read_text()
    assert QUERIES.keys() > NOTHING_TO_SHOW
