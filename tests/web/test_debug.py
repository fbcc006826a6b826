from __future__ import annotations

import re

from chutes_exporter.simulator import Fault, Simulator
from tests.support import HOTKEY, get, served_exporter, watching


async def test_debug_shows_the_requests_their_results_and_the_page(simulator: Simulator) -> None:
    simulator.faults["scores"] = Fault(status=503)
    simulator.faults["active_instances"] = Fault(
        body=b'[{"instance_id": 5}, {"instance_id": "a", "miner_hotkey": "b"}]'
    )
    chosen = ["metagraph", "scores", "servers", "stats_per_chute", "unique_chute_history", "active_instances", "jobs"]
    query = "&debug=true" + "".join(f"&collect[]={name}" for name in chosen)
    async with served_exporter(watching(simulator.url)) as (url, _):
        response = await get(f"{url}/probe?target={HOTKEY}{query}")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    text = response.text
    assert f"Probe of {HOTKEY}" in text
    assert f"metagraph: GET {simulator.url}/miner/metagraph\n" in text
    assert f"stats_per_chute: GET {simulator.url}/miner/stats?per_chute=true\n" in text
    assert f"unique_chute_history: GET {simulator.url}/miner/unique_chute_history/{HOTKEY}\n" in text
    assert f"signed by {HOTKEY} (X-Chutes-Signature: hidden)" in text
    assert "signed by a configured hotkey" in text
    assert "error: 503" in text
    assert "1 records could not be read" in text
    assert re.search(r"  miss, after \d+\.\d+ s", text)
    assert f'chutes_miner_registered{{hotkey="{HOTKEY}"}} 1' in text
