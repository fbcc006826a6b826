"""Exporters in the process of a test: their settings, their pages, and their requests."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from chutes_exporter.config import Address, Settings, make_settings
from chutes_exporter.feeds.definitions import AUDIT_REPORT
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.web.app import make_app
from chutes_exporter.web.server import bound_address, open_socket, serving
from tests.pages import Page, parse_page
from tests.support import AT_22, KEY, PATIENCE, Clock, get, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import ASGIApp

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.api.endpoint import Endpoint
    from chutes_exporter.api.keys import Hotkey


def asked_by(exporter: Exporter) -> set[str]:
    """Return the names of the feeds with a request in flight."""
    return {state.feed.name for state in exporter.feeds.states().values() if state.flight}


def hold(exporter: Exporter, endpoint: str) -> asyncio.Event:
    """Let the requests to an endpoint wait until the returned event is set."""
    fetch = exporter.client.fetch
    release = asyncio.Event()

    async def held(asked: Endpoint[Any], **more: Any) -> Answer[Any]:
        if asked.name == endpoint:
            await release.wait()
        return await fetch(asked, **more)

    exporter.client.fetch = held  # type: ignore[assignment, method-assign]
    return release


async def page_of(exporter: Exporter, timeout: float = PATIENCE) -> Page:
    """Return an exporter's metrics page."""
    return parse_page((await exporter.metrics(Format.TEXT, timeout=timeout)).decode())


async def read_reports(exporter: Exporter) -> None:
    """Let an exporter read all audit reports of the day.

    The feed reads one report at a time, and is due for the next one only after a pause. Expiring
    its answer leaves out the pause.
    """
    while True:
        await exporter.feeds.read_all([AUDIT_REPORT], PATIENCE)
        await until(lambda: AUDIT_REPORT.name not in asked_by(exporter))
        snapshot = exporter.feeds.peek(AUDIT_REPORT)
        if snapshot is None or not snapshot.answer.value.unread:
            return
        exporter.feeds.expire(AUDIT_REPORT)


@contextlib.asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application on a free port; yields its base address."""
    with open_socket(Address("127.0.0.1", 0)) as socket:
        async with serving(app, [socket]):
            yield f"http://{bound_address(socket)}"


@contextlib.asynccontextmanager
async def served_exporter(
    settings: Settings, clock: Callable[[], float] | None = None, **more: Callable[[], float]
) -> AsyncIterator[tuple[str, Exporter]]:
    """Serve an exporter on a free port; yields its base address and itself.

    Without a clock, its time stands still at 22:00 of the recorded day. ``more`` is for its other
    clock, `monotonic`.
    """
    async with (
        Exporter(settings, clock=clock or Clock(AT_22), **more) as exporter,
        served(make_app(exporter)) as url,
    ):
        yield url, exporter


async def scrape(settings: Settings, clock: Clock | None = None) -> Page:
    """Scrape a new exporter once, over a socket."""
    async with served_exporter(settings, clock) as (url, _):
        response = await get(f"{url}/metrics")
    assert response.status_code == 200
    return parse_page(response.text)


def patient(url: str, **more: Any) -> Settings:
    """Return settings of an exporter that waits for the API as long as a busy machine needs."""
    return make_settings(api_url=url, **{"api_timeout": PATIENCE, **more})


def watching(url: str, *keys: Hotkey, **more: Any) -> Settings:
    """Return the settings of an exporter that watches the miners of some keys, or the test
    key's.
    """
    return patient(url, keys=keys or (KEY,), **more)
