"""The real command, while clients try to keep others from being served."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import bcrypt
import httpx
import pytest

from tests.program import LISTEN, Running, running
from tests.support import PATIENCE
from tests.web.test_config_file import TLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.web.pki import Pki

DEMO = ("demo", *LISTEN, "--demo.listen-address", "127.0.0.1:0", "--miners", "all")
SCRAPE = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n"
HEALTHY = "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"
LANDING = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def api_of(service: Running) -> str:
    """Return the address of the API that a service asks, from its log."""
    address, *_ = re.findall(r" api=(\S+)", "".join(service.lines))
    return str(address)


def messages(service: Running) -> Counter[str]:
    """Count the messages that a service has logged, but for the one that it listens."""
    logged = Counter(re.findall(r'msg=("[^"]*"|\S+)', "".join(service.lines)))
    return logged - Counter({"listening": 1})


@contextlib.contextmanager
def flooded(
    service: Running,
    *,
    addresses: int = 1,
    clients: int,
    patience: float,
    requests: Sequence[str] = (),
) -> Iterator[None]:
    """Flood the command from a process of its own, so that it does not slow down the honest
    client. tests/web/flood.py says what its clients do.
    """
    url = httpx.URL(service.url)
    words = map(str, (url.host, url.port, addresses, clients, patience, *requests))
    with subprocess.Popen([sys.executable, "-m", "tests.web.flood", *words]) as flood:
        try:
            # Until the clients have begun.
            time.sleep(2)
            yield
            # It must not have failed meanwhile.
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
    ("clients", "request_text"),
    [
        pytest.param(64, SCRAPE * 60, id="unread pipelines of pages"),
        pytest.param(520, LANDING * 400, id="many long pipelines"),
        pytest.param(900, "GET / HTTP/1.1\r\nX: ", id="half requests"),
        pytest.param(200, SCRAPE, id="slow readers"),
    ],
)
def test_honest_requests_succeed_within_bounded_memory_during_an_attack(
    clients: int, request_text: str
) -> None:
    with served() as service:
        # The attack meets pages that are as large as the subnet's.
        assert len(httpx.get(f"{service.url}/metrics", timeout=120).text) > 300_000
        before = service.peak_megabytes()
        with flooded(service, clients=clients, patience=0, requests=[request_text]):
            for path in ("/-/healthy", "/metrics") * 3:
                assert honest(service.url + path).status_code == 200
        assert service.peak_megabytes() < before + 100
    # Each of these may be logged once.
    allowed = (
        # A client went away while asyncio sent something.
        '"socket.send() raised exception."',
        '"too many open connections: those that are needed least are closed"',
    )
    assert messages(service) - Counter(allowed) == {"stopping": 1}


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

        # The first scrape also waits for the API.
        scrape()
        with flooded(service, clients=100, patience=patience):
            during = [scrape() for _ in range(20)]
        after = scrape()
    assert max(during) < 3
    assert after < 1


NO_API = (*LISTEN, "--api.url", "http://127.0.0.1:9")
"""Flags of a service whose API refuses connections at once, so that it does not delay scrapes."""


def honest(url: str, **options: Any) -> httpx.Response:
    """Send a request with a new connection, from an address that no other client has."""
    context = options.pop("verify", True)
    transport = httpx.HTTPTransport(local_address="127.0.1.1", verify=context)
    with httpx.Client(transport=transport, timeout=60, **options) as client:
        return client.get(url)


def durations(
    service: Running, request: Callable[[], httpx.Response], times: int = 20
) -> list[float]:
    """Send requests that are answered by 200, and return the seconds that each one took.

    Those in which other programs had the processors do not count, so that a busy machine makes
    little difference.
    """
    seconds = []
    for _ in range(times):
        started, without_cpu_before = time.monotonic(), service.seconds_without_cpu()
        answer = request()
        assert answer.status_code == 200, answer.text
        duration = time.monotonic() - started
        without_cpu = max(0.0, service.seconds_without_cpu() - without_cpu_before)
        seconds.append(duration - without_cpu)
    return seconds


def test_a_thousand_silent_clients_need_less_than_150_megabytes_and_delay_nobody(
    pki: Pki, write: Callable[[str], Path]
) -> None:
    flags = ("--web.config.file", str(write(TLS)))
    with running(*NO_API, *flags) as service, contextlib.ExitStack() as stack:
        address = httpx.URL(service.url)
        url, context = f"https://{address.host}:{address.port}/metrics", pki.client()

        # Half of them are silent, and half of them begin a handshake.
        for beginning in (b"", b"\x16\x03\x01\x02\x00\x01") * 500:
            opened = socket.create_connection((address.host, address.port or 0))
            stack.enter_context(opened).sendall(beginning)
        seconds = durations(service, lambda: honest(url, verify=context))
        assert statistics.median(seconds) < 0.25
        assert service.peak_megabytes() < 150


def authorized(password: str) -> str:
    """Return a request of alice with a password."""
    credentials = base64.b64encode(f"alice:{password}".encode()).decode()
    return SCRAPE.replace("\r\n\r\n", f"\r\nAuthorization: Basic {credentials}\r\n\r\n")


def guesses(number: int) -> list[str]:
    """Return requests with different wrong passwords."""
    return [authorized(f"guess {guess}") for guess in range(number)]


ALICE = authorized("secret")
# Each client sends them all on one connection, as long as the service keeps it.
KEPT_GUESSES = ["".join(guesses(500))]


# A head, which chunks of one byte follow for ever.
CHUNKS = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("patience", "requests"),
    [
        pytest.param(60, [CHUNKS], id="chunks of a byte"),
        pytest.param(60, guesses(300), marks=pytest.mark.soak, id="guesses"),
        pytest.param(60, KEPT_GUESSES, marks=pytest.mark.soak, id="guesses on kept connections"),
        pytest.param(0, [LANDING * 200], marks=pytest.mark.soak, id="unread refusals"),
        pytest.param(0, [ALICE * 60], marks=pytest.mark.soak, id="unread pipelines"),
        pytest.param(60, ["GET / HTTP/1.1\r\nX: "], marks=pytest.mark.soak, id="half requests"),
    ],
)
@pytest.mark.parametrize("addresses", [1, pytest.param(100, marks=pytest.mark.soak)])
def test_clients_of_other_addresses_delay_an_honest_scrape_by_milliseconds(
    write: Callable[[str], Path], addresses: int, patience: float, requests: list[str]
) -> None:
    # Each guess takes a quarter of a second to check.
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(12)).decode()
    path = write(f"basic_auth_users: {{alice: {hashed}}}")
    with running(*NO_API, "--web.config.file", str(path)) as service:

        def scrape() -> httpx.Response:
            return honest(f"{service.url}/metrics", auth=("alice", "secret"))

        # From now on, the service knows the right password.
        scrape()
        with flooded(
            service, addresses=addresses, clients=300, patience=patience, requests=requests
        ):
            assert statistics.median(durations(service, scrape)) < 0.25


@pytest.mark.soak
def test_guesses_of_passwords_do_not_delay_the_end(write: Callable[[str], Path]) -> None:
    # 100 checks take 25 seconds.
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(12)).decode()
    path = write(f"basic_auth_users: {{alice: {hashed}}}")
    with (
        running(*NO_API, "--web.config.file", str(path)) as service,
        flooded(service, addresses=50, clients=100, patience=60, requests=guesses(100)),
    ):
        service.process.terminate()
        started = time.monotonic()
        assert service.process.wait(PATIENCE) == 0
        # No password waits longer than 5 seconds, and `docker stop` kills after 10.
        assert time.monotonic() - started < 9
    assert not service.has_logged("level=error")


@pytest.mark.soak
def test_pipelines_that_many_addresses_read_delay_an_honest_scrape_by_less_than_a_second() -> None:
    with running(*NO_API) as service:
        with flooded(service, addresses=100, clients=300, patience=60, requests=[HEALTHY * 500]):
            seconds = durations(service, lambda: honest(f"{service.url}/metrics"), times=10)
        assert statistics.median(seconds) < 1
