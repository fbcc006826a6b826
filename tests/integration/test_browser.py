"""The landing page in Debian's Chromium, as a person sees it."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import async_playwright, expect

from chutes_exporter.page.exporter import Exporter
from chutes_exporter.web.app import make_app
from chutes_exporter.web.config_file import WebConfig
from chutes_exporter.web.guard import Guard
from tests.exporters import served, watching
from tests.replay import Fault, Replay
from tests.support import HOTKEY, PATIENCE, get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page

_PATIENCE = 1000 * PATIENCE
"""Milliseconds."""
expect.set_options(timeout=_PATIENCE)
_QUIET = (
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-sandbox",
)


@contextlib.asynccontextmanager
async def browsing(replay: Replay, **options: Any) -> AsyncIterator[tuple[str, Page]]:
    """Serve the exporter as the command does, headers included; yields its address, and a page of a
    browser.
    """
    async with Exporter(watching(replay.url)) as exporter, async_playwright() as playwright:
        guard = Guard(make_app(exporter))
        guard.adopt(WebConfig())
        async with served(guard) as url:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=_QUIET, timeout=_PATIENCE
            )
            try:
                yield url, await browser.new_page(**options)
            finally:
                await browser.close()


@pytest.mark.parametrize(("width", "scripts"), [(1280, False), (340, True)])
async def test_the_landing_page_serves_a_person_in_any_window_and_without_scripts(
    replay: Replay,
    width: int,
    scripts: bool,  # noqa: FBT001
) -> None:
    replay.faults["scores"] = Fault(status=503)
    window = {"width": width, "height": 800}
    async with browsing(replay, viewport=window, java_script_enabled=scripts) as (url, page):
        page.set_default_timeout(_PATIENCE)
        await get(f"{url}/metrics")
        problems: list[str] = []
        requested: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        await page.goto(url)
        await expect(page.get_by_role("heading", name="chutes-exporter")).to_be_visible()
        await expect(page.get_by_text(HOTKEY).first).to_be_visible()
        await expect(page.get_by_text("503 injected fault").first).to_be_visible()
        # Nothing is loaded from anywhere, and nothing is forbidden by the page's own policy.
        assert [one for one in requested if not one.startswith(url)] == []
        assert [one for one in problems if "favicon" not in one] == []
        # Nothing sticks out of the window.
        for table in await page.locator("table").all():
            box = await table.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        if scripts:
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
