from __future__ import annotations

import re
import signal

import httpx

from tests.support import HOTKEY, parse_page, series
from tests.test_cli import LISTEN, running


def test_the_demo_prints_the_address_of_its_metrics() -> None:
    with running("demo", *LISTEN, "--simulator.listen-address", "127.0.0.1:0") as (_, process):
        assert process.stdout is not None
        text = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"http://\S+/metrics", text)
        assert found is not None
        page = parse_page(httpx.get(found[0], timeout=60).text)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    assert page[series("chutes_miner_registered", hotkey=HOTKEY)] == 1
    success = {value for (name, _), value in page.items() if name == "chutes_scrape_collector_success"}
    assert success == {1.0}


def test_the_demo_can_misbehave() -> None:
    fault = ("--simulator.fault", "scores=status:503")
    with running("demo", *LISTEN, "--simulator.listen-address", "127.0.0.1:0", *fault) as (url, _):
        page = parse_page(httpx.get(f"{url}/metrics", timeout=60).text)
    assert page[series("chutes_feed_up", feed="scores")] == 0
    assert page[series("chutes_api_requests_total", endpoint="scores", code="503")] == 1
