"""Draws the dashboards of the recorded day with Grafana's own components: `python -m grafana.draw`.

Every query of the dashboards' JSON is asked as tests/grafana/answers.py does. CONTRIBUTING.md shows
how to draw for a look.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from playwright.async_api import async_playwright

from grafana.dashboard import BOARD_ORDER
from grafana.variables import VARIABLES
from tests.day import DAY, LAST, Pages, day_of_both, evaluate, scraped_day
from tests.grafana.answers import QUERIES, STEP, as_sent, filled_in, targets_of
from tests.grafana.display import PANELS, committed
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from playwright.async_api import Page, Route

    from tests.promtool import Answer

PICTURES: Final = ROOT / "grafana" / "pictures"
RENDER: Final = ROOT / "grafana" / "render"
CACHE: Final = ROOT / ".cache" / "pictures"
SCRIPT: Final = CACHE / "page.js"
WIDTH: Final = 1600


@dataclass(frozen=True)
class World:
    """A miner whose boards are drawn at the end of the day, and how the exporter watches it.

    Attributes:
        miner: The name of the miner in the recording.
        suffix: How the names of the README's pictures end.
        uids: The boards of the README's pictures.
        has_key: Whether the exporter has the miner's key.
        down: The first minute at which the exporter is down.
    """

    miner: str
    suffix: str
    uids: Sequence[str]
    has_key: bool = True
    down: int = LAST + 1


WORLDS: Final = {
    "sick": World("troubled", "-sick", [*BOARD_ORDER]),
    "healthy": World("healthy", "", ["chutes-overview"]),
    "keyless": World("troubled", "-keyless", ["chutes-overview"], has_key=False),
    "down": World("troubled", "-down", [], down=LAST - 25),
}
"""By name. All other pictures are drawn on demand, with --output."""
MINUTES: Final = range(0, LAST + 1, STEP // 60)
"""The points of graphs."""
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

    world: str
    uid: str
    png: bytes
    cut: Sequence[str]


def pages_of(name: str) -> Pages:
    """Return the pages of a world's day, which are kept for --reuse."""
    world, file = WORLDS[name], CACHE / f"{name}.json"
    if world.has_key:
        pages = day_of_both()
    else:
        pages = asyncio.run(scraped_day(MINUTES, keys=(), hotkeys=[world.miner]))
    CACHE.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(pages))
    return pages


