"""What many tests share: the test key, clocks, patience and requests."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.collectors import COLLECTORS, Collector
from chutes_exporter.demo.day import Day

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence


HOTKEY = "5GNocjnmB7uTa4jURRRvji6CsUZnEyomrLhpodHdhsLF1Wti"
"""The address that the test seed belongs to, as the API's notes have it."""
TEST_SEED = "0xe1816a6cda3a50d041d5e39be76dbbd9367ebf20377a6b9e9ce12c7808385ba3"
"""The invented seed of the troubled miner of the recorded day. It has no value."""
KEY = Hotkey.from_seed(TEST_SEED, source="test")
NOON = 1_795_521_600.0
"""2026-11-24 12:00:00 UTC."""
AT_22 = 1_796_133_900.0
"""22:00 of the recorded day, where its time stands still: 2026-12-01 14:05:00 UTC."""
PATIENCE = 300.0
"""Seconds that a test waits for something. Even a busy machine needs less."""
PATIENT = {"X-Prometheus-Scrape-Timeout-Seconds": str(PATIENCE)}
"""Headers of a scrape that waits that long."""
RECORDINGS = Path(__file__).parent / "recordings"
ROOT = Path(__file__).parent.parent
_T = TypeVar("_T")
SEEDS = {
    "troubled": TEST_SEED,
    "healthy": "0xd2a59eed9e274d87dafff069222e1257caa2ffdd4a0dfb0932f44c0a43b61842",
}
"""The invented seeds of the miners of the recorded day."""


@functools.cache
def recorded_day() -> Day:
    """Return the recorded day, which all tests of a process share."""
    return Day()


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def find_collector(name: str) -> Collector:
    """Return the collector of a name."""
    return next(collector for collector in COLLECTORS if collector.name == name)


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody else gets until this process ends."""
    reserved = socket.socket()
    # A server sets the same option, and may therefore share the port with a socket that does not
    # listen.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    port: int = reserved.getsockname()[1]
    # The end of the Python object would close the socket, and give the port away.
    reserved.detach()
    return port


_IS_DEEP: Final = bool(os.environ.get("CHUTES_EXPORTER_TEST_DEEP"))
"""Whether this is CI's deeper run."""


def examples(count: int) -> int:
    """Return the number of examples of a property test, five times as many in CI's deeper run."""
    return count * (5 if _IS_DEEP else 1)


def some(cases: Sequence[_T]) -> Sequence[_T]:
    """Return a third of the cases, all of them in CI's deeper run."""
    return cases if _IS_DEEP else cases[::3]


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a condition is true. The condition may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        is_true = condition()
        if inspect.isawaitable(is_true):
            is_true = await is_true
        if is_true:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


def wait_for(
    ask: Callable[[], _T | None],
    process: subprocess.Popen[Any] | None = None,
    why: Callable[[], str] = str,
    pause: float = 0.05,
) -> _T:
    """Return the first true result of a call.

    Args:
        ask: The call. If it raises an OSError, such as for a server that does not listen yet, it
            is called again.
        process: A process that must live until then.
        why: Returns what a failure shows, such as a log.
        pause: Seconds between two calls.
    """
    last_error = ""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            break
        try:
            if answer := ask():
                return answer
        except OSError as error:
            last_error = repr(error)
        time.sleep(pause)
    raise AssertionError(f"it never came true: {last_error}\n{why()}")


def fetch(url: str) -> str:
    """Return a page; raises an OSError for other statuses than 200, too."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return str(response.read().decode())


def patient_client(headers: Mapping[str, str] | None = None, **arguments: Any) -> httpx.AsyncClient:
    """Return a client that waits as long as a busy machine needs."""
    return httpx.AsyncClient(timeout=PATIENCE, headers=PATIENT | dict(headers or {}), **arguments)


async def get(url: str, **headers: str) -> httpx.Response:
    """Send one GET request."""
    async with patient_client(headers) as client:
        return await client.get(url)
