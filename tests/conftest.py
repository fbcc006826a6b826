from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import coverage
import hypothesis
import pytest
import structlog
import trustme
from xdist.scheduler import LoadFileScheduling

import chutes_exporter
from chutes_exporter.simulator import Simulator, Size, World
from tests.reaper import continue_in_child
from tests.simulator.odd import OddWorld
from tests.support import NOON, Clock, Pki, examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from xdist.remote import Producer

# Without a deadline: how long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("any machine", deadline=None, max_examples=examples(50))
hypothesis.settings.load_profile("any machine")

_LONG = (
    "grafana/test_worlds.py",
    "page/test_exporter.py",
    "web/test_attacks.py",
    "prometheus/test_days.py",
    "collectors/test_missing_fields.py",
    "commands/test_serve.py",
    "commands/test_query.py",
    "test_reaper.py",
    "commands/test_demo.py",
    "test_cli.py",
    "deploy/test_release.py",
    "deploy/test_image.py",
    "alertmanager/test_routing.py",
)
"""The files that take longest. They start first, so that all processes end at about the same time."""
_UNTRACED = (
    "alertmanager/",
    "api/test_client.py::test_a_small_body_that_stands_for_a_huge_one_stays_harmless",
    "collectors/test_collectors.py",
    "collectors/test_missing_fields.py",
    "commands/test_demo.py::test_the_commands_that_the_demo_prints_work_word_for_word",
    "commands/test_demo.py::test_the_demo_prints_the_address_of_its_metrics",
    "deploy/",
    "feeds/test_doubt.py::test_a_doubt_that_lasts_costs_two_requests_for_each_time_to_live",
    "grafana/",
    "integration/",
    "page/test_exporter.py::test_a_rate_limit_on_one_miner_delays_all_miners",
    "page/test_exporter.py::test_every_subset_of_failing_endpoints_leaves_the_rest",
    "page/test_exporter.py::test_failing_endpoints_leave_the_metrics_of_others",
    "page/test_exporter.py::test_more_requests_than_connections_wait_their_turn",
    "page/test_observed.py::test_over_two_days_of_a_moving_world_the_counts_are_the_worlds_own",
    "prometheus/",
    "simulator/test_maintenance.py",
    "simulator/test_world.py",
    "test_hostile.py",
    "test_reaper.py",
    "test_recordings.py",
    "test_style.py",
)
"""Folders, files and tests that coverage does not count, as tracing doubles the time of the costly ones. Others must
reach all code."""
_TRACES_CHILDREN = "COVERAGE_PROCESS_CONFIG"

_SHARING = (
    ("grafana/test_values.py", "grafana/test_worlds.py"),
    ("deploy/test_release.py", "deploy/test_release_files.py", "deploy/test_sbom.py"),
)
"""Files that share costly fixtures: the answers in all worlds, and the files of a release."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = [Path(__file__).parent / name for name in _LONG]
    items.sort(key=lambda item: first.index(item.path) if item.path in first else len(first))


class _FilesScheduling(LoadFileScheduling):
    """Runs the tests of a file in one process, as they share costly fixtures, and those of several files that do."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return next((files[0] for files in _SHARING if file.endswith(files)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _FilesScheduling:
    return _FilesScheduling(config, log)


@contextlib.contextmanager
def _untraced() -> Iterator[None]:
    tracer = coverage.Coverage.current()
    if tracer is None:
        yield
        return
    tracer.stop()
    configuration = os.environ.pop(_TRACES_CHILDREN, None)
    try:
        yield
    finally:
        if configuration is not None:
            os.environ[_TRACES_CHILDREN] = configuration
        tracer.start()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    # Tracing takes a third of the time in which each process makes the same list of the tests.
    for module in pkgutil.walk_packages(chutes_exporter.__path__, f"{chutes_exporter.__name__}."):
        importlib.import_module(module.name)
    with _untraced():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not item.nodeid.removeprefix("tests/").startswith(_UNTRACED):
        return (yield)
    with _untraced():
        return (yield)


_internal_errors: list[str] = []


def pytest_internalerror(excrepr: object) -> None:
    _internal_errors.append(str(excrepr))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> Generator[None, object, object]:
    result = yield
    if len(_internal_errors) > 1 and not hasattr(config, "workerinput"):
        # A later one, of xdist, only says that a process ended with tests to run.
        sys.stdout.write(f"The first internal error was:\n{_internal_errors[0]}\n")
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        continue_in_child()


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


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pki(tmp_path: Path, authority: trustme.CA) -> Pki:
    pki = Pki(tmp_path, authority)
    pki.issue("server", "127.0.0.1")
    (tmp_path / "ca.crt").write_bytes(authority.cert_pem.bytes())
    return pki


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a web configuration."""

    def write(text: str) -> Path:
        path = tmp_path / "web.yml"
        path.write_text(text)
        return path

    return write