def make_requests(name: str, pages: Pages, uids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Ask everything that boards ask about a world, and return by uid what page.jsx needs."""
    world = WORLDS[name]
    hotkey = DAY.miners[world.miner].address
    # A query of a graph is about the end of the graph. Here, each of its points is asked alone.
    asked = {
        place: filled_in(query, [hotkey]).replace("@ end()", f"@ {60 * LAST + 300}")
        for place, query in QUERIES.items()
    }
    minutes: dict[str, Collection[int]] = dict.fromkeys(asked.values(), (LAST,))
    for uid, panel in PANELS:
        graphs = (place for place, target in targets_of(panel, uid).items() if target["range"])
        minutes |= {asked[place]: MINUTES for place in graphs}
    answers = evaluate(pages, down=world.down, queries=minutes).answers
    found = {place: answers[query] for place, query in asked.items()}
    return {uid: _request(uid, found, hotkey) for uid in uids}


def _request(uid: str, answers: Mapping[str, Mapping[int, Answer]], hotkey: str) -> dict[str, Any]:
    """Return what ``window.draw`` in page.jsx gets, to draw a dashboard about a miner.

    ``answers`` has those of each minute by the name of the query.
    """
    of_panels: dict[int, dict[str, Any]] = defaultdict(dict)
    for panel in [panel for board, panel in PANELS if board == uid]:
        for name, target in targets_of(panel, uid).items():
            # A graph shows the whole day, and all else its end.
            shown = answers[name] if target["range"] else {LAST: answers[name][LAST]}
            sent = as_sent(shown, is_range=target["range"])
            of_panels[panel["id"]][target["refId"]] = sent
    variables = dict.fromkeys(VARIABLES, "All") | {"hotkey": hotkey, "miner": hotkey}
    for labels in answers["variable report"][LAST]:
        variables["report"] = dict(labels)["hour"]
    return {
        "dashboard": committed(uid),
        "answers": of_panels,
        "step": STEP,
        "variables": variables,
        "range": {"from": 0, "to": 60_000 * LAST},
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
    modules = RENDER.parent / "node_modules"
    name = path.rpartition("/")[2]
    if name in FONTS:
        weight = FONTS[name]
        return modules / "@fontsource" / "inter" / "files" / f"inter-latin-{weight}-normal.woff2"
    if path.startswith("/public/build/img/"):
        public = modules / "@grafana" / "ui" / "dist" / "public"
        return public / path.removeprefix("/public/build/")
    return SCRIPT.parent / name


async def draw_boards(
    requests: dict[str, dict[str, dict[str, Any]]], width: int, *, opened: bool
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
        for world, request_of_board in requests.items():
            for uid, request in request_of_board.items():
                options = {"width": width, "open": opened}
                picture = await _draw(tab, world, uid, request | options)
                pictures.append(picture)
                note = f"; cut titles: {', '.join(picture.cut)}" if picture.cut else ""
                print(f"{uid}, {world}: {len(picture.png) / 1000:.0f} kB{note}")
        await browser.close()
    if failures:
        raise ValueError(f"the page failed: {failures}")
    return pictures


async def _draw(tab: Page, world: str, uid: str, request: dict[str, Any]) -> Picture:
    """Let page.jsx draw a board in the browser, and take a picture of it."""
    # The function of page.jsx returns the titles and headings that are cut.
    cut_titles = await tab.evaluate("request => window.draw(request)", request)
    await tab.wait_for_load_state("networkidle")
    png = await tab.locator("#dashboard").screenshot(type="png")
    return Picture(world, uid, png, cut_titles)


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
        name = f"{picture.uid}{WORLDS[picture.world].suffix}.png"
        (PICTURES / name).write_bytes(compressed(picture.png))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line, with the defaults filled in."""
    parser = argparse.ArgumentParser(
        prog="python -m grafana.draw", description="Draw the dashboards with Grafana's components."
    )
    parser.add_argument(
        "--board", action="append", choices=[*BOARD_ORDER], help="only this board; may be repeated"
    )
    parser.add_argument(
        "--world", action="append", choices=[*WORLDS], help="only this world; needs --output"
    )
    parser.add_argument("--width", type=int, help=f"in pixels, instead of {WIDTH}; needs --output")
    parser.add_argument("--open", action="store_true", help="open collapsed rows; needs --output")
    parser.add_argument(
        "--output", type=Path, help="a directory for the pictures, instead of grafana/pictures/"
    )
    parser.add_argument(
        "--reuse", action="store_true", help="use the pages of metrics of the last time"
    )
    parsed = parser.parse_args(arguments)
    if parsed.output is None and (parsed.world or parsed.width or parsed.open):
        parser.error("--world, --width and --open need --output")
    parsed.board = parsed.board or [*BOARD_ORDER]
    parsed.width = parsed.width or WIDTH
    parsed.world = parsed.world or [*WORLDS]
    return parsed


def main() -> None:
    """Ask everything, and draw the boards.

    Without --output, only the README's pictures are drawn.
    """
    chosen = parse_arguments()
    requests = {}
    for world in chosen.world:
        boards = chosen.board
        if chosen.output is None:
            boards = [uid for uid in boards if uid in WORLDS[world].uids]
        file = CACHE / f"{world}.json"
        if chosen.reuse and file.exists():
            pages = {int(minute): page for minute, page in json.loads(file.read_text()).items()}
        else:
            pages = pages_of(world)
        requests[world] = make_requests(world, pages, boards)
    subprocess.run(["node", str(RENDER / "build.mjs"), str(SCRIPT)], check=True)
    pictures = asyncio.run(draw_boards(requests, chosen.width, opened=chosen.open))
    if chosen.output is None:
        write_for_readme(pictures)
        return
    chosen.output.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        name = f"{picture.uid}-{picture.world}-{chosen.width}.png"
        (chosen.output / name).write_bytes(picture.png)


if __name__ == "__main__":
    main()
