"""The real command, while clients try to keep others from being served."""

from __future__ import annotations

import contextlib
import re
import resource
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import httpx
import pytest

from chutes_exporter.web.server import allow_many_files
from tests.support import parse_page, series, unmeasured
from tests.test_cli import COMMAND, LISTEN, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self


DEMO = ("demo", *LISTEN, "--simulator.listen-address", "127.0.0.1:0")
WITHIN = 10.0
"""Seconds after which an honest request must have succeeded, whatever attackers do."""
SLOWER = 30
"""On a busy machine, it may take this many times as long as before the attack."""
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n"
LANDING = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ESTABLISHED = 1


class Flood(threading.Thread):
    """Connections that send requests and never read, and that are made again when they are cut.

    Args:
        address: Host and port.
        size: Number of connections.
        payload: Bytes that each connection sends.
    """

    def __init__(self, address: tuple[str, int], size: int, payload: bytes) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._size = size
        self._payload = payload
        self._end = threading.Event()
        self.connected = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()

    def run(self) -> None:
        with contextlib.ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            sent: list[socket.socket] = []
            for _ in range(self._size):
                self._connect(selector)
            while not self._end.is_set():
                for key, _ in selector.select(0.05):
                    self._send(selector, key, sent)
                for client in [one for one in sent if not is_open(one)]:
                    sent.remove(client)
                    client.close()
                    self._connect(selector)
            for client in sent:
                client.close()
            for key in list(selector.get_map().values()):
                client_of(key).close()

    def _connect(self, selector: selectors.BaseSelector) -> None:
        client = socket.socket()
        client.setblocking(False)  # noqa: FBT003 - takes it by position only
        client.connect_ex(self._address)
        selector.register(client, selectors.EVENT_WRITE, bytearray(self._payload))
        self.connected += 1

    def _send(self, selector: selectors.BaseSelector, key: selectors.SelectorKey, sent: list[socket.socket]) -> None:
        client = client_of(key)
        try:
            del key.data[: client.send(key.data)]
        except BlockingIOError:
            return
        except OSError:
            key.data.clear()
        if not key.data:
            selector.unregister(client)
            sent.append(client)


def client_of(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


def is_open(client: socket.socket) -> bool:
    """Tell whether the server has not closed a connection."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED


@dataclass
class Running:
    """A process of the command.

    Attributes:
        url: Address that it serves.
        api: Address of the API that it asks.
        lines: Lines that it logged after its start; complete when it has ended.
    """

    process: subprocess.Popen[str]
    url: httpx.URL
    api: str
    lines: list[str]

    @property
    def address(self) -> tuple[str, int]:
        return self.url.host, self.url.port or 0

    def files(self) -> int:
        """Return how many file descriptors are open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def messages(self) -> Counter[str]:
        """Return the messages of the lines."""
        return Counter(found[1] for line in self.lines if (found := re.search(r'msg=("[^"]*"|\S+)', line)))


@contextlib.contextmanager
def command(*arguments: str, files: int | None = None, measured: bool = False) -> Iterator[Running]:
    """Start the command, with a limit of open files, with or without coverage, and end it."""
    variables = environment() if measured else unmeasured(environment())
    words = [COMMAND, *arguments]
    if files is not None:
        words = ["/bin/sh", "-c", f'ulimit -n {files}; exec "$0" "$@"', *words]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=variables)
    assert process.stderr is not None
    lines: list[str] = []
    errors = process.stderr
    try:
        found = next(found for line in errors if (found := re.search(r"addresses=(\S+) .* api=(\S+)", line)))
        reading = threading.Thread(target=lambda: lines.extend(errors))
        reading.start()
        yield Running(process, httpx.URL(f"http://{found[1]}"), found[2], lines)
        process.terminate()
        assert process.wait(30) == 0
        reading.join()
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.02)


