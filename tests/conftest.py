from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import structlog
import trustme

from chutes_exporter.simulator import Simulator, Size, World
from tests.reaper import continue_in_child
from tests.simulator.odd import OddWorld
from tests.support import NOON, Clock, Pki, examples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

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
)
"""The files that take longest. They start first, so that all processes end at about the same time."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = [Path(__file__).parent / name for name in _LONG]
    items.sort(key=lambda item: first.index(item.path) if item.path in first else len(first))
    for item in items:
        # The tests of a process share its costly fixtures.
        shares_worlds = "answers" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("worlds" if shares_worlds else str(item.path)))


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
