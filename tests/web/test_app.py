from __future__ import annotations

import asyncio
import gzip

import httpx
import pytest

from chutes_exporter.feeds.definitions import ENDPOINTS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.web import app
from chutes_exporter.web.app import scrape_timeout
from tests.exporters import patient, served_exporter, watching
from tests.pages import parse_page
from tests.replay import Fault, Replay
from tests.support import PATIENCE, get, patient_client, until


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("10", 9.5),
        # Less than the offset, so the scrape waits for the minimum.
        ("0.2", 0.05),
        # The default of 10 seconds counts, less the offset.
        (None, 9.5),
        ("x", 9.5),
        ("-1", 9.5),
        ("inf", 9.5),
        ("nan", 9.5),
    ],
)
def test_an_answer_comes_before_the_scraper_gives_up(header: str | None, seconds: float) -> None:
    assert scrape_timeout(header, offset=0.5) == seconds


async def test_the_page_comes_in_the_format_and_coding_that_was_asked_for(
    replay: Replay,
) -> None:
    async with served_exporter(patient(replay.url)) as (url, _), patient_client() as client:
        plain = await client.get(f"{url}/metrics", headers={"accept-encoding": "identity"})
        assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "content-encoding" not in plain.headers
        assert plain.headers["vary"] == "Accept, Accept-Encoding"
        accept = {"accept": "application/openmetrics-text;version=1.0.0"}
        openmetrics = await client.get(f"{url}/metrics", headers=accept)
        content_type = openmetrics.headers["content-type"]
        assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert openmetrics.headers["content-encoding"] == "gzip"
        assert openmetrics.text.endswith("# EOF\n")
        gzipped = {"accept-encoding": "gzip"}
        async with client.stream("GET", f"{url}/metrics", headers=gzipped) as response:
            raw = b"".join([chunk async for chunk in response.aiter_raw()])
        assert parse_page(gzip.decompress(raw).decode())


async def test_no_redirect_leads_to_a_host_that_the_client_names(replay: Replay) -> None:
    async with served_exporter(patient(replay.url)) as (url, _), patient_client() as client:
        # Starlette would redirect this path to the one without a slash at its end.
        response = await client.get(f"{url}/metrics/", headers={"host": "evil.example"})
    assert response.status_code == 404
    assert "location" not in response.headers


async def test_it_is_healthy_at_once_and_ready_after_the_first_request_failed(
    replay: Replay,
) -> None:
    # All requests hang, until one endpoint fails.
    replay.faults.update({endpoint.name: Fault(latency=600) for endpoint in ENDPOINTS})
    async with served_exporter(patient(replay.url, api_timeout=600)) as (url, _):
        assert (await get(f"{url}/-/healthy")).status_code == 200
        response = await get(f"{url}/-/ready")
        assert response.status_code == 503
        waiting = f"Not ready: waiting for the first answer from {replay.url}.\n"
        assert response.text == waiting
        # Neither question has asked the API.
        assert not replay.requests
        replay.faults["scores"] = Fault(status=500)
        scrape = asyncio.create_task(get(f"{url}/metrics"))

        async def is_ready() -> bool:
            response = await get(f"{url}/-/ready")
            ready = f"Ready, but {replay.url} fails for scores.\n"
            return response.status_code == 200 and response.text == ready

        await until(is_ready)
        scrape.cancel()


@pytest.mark.parametrize(
    ("limit", "value", "are_whole"),
    [
        # There is room for two of the three pages, so that the oldest makes room.
        ("_SENDING_BYTES", 50_000_000, [False, True, True]),
        ("_SEND_SECONDS", 0.3, [False, False, False]),
    ],
)
async def test_pages_of_clients_that_do_not_read_are_cut(
    replay: Replay,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: float,
    are_whole: list[bool],
) -> None:
    made = []

    async def metrics(*_: object, **__: object) -> bytes:
        made.append(1)
        return bytes(20_000_000)

    monkeypatch.setattr(app, limit, value)
    monkeypatch.setattr(Exporter, "metrics", metrics)
    async with served_exporter(watching(replay.url)) as (url, _):
        address = httpx.URL(url)
        slow = []
        for number in range(3):
            slow.append(await asyncio.open_connection(address.host, address.port))
            slow[-1][1].write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await until(lambda: len(made) > number)  # noqa: B023 - in this turn
        await asyncio.sleep(0.5)
        sizes = [len(await asyncio.wait_for(reader.read(), PATIENCE)) for reader, _ in slow]
        for _, writer in slow:
            writer.close()
            await writer.wait_closed()
    # A whole answer has the page and its headers.
    assert [size > 20_000_000 for size in sizes] == are_whole
