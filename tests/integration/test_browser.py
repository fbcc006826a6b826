"""The landing page in Debian's Chromium, as a person sees it."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright, expect

from chutes_exporter.page.exporter import Exporter
from chutes_exporter.simulator import Fault, Simulator
from chutes_exporter.web.app import make_app
from chutes_exporter.web.config_file import WebConfig
from chutes_exporter.web.guard import Guard
from tests.support import HOTKEY, PATIENCE, get, served, watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser

_PATIENCE = 1000 * PATIENCE
"""Milliseconds."""
expect.set_options(timeout=_PATIENCE)
_QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-sandbox",
)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=_QUIET, timeout=_PATIENCE
        )
        try:
            yield running
        finally:
            await running.close()


@contextlib.asynccontextmanager
async def guarded(simulator: Simulator) -> AsyncIterator[str]:
    """Serve the exporter as the command does, headers included."""
    async with Exporter(watching(simulator.url)) as exporter:
        guard = Guard(make_app(exporter))
        guard.adopt(WebConfig())
        async with served(guard) as url:
            yield url


@pytest.mark.parametrize(("width", "scripts"), [(1280, False), (340, True)])
async def test_the_landing_page_serves_a_person_in_any_window_and_without_scripts(
    simulator: Simulator,
    browser: Browser,
    width: int,
    scripts: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    simulator.faults["scores"] = Fault(status=503)
    async with guarded(simulator) as url:
        await get(f"{url}/metrics")
        context = await browser.new_context(viewport={"width": width, "height": 800}, java_script_enabled=scripts)
        context.set_default_timeout(_PATIENCE)
        page = await context.new_page()
        problems: list[str] = []
        requested: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        await page.goto(url)
        await page.screenshot(path=tmp_path / "landing.png", full_page=True)
        await expect(page.get_by_role("heading", name="chutes-exporter")).to_be_visible()
        short = page.get_by_text("5GNoc…1Wti", exact=True).first
        await expect(short).to_be_visible()
        await expect(short).to_have_attribute("title", HOTKEY)
        await expect(page.get_by_text("503 simulated fault").first).to_be_visible()
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
        await context.close()
