"""The whole way: recorded answers, exporter, and Debian's real Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING

from tests.exporters import served, served_exporter, watching
from tests.pages import count_openmetrics
from tests.prometheus.server import Prometheus
from tests.recorded import NAMES, WORLD_C, recorded_api, recording
from tests.support import get

if TYPE_CHECKING:
    from pathlib import Path


NASTY = (
    'q " b \\ n \n r \r t \t u \u2028 \x85 \x7f \x01 e \N{GRINNING FACE} r \u202e a \u00a0 {}=,#'
)


async def test_prometheus_takes_every_sample_of_a_page_and_any_text(tmp_path: Path) -> None:
    bodies = {name: recording(WORLD_C, name) for name in NAMES}
    metagraph = json.loads(bodies["metagraph"])
    for node in metagraph:
        node["blacklist_reason"] = NASTY
    bodies["metagraph"] = json.dumps(metagraph).encode()
    bodies["metrics"] += (
        f"data: {json.dumps({'chute_id': NASTY, 'instance_count': 1})}\n\n".encode()
    )
    async with (
        served(recorded_api(bodies)) as api,
        served_exporter(watching(api, chutes="all")) as (url, _),
    ):
        with Prometheus(tmp_path, [url.removeprefix("http://")]) as prometheus:
            await asyncio.to_thread(prometheus.wait_for, "count_over_time(up[1m]) >= 2 and up == 1")
            page = (await get(f"{url}/metrics", Accept="application/openmetrics-text")).text
            # A busy machine does not scrape everything in a second at first.
            await asyncio.to_thread(
                prometheus.stand_still, f"min(scrape_samples_scraped) == {count_openmetrics(page)}"
            )
            reasons = await asyncio.to_thread(prometheus.query, "chutes_miner_blacklist_info")
            assert {dict(labels)["reason"] for labels in reasons} == {NASTY}
            ids = await asyncio.to_thread(prometheus.query, "chutes_chute_instances")
            assert NASTY in {dict(labels)["chute_id"] for labels in ids}
            refused = r"level=(warn|error)|duplicate sample|out of order|out-of-order"
            assert re.findall(refused, prometheus.log, re.IGNORECASE) == []
