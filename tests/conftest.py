from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import structlog
from xdist.scheduler import LoadFileScheduling

from tests.replay import Replay
from tests.support import AT_22, Clock, examples, recorded_day
from tests.web.pki import Pki

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from xdist.remote import Producer

# Without a deadline: how long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("any machine", deadline=None, max_examples=examples(50))
hypothesis.settings.load_profile("any machine")

_SHARING = (
    *("alertmanager/test_day.py", "grafana/test_answers.py", "grafana/test_shown.py"),
    *("prometheus/test_agreement.py", "prometheus/test_day.py"),
)
"""Files that share the recorded day with the rules, which takes long to make."""
_LONG = (
    *_SHARING,
    *("deploy/test_stack.py", "alertmanager/test_routing.py", "test_golden.py"),
    *("commands/test_serve.py", "commands/test_demo.py", "test_hostile.py"),
    *("unknown/test_answers.py", "unknown/test_commands.py", "unknown/test_fields.py"),
    *("test_requests_an_hour.py", "test_day.py", "test_reference.py", "test_worlds.py"),
)
"""Files that take more than 5 seconds. They run first, so that no process has one of them left when
the others have ended.
"""


class _FilesScheduling(LoadFileScheduling):
    """Runs the tests of files that share costly fixtures in one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        # Its cases share nothing.
        if file == "tests/test_golden.py":
            return nodeid
        return _SHARING[0] if file.endswith(_SHARING) else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.path.as_posix().endswith(_LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _FilesScheduling:
    return _FilesScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Fail if a test has left a process running, and kill it."""
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


@pytest.fixture
async def replay(clock: Clock) -> AsyncIterator[Replay]:
    """The recorded day, whose time stands still at 22:00, unless the test moves the clock."""
    clock.now = AT_22
    async with Replay(recorded_day(), clock=clock) as running:
        yield running


def _log_without_debug() -> None:
    # A line for each request takes a sixth of the time of a page.
    structlog.reset_defaults()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))


_log_without_debug()


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    yield
    _log_without_debug()


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
