"""The real command, while clients try to keep others from being served."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.test_cli import LISTEN, Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = ("demo", *LISTEN, "--simulator.listen-address", "127.0.0.1:0", "--miners", "all")
SCRAPE = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n"
LANDING = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def api_of(service: Running) -> str:
    """Return the address of the API that a service asks."""
    return next(match[1] for line in service.lines if (match := re.search(r" api=(\S+)", line)))


def messages(service: Running) -> Counter[str]:
    """Return the messages of the lines since it listens."""
    found = Counter(
        match[1] for line in service.lines if (match := re.search(r'msg=("[^"]*"|\S+)', line))
    )
    return found - Counter({"listening": 1})


@contextlib.contextmanager
def flooded(service: Running, *arguments: object) -> Iterator[None]:
    """Flood the command from a process of its own, so that it does not slow down the honest
    client.
    """
    url = httpx.URL(service.url)
    words = map(str, (url.host, url.port, *arguments))
    with subprocess.Popen([sys.executable, "-m", "tests.web.flood", *words]) as flood:
        try:
            time.sleep(2)
            yield
            assert flood.poll() is None
        finally:
            flood.kill()


@contextlib.contextmanager
def served() -> Iterator[Running]:
    """Serve the whole subnet of a demo's API."""
    with running(*DEMO) as demo, running(*LISTEN, "--api.url", api_of(demo)) as service:
        yield service


@pytest.mark.soak
@pytest.mark.parametrize(
    ("size", "request_text"),
    [
        pytest.param(64, SCRAPE * 60, id="unread pipelines of pages"),
        pytest.param(520, LANDING * 400, id="many long pipelines"),
        pytest.param(900, "GET / HTTP/1.1\r\nX: ", id="half requests"),
        pytest.param(200, SCRAPE, id="slow readers"),
    ],
)
def test_honest_requests_succeed_within_bounded_memory_during_an_attack(
    size: int, request_text: str
) -> None:
    with served() as service:
        # The attack meets pages that are as large as the subnet's.
        assert len(httpx.get(f"{service.url}/metrics", timeout=120).text) > 500_000
        before = service.peak_megabytes()
        with flooded(service, size, 0, request_text):
            for path in ("/-/healthy", "/metrics") * 3:
                # A new connection each time, as after a restart of the scraper.
                assert httpx.get(service.url + path, timeout=60).status_code == 200
        assert service.peak_megabytes() < before + 100
    # asyncio may say that a client went away during a send.
    assert messages(service) - Counter({'"socket.send() raised exception."': 1}) == {"stopping": 1}


@pytest.mark.soak
@pytest.mark.parametrize("patience", [60, 0.2], ids=["read", "leave"])
def test_clients_that_ask_for_every_page_and_never_pause_delay_honest_scrapes_by_seconds(
    patience: float,
) -> None:
    with served() as service:

        def scrape() -> float:
            started = time.monotonic()
            answer = httpx.get(f"{service.url}/metrics", timeout=60)
            assert (answer.status_code, answer.text.count("\nchutes_scrape_series ")) == (200, 1)
            return time.monotonic() - started

        scrape()
        with flooded(service, 100, patience):
            during = [scrape() for _ in range(20)]
        after = scrape()
    assert max(during) < 3
    assert after < 1


def test_clients_cause_few_lines_in_the_log() -> None:
    junk = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    )
    with running(*LISTEN, "--api.url", "http://127.0.0.1:9") as service:
        url = httpx.URL(service.url)
        for request in junk * 20:
            with socket.create_connection((url.host, url.port or 0)) as client:
                client.sendall(request)
                with contextlib.suppress(ConnectionError):
                    while client.recv(10_000):
                        pass
    caused = {
        message: count for message, count in messages(service).items() if "feed" not in message
    }
    assert caused['"Invalid HTTP request received."'] == 1
    assert set(caused.values()) == {1}
