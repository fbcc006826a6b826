"""Draws the dashboards with Grafana's own components: `make pictures`.

It simulates a day of each world of tests/grafana/scenes.py, and asks a real Prometheus every query
of the dashboards' JSON. The data of that Prometheus stays in .cache/pictures/ for --reuse.
CONTRIBUTING.md shows how to draw for a look.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from playwright.async_api import async_playwright

from grafana.parts import BOARD_ORDER
from grafana.worlds import World
from tests.grafana.display import committed, panels
from tests.grafana.scenes import END, FLEETS, ORDINARY, STEP, Answers, ask_everything, scene
from tests.support import ROOT, Prometheus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from playwright.async_api import Page, Route

PICTURES: Final = ROOT / "grafana" / "pictures"
RENDER: Final = ROOT / "grafana" / "render"
CACHE: Final = ROOT / ".cache" / "pictures"
SCRIPT: Final = CACHE / "page.js"
MINERS: Final = "miners.json"
"""The file beside the data of a Prometheus that names the miners of its world."""
WIDTH: Final = 1600


@dataclass(frozen=True)
class OfReadme:
    """The README's pictures of a world: how the names of their files end, and the boards."""

    suffix: str
    uids: Sequence[str]


README: Final = {
    World.SICK: OfReadme("-sick", [*BOARD_ORDER]),
    World.HEALTHY: OfReadme("", ["chutes-overview"]),
}
"""All other pictures are drawn on demand, with --output."""
HOURS: Final = [number * STEP / 3600 for number in range(25 * 3600 // STEP, -1, -1)]
"""When the scrapes of a day and an hour were, in hours before the end, the first one first.

So rules that look back a day have data at the end.
"""
ORIGIN: Final = "http://grafana.invalid"
PAGE: Final = (
    '<!doctype html><title>Dashboard</title><meta charset="utf-8">'
    '<link rel="stylesheet" href="/page.css"><script src="/page.js" defer></script><body>'
)
"""The document in which page.jsx draws."""
FONTS: Final = {"Inter-Regular.woff2": 400, "Inter-Medium.woff2": 500}
"""The weight of each font that Grafana's style sheet asks for."""


@dataclass(frozen=True)
class Picture:
    """The picture of a board in a world, with the titles and headings that are not seen whole."""

    kind: World
    uid: str
    png: bytes
    cut: Sequence[str]


def make_day(kind: World, directory: Path, gpus: int) -> None:
    """Simulate a day of a world with a number of GPUs, and leave the data of a Prometheus in a
    directory for `make_requests`, with a file that names the miners that the boards show.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)

    async def simulate() -> Answers:
        # With `readme`, the world is as pictures show it: one miner, which is also scraped in each
        # minute between these hours.
        async with scene(kind, directory, HOURS, readme=True, gpus=gpus) as day:
            # No query has been asked yet. `make_requests` asks those of the boards when it draws,
            # because with --reuse the boards may be newer than this day.
            return day.answers

    answers = asyncio.run(simulate())
    miners = {"hotkeys": answers.hotkeys, "gpus": answers.gpus, "scored": answers.scored}
    (directory / MINERS).write_text(json.dumps(miners))


def make_requests(directory: Path, uids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Ask the Prometheus in a directory everything that boards ask, and return by uid what page.jsx
    needs.
    """
    with Prometheus(directory) as prometheus:
        prometheus.at = END
        # The file has the miners only. The answers are asked for now.
        unasked = Answers(**json.loads((directory / MINERS).read_text()))
        answers = asyncio.run(ask_everything(prometheus, unasked))
    if answers.errors:
        raise ValueError(f"Prometheus refuses queries: {answers.errors}")
    return {uid: _request(committed(uid), answers) for uid in uids}


def _request(dashboard: dict[str, Any], answers: Answers) -> dict[str, Any]:
    """Return what page.jsx needs to draw a dashboard.

    The first value of each variable is chosen.
    """
    first_values = {name: values[0] for name, values in answers.variables.items() if values}
    return {
        "dashboard": dashboard,
        "answers": {panel["id"]: answers.of_panel(panel) for panel in panels(dashboard)},
        "step": STEP,
        "variables": first_values,
        "range": {"from": (END - 86400) * 1000, "to": END * 1000},
    }


async def _answer(route: Route) -> None:
    """Answer a request of the browser at `ORIGIN` from files.

    Nothing is fetched from anywhere else. A missing file fails, because the page would wait for an
    answer.
    """
    if not route.request.url.startswith(ORIGIN):
        await route.abort()
        return
    path = urlsplit(route.request.url).path
    if path == "/":
        await route.fulfill(body=PAGE, content_type="text/html")
        return
    file = _file_at(path)
    if file.is_file():
        await route.fulfill(path=file)
    else:
        await route.abort()


def _file_at(path: str) -> Path:
    """Return the file to send for a path: a font, an image of Grafana, or what was built for the
    page. It need not exist.
    """
    modules = RENDER / "node_modules"
    name = path.rpartition("/")[2]
    if name in FONTS:
        weight = FONTS[name]
        return modules / "@fontsource" / "inter" / "files" / f"inter-latin-{weight}-normal.woff2"
    if path.startswith("/public/build/img/"):
        public = modules / "@grafana" / "ui" / "dist" / "public"
        return public / path.removeprefix("/public/build/")
    return SCRIPT.parent / name


async def draw_boards(
    requests: dict[World, dict[str, dict[str, Any]]], width: int, *, opened: bool
) -> list[Picture]:
    """Draw the boards of each world.

    Args:
        requests: What page.jsx needs to draw a board, by world and by the board's uid.
        width: Of the pictures, in pixels.
        opened: Whether collapsed rows are opened.
    """
    failures: list[str] = []
    pictures: list[Picture] = []
    async with async_playwright() as playwright:
        arguments = [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
        ]
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        tab = await browser.new_page(viewport={"width": width, "height": 900})
        # A panel that throws an error is not shown. Without these, nobody would notice it.
        tab.on("pageerror", lambda error: failures.append(str(error)))
        tab.on("requestfailed", lambda request: failures.append(request.url))
        await tab.route("**/*", _answer)
        await tab.goto(f"{ORIGIN}/", wait_until="load")
        for kind, request_of_board in requests.items():
            for uid, request in request_of_board.items():
                options = {"width": width, "open": opened}
                picture = await _draw(tab, kind, uid, request | options)
                pictures.append(picture)
                note = f"; cut titles: {', '.join(picture.cut)}" if picture.cut else ""
                print(f"{uid}, {kind.name.lower()}: {len(picture.png) / 1000:.0f} kB{note}")
        await browser.close()
    if failures:
        raise ValueError(f"the page failed: {failures}")
    return pictures


async def _draw(tab: Page, kind: World, uid: str, request: dict[str, Any]) -> Picture:
    """Let page.jsx draw a board in the browser, and take a picture of it."""
    # The function of page.jsx returns the titles and headings that are cut.
    cut_titles = await tab.evaluate("request => window.draw(request)", request)
    await tab.wait_for_load_state("networkidle")
    png = await tab.locator("#dashboard").screenshot(type="png")
    return Picture(kind, uid, png, cut_titles)


def compressed(png: bytes) -> bytes:
    """Return a PNG with a palette of 256 colours, which is a third as large and looks the same."""
    command = ["node", str(RENDER / "compress.mjs")]
    return subprocess.run(command, input=png, check=True, capture_output=True).stdout


def write_for_readme(pictures: Sequence[Picture]) -> None:
    """Write pictures for the README, which must show every title and heading whole."""
    cut_titles = {picture.uid: picture.cut for picture in pictures if picture.cut}
    if cut_titles:
        raise ValueError(f"these titles and headings are cut: {cut_titles}")
    for picture in pictures:
        name = f"{picture.uid}{README[picture.kind].suffix}.png"
        (PICTURES / name).write_bytes(compressed(picture.png))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, with the defaults filled in. Worlds are given as `World`."""
    parser = argparse.ArgumentParser(
        prog="make pictures", description="Draw the dashboards with Grafana's components."
    )
    kinds = {kind.name.lower(): kind for kind in World}
    parser.add_argument(
        "--board", action="append", choices=[*BOARD_ORDER], help="only this board; may be repeated"
    )
    parser.add_argument(
        "--world", action="append", choices=list(kinds), help="only this world; needs --output"
    )
    parser.add_argument(
        "--gpus",
        type=int,
        choices=[*FLEETS],
        default=ORDINARY,
        help=f"GPUs of the miner in the sick world, instead of {ORDINARY}; needs --output",
    )
    parser.add_argument("--width", type=int, help=f"in pixels, instead of {WIDTH}; needs --output")
    parser.add_argument("--open", action="store_true", help="open collapsed rows; needs --output")
    parser.add_argument(
        "--output", type=Path, help="a directory for the pictures, instead of grafana/pictures/"
    )
    parser.add_argument(
        "--reuse", action="store_true", help="use the simulated days of the last time"
    )
    parsed = parser.parse_args(arguments)
    is_other_picture = parsed.world or parsed.width or parsed.open or parsed.gpus != ORDINARY
    if parsed.output is None and is_other_picture:
        parser.error("--world, --gpus, --width and --open need --output")
    if parsed.gpus != ORDINARY and parsed.world != ["sick"]:
        parser.error("--gpus needs --world sick, because the other worlds have other numbers")
    parsed.board = parsed.board or [*BOARD_ORDER]
    parsed.width = parsed.width or WIDTH
    if parsed.world:
        parsed.world = [kinds[name] for name in parsed.world]
    else:
        parsed.world = list(README)
    return parsed


def _simulated_day(kind: World, gpus: int, *, reuse: bool) -> Path:
    """Return the directory of a day of a world with a number of GPUs.

    Simulate it, unless the last one is reused.
    """
    directory = CACHE / f"{kind.name.lower()}-{gpus}"
    # `make_day` writes this file last, so that a day with it is whole.
    if not reuse or not (directory / MINERS).exists():
        began = time.monotonic()
        make_day(kind, directory, gpus)
        print(f"simulated a day, {kind.name.lower()}: {time.monotonic() - began:.0f} s")
    return directory


def main() -> None:
    """Make the worlds, ask everything, and draw the boards.

    Without --output, only the README's pictures are drawn.
    """
    chosen = parse_arguments()
    requests = {}
    for kind in chosen.world:
        boards = chosen.board
        if chosen.output is None:
            # `parse_arguments` allows --world only with --output, so the README has this world.
            boards = [uid for uid in boards if uid in README[kind].uids]
        directory = _simulated_day(kind, chosen.gpus, reuse=chosen.reuse)
        requests[kind] = make_requests(directory, boards)
    subprocess.run(["node", str(RENDER / "build.mjs"), str(SCRIPT)], check=True)
    pictures = asyncio.run(draw_boards(requests, chosen.width, opened=chosen.open))
    if chosen.output is None:
        write_for_readme(pictures)
        return
    chosen.output.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        name = f"{picture.uid}-{picture.kind.name.lower()}-{chosen.gpus}-{chosen.width}.png"
        (chosen.output / name).write_bytes(picture.png)


if __name__ == "__main__":
    main()
