from __future__ import annotations

import gzip

import httpx
import pytest

from chutes_exporter.config import Settings
from chutes_exporter.simulator import Fault, Simulator
from chutes_exporter.web.app import scrape_timeout
from tests.support import HOTKEY, get, parse_page, served_exporter, watching


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("10", 9.5),
        ("3.25", 2.75),
        ("0.2", 0.05),
        (None, 9.5),
        ("", 9.5),
        ("x", 9.5),
        ("-1", 9.5),
        ("inf", 9.5),
        ("nan", 9.5),
    ],
)
def test_an_answer_comes_before_the_scraper_gives_up(header: str | None, seconds: float) -> None:
    assert scrape_timeout(header, 0.5) == seconds


async def test_the_page_comes_in_the_format_and_coding_that_was_asked_for(simulator: Simulator) -> None:
    async with served_exporter(Settings(api_url=simulator.url)) as (url, _), httpx.AsyncClient() as client:
        plain = await client.get(f"{url}/metrics", headers={"accept-encoding": "identity"})
        assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "content-encoding" not in plain.headers
        accept = {"accept": "application/openmetrics-text;version=1.0.0"}
        openmetrics = await client.get(f"{url}/metrics", headers=accept)
        assert openmetrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert openmetrics.headers["content-encoding"] == "gzip"
        assert openmetrics.text.endswith("# EOF\n")
        async with client.stream("GET", f"{url}/metrics", headers={"accept-encoding": "gzip"}) as response:
            raw = b"".join([chunk async for chunk in response.aiter_raw()])
        assert parse_page(gzip.decompress(raw).decode())
        head = await client.head(f"{url}/metrics")
        assert (head.status_code, head.content) == (200, b"")
        assert (await client.post(f"{url}/metrics")).status_code == 405
        assert (await client.get(f"{url}/nothing")).status_code == 404


async def test_the_metrics_path_is_a_setting(simulator: Simulator) -> None:
    settings = Settings(api_url=simulator.url, telemetry_path="/other")
    async with served_exporter(settings) as (url, _):
        assert (await get(f"{url}/other")).status_code == 200
        assert (await get(f"{url}/metrics")).status_code == 404


async def test_health_is_about_the_process_alone(simulator: Simulator) -> None:
    simulator.faults["scores"] = Fault(status=500)
    async with served_exporter(Settings(api_url=simulator.url)) as (url, _):
        assert (await get(f"{url}/-/healthy")).status_code == 200
        assert (await get(f"{url}/-/ready")).status_code == 200
    assert simulator.asked == []


async def test_the_landing_page_says_how_each_feed_is(simulator: Simulator) -> None:
    async with served_exporter(watching(simulator.url)) as (url, _):
        assert "Nothing was asked yet" in (await get(f"{url}/")).text
        simulator.faults["scores"] = Fault(status=500, body=b"<script>alert(1)</script>")
        simulator.faults["stats"] = Fault(latency=30)
        await get(f"{url}/metrics", **{"X-Prometheus-Scrape-Timeout-Seconds": "1"})
        page = (await get(f"{url}/")).text
    assert HOTKEY in page
    assert "down: 500" in page
    assert "<script>" not in page
    assert "waiting for the first answer" in page
    assert "up</td>" in page


async def test_the_landing_page_without_hotkeys_says_that_it_watches_everybody(simulator: Simulator) -> None:
    async with served_exporter(Settings(api_url=simulator.url)) as (url, _):
        assert "the whole subnet" in (await get(f"{url}/")).text
