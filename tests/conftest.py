from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import coverage
import hypothesis
import pytest
import structlog
from xdist.scheduler import LoadFileScheduling

import chutes_exporter
from chutes_exporter.simulator import Simulator, Size, World
from tests.simulator.odd import OddWorld
from tests.support import NOON, PATIENCE, Clock, Pki, examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from xdist.remote import Producer

# Without a deadline: how long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("any machine", deadline=None, max_examples=examples(50))
hypothesis.settings.load_profile("any machine")

_LONG = (
    "grafana/test_worlds.py",
    "page/test_exporter.py",
    "collectors/test_missing_fields.py",
    "commands/test_serve.py",
    "commands/test_query.py",
    "commands/test_demo.py",
    "test_cli.py",
    "alertmanager/test_routing.py",
    "integration/test_discovery.py",
    "web/test_app.py",
)
"""The files that take longest. They start first, so that all processes end at about the same time."""
_UNTRACED = (
    "alertmanager/",
    "collectors/test_collectors.py",
    "collectors/test_missing_fields.py::test_a_missing_field_changes_no_number_and_adds_none",
    "collectors/test_missing_fields.py::test_missing_fields_make_their_samples_absent",
    "commands/test_demo.py::test_what_the_demo_prints",
    "deploy/",
    "grafana/",
    "integration/",
    "page/test_exporter.py",
    "page/test_money.py",
    "page/test_rendering.py",
    "page/test_telemetry.py",
    "prometheus/",
    "test_facts.py",
    "test_hostile.py",
    "test_launch.py",
    "test_recordings.py",
    "test_requests_an_hour.py",
)
"""Folders, files and tests that coverage does not count, as tracing doubles the time of the costly ones. Others must
reach all code."""

_SHARING = ("grafana/test_values.py", "grafana/test_worlds.py")
"""Files that share a costly fixture, the answers in all worlds."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = [Path(__file__).parent / name for name in _LONG]
    items.sort(key=lambda item: first.index(item.path) if item.path in first else len(first))


class _FilesScheduling(LoadFileScheduling):
    """Runs the tests of files that share costly fixtures in one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return _SHARING[0] if file.endswith(_SHARING) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _FilesScheduling:
    return _FilesScheduling(config, log)


_TRACER = coverage.Coverage.current()
_PROCESSES = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_PROCESS_")}
"""The variables by which coverage counts what a new process does."""


def _trace(*, on: bool) -> None:
    """Let coverage count or not. A change takes up to 0.1 s of CPU time, so none is made between tests of one kind."""
    if _TRACER is None or on == (coverage.Coverage.current() is not None):
        return
    if on:
        _TRACER.start()
        os.environ.update(_PROCESSES)
    else:
        _TRACER.stop()
        for name in _PROCESSES:
            del os.environ[name]


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    # Coverage counts definitions when they run: import the package first. Then collect untraced, in half the time.
    for module in pkgutil.walk_packages(chutes_exporter.__path__, "chutes_exporter."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    _trace(on=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    _trace(on=not item.nodeid.removeprefix("tests/").startswith(_UNTRACED))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    # At its end, a process would save what it has measured, but xdist kills it after 10 seconds.
    _trace(on=False)
    if _TRACER is not None:
        _TRACER.save()


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    left = [int(process) for process in Path("/proc/thread-self/children").read_text().split()]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert left == []


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def small_world() -> World:
    return OddWorld(start=NOON, size=Size(miners=12, active_miners=6, chutes=30))


@pytest.fixture
async def simulator(small_world: World, clock: Clock) -> AsyncIterator[Simulator]:
    """A simulator whose time stands still at noon, unless the test moves it."""
    async with Simulator(small_world, clock=clock) as running:
        yield running


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a web configuration."""

    def write(text: str) -> Path:
        path = tmp_path / "web.yml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket on which systemd would be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(PATIENCE)
        yield listening
