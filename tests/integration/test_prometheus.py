"""The whole way: recorded answers, exporter, and Debian's real Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from typing import TYPE_CHECKING

from chutes_exporter.page.exposition import Format
from tests.recorded import NAMES, WORLD_C
from tests.support import (
    PATIENCE,
    Prometheus,
    count_openmetrics,
    get,
    page_of,
    recording,
    replay,
    served,
    served_exporter,
    watching,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Clock

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
        served(replay(bodies)) as api,
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


async def test_programs_read_a_compressed_page_in_both_formats_while_a_part_of_it_changes(
    clock: Clock, tmp_path: Path
) -> None:
    bodies = {name: recording(WORLD_C, name) for name in NAMES}
    whole = bodies["metrics"]
    # The chutes' metrics are due at each scrape, and everything else stays fresh.
    fresh = {"ttl": {"metrics": 1}}
    async with (
        served(replay(bodies)) as api,
        served_exporter(watching(api, chutes="all", **fresh), clock, monotonic=clock) as (
            url,
            exporter,
        ),
    ):
        configs = [
            {
                "job_name": protocol,
                "scrape_protocols": [protocol],
                "static_configs": [{"targets": [url.removeprefix("http://")]}],
            }
            for protocol in ("PrometheusText0.0.4", "OpenMetricsText1.0.0")
        ]
        with Prometheus(tmp_path, scrape_configs=configs) as prometheus:
            for number in (25, 50, 75):
                line = json.dumps({"chute_id": "another", "instance_count": number})
                bodies["metrics"] = whole + f"data: {line}\n\n".encode()
                clock.now += 2
                # Both jobs see the new number.
                have = f"count(chutes_chute_instances{{chute_id='another'}} == {number}) == 2"
                await asyncio.to_thread(prometheus.wait_for, have)
                for form in Format:
                    page = await exporter.metrics(form, timeout=PATIENCE, gzipped=True)
                    await asyncio.to_thread(
                        subprocess.run, ["gzip", "--test"], input=page, check=True
                    )
            expected = f"count(scrape_samples_scraped == {len(await page_of(exporter))}) == 2"
            await asyncio.to_thread(prometheus.wait_for, expected)
            # What it logs about a page that it cannot read.
            assert "Append failed" not in prometheus.log
