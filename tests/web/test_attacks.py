"""The real command, while clients try to keep others from being served."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support import unmeasured
from tests.test_cli import COMMAND, LISTEN, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = ("demo", *LISTEN, "--simulator.listen-address", "127.0.0.1:0", "--miners", "all")
SCRAPE = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n"
LANDING = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Running:
    """A process of the command, what it serves and asks, and the lines that it has logged since its start."""

    process: subprocess.Popen[str]
    url: httpx.URL
    api: str
    lines: list[str]

    @property
    def address(self) -> tuple[str, int]:
        return self.url.host, self.url.port or 0

    def peak_megabytes(self) -> float:
        """Return the most memory that the process has had."""
        status = dict(line.split(":\t") for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines())
        return int(status["VmHWM"].removesuffix(" kB")) / 1024

    def messages(self) -> Counter[str]:
        """Return the messages of the lines."""
        return Counter(match[1] for line in self.lines if (match := re.search(r'msg=("[^"]*"|\S+)', line)))


@contextlib.contextmanager
def command(*arguments: str) -> Iterator[Running]:
    """Start the command, and end it."""
    process = subprocess.Popen(
        [COMMAND, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=unmeasured(environment()),
    )
    assert process.stderr is not None
    lines: list[str] = []
    errors = process.stderr
    try:
        match = next(match for line in errors if (match := re.search(r"addresses=(\S+) .* api=(\S+)", line)))
        reading = threading.Thread(target=lambda: lines.extend(errors))
        reading.start()
        yield Running(process, httpx.URL(f"http://{match[1]}"), match[2], lines)
        process.terminate()
        assert process.wait(30) == 0
        reading.join()
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def flooded(running: Running, *arguments: object) -> Iterator[None]:
    """Flood the command from a process of its own, so that it does not slow down the honest client."""
    words = map(str, (*running.address, *arguments))
    with subprocess.Popen([sys.executable, "-m", "tests.web.flood", *words]) as flood:
        try:
            time.sleep(2)
            yield
            assert flood.poll() is None
        finally:
            flood.kill()


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
def test_honest_requests_succeed_within_bounded_memory_during_an_attack(size: int, request_text: str) -> None:
    with command(*DEMO) as demo, command(*LISTEN, "--api.url", demo.api) as running:
        # The attack meets pages that are as large as the subnet's.
        assert len(httpx.get(running.url.join("/metrics"), timeout=120).text) > 500_000
        before = running.peak_megabytes()
        with flooded(running, size, 0, request_text):
            for path in ("/-/healthy", "/metrics") * 3:
                # A new connection each time, as after a restart of the scraper.
                assert httpx.get(running.url.join(path), timeout=60).status_code == 200
        assert running.peak_megabytes() < before + 100
    # asyncio may say that a client went away during a send.
    assert running.messages() - Counter({'"socket.send() raised exception."': 1}) == {"stopping": 1}


@pytest.mark.soak
@pytest.mark.parametrize("patience", [60, 0.2], ids=["read", "leave"])
def test_clients_that_ask_for_every_page_and_never_pause_delay_honest_scrapes_by_seconds(patience: float) -> None:
    with command(*DEMO) as demo, command(*LISTEN, "--api.url", demo.api) as running:

        def scrape() -> float:
            started = time.monotonic()
            answer = httpx.get(running.url.join("/metrics"), timeout=60)
            assert (answer.status_code, answer.text.count("\nchutes_scrape_series ")) == (200, 1)
            return time.monotonic() - started

        scrape()
        with flooded(running, 100, patience):
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
    with command(*LISTEN, "--api.url", "http://127.0.0.1:9") as running:
        for request in junk * 20:
            with socket.create_connection(running.address) as client:
                client.sendall(request)
                with contextlib.suppress(ConnectionError):
                    while client.recv(10_000):
                        pass
    caused = {message: count for message, count in running.messages().items() if "feed" not in message}
    assert caused['"Invalid HTTP request received."'] == 1
    assert set(caused.values()) == {1}