def share_of_a_busy_loop(process: subprocess.Popen[str]) -> float:
    """Return the CPU time that a process takes, as a share of what an endless loop takes in the same two seconds."""

    def ticks(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as loop:
        before = ticks(process.pid), ticks(loop.pid)
        time.sleep(2)
        after = ticks(process.pid), ticks(loop.pid)
        loop.kill()
    return (after[0] - before[0]) / (after[1] - before[1])


def web_config(directory: Path) -> Path:
    path = directory / "web.yml"
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    path.write_text(f"basic_auth_users: {{alice: {hashed}}}\nrate_limit: {{interval: 100ms, burst: 50}}\n")
    return path


@pytest.mark.parametrize("protected", [False, True])
@pytest.mark.parametrize(("size", "payload"), [(64, SCRAPE * 60), (520, LANDING * 400), (520, SCRAPE * 60)])
def test_honest_requests_succeed_while_others_pipeline_requests_and_do_not_read(
    tmp_path: Path, size: int, payload: bytes, *, protected: bool
) -> None:
    allow_many_files()
    flags = ["--web.config.file", str(web_config(tmp_path))] if protected else []
    auth = ("alice", "secret") if protected else None
    with command(*DEMO, "--miners", "all", *flags) as running:
        began = time.monotonic()
        # The attack meets pages that are as large as the subnet's.
        assert len(httpx.get(running.url.join("/metrics"), auth=auth, timeout=120).text) > 500_000
        within = max(WITHIN, SLOWER * (time.monotonic() - began))
        with Flood(running.address, size, payload) as flood:
            for _ in range(3):
                ends = time.monotonic() + within
                for path in ("/-/healthy", "/metrics"):
                    # A new connection each time, as after a restart of the scraper.
                    while (answer := httpx.get(running.url.join(path), auth=auth, timeout=within)).status_code != 200:
                        # It is asked to come back in a second.
                        assert answer.status_code == 503
                        time.sleep(float(answer.headers["retry-after"]))
                    assert time.monotonic() < ends
            assert flood.connected >= size
            assert flood.is_alive()
    assert running.lines == []


def test_idle_connections_leave_file_descriptors_for_the_api() -> None:
    with (
        command(*DEMO) as demo,
        # Only here does the command cut connections that have just arrived.
        command(*LISTEN, "--api.url", demo.api, "--feed.ttl", "scores=0", files=64, measured=True) as running,
        contextlib.ExitStack() as stack,
    ):
        idle = [stack.enter_context(socket.create_connection(running.address)) for _ in range(150)]
        wait_until(lambda: sum(map(is_open, idle)) <= 32)
        assert share_of_a_busy_loop(running.process) < 0.25
        for _ in range(3):
            page = parse_page(httpx.get(running.url.join("/metrics"), timeout=30).text)
            assert page[series("chutes_scrape_collector_success", collector="scores")] == 1
        # There is room for one request to each of 15 endpoints.
        assert running.files() <= 64 - 15
    assert running.messages() == {"stopping": 1}


def test_honest_requests_succeed_with_few_file_descriptors_while_others_connect_again_and_again() -> None:
    with (
        command(*DEMO) as demo,
        command(*LISTEN, "--api.url", demo.api, "--feed.ttl", "scores=0", files=64) as running,
        Flood(running.address, 150, b"GET / HTTP/1.1\r\nX: ") as flood,
    ):
        wait_until(lambda: flood.connected > 600)
        page = parse_page(httpx.get(running.url.join("/metrics"), timeout=30).text)
        assert page[series("chutes_scrape_collector_success", collector="scores")] == 1
    assert all(count == 1 for count in running.messages().values())


def test_accepting_pauses_without_file_descriptors_and_goes_on_afterwards() -> None:
    # Only here does the command run out of file descriptors.
    with (
        command(*LISTEN, "--api.url", "http://127.0.0.1:9", measured=True) as running,
        contextlib.ExitStack() as stack,
    ):
        pid = running.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        for _ in range(50):
            stack.enter_context(socket.create_connection(running.address))
        wait_until(lambda: running.messages()['"accepting connections paused"'])
        assert share_of_a_busy_loop(running.process) < 0.25
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert httpx.get(running.url.join("/-/healthy"), timeout=30).status_code == 200
    assert running.messages()['"accepting connections paused"'] == 1


def test_clients_cause_few_lines_in_the_log() -> None:
    junk = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
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
    assert caused == {'"Invalid HTTP request received."': 1, "stopping": 1}
