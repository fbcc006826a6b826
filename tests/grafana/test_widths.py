"""Titles of panels, names of rows and headings of columns are seen whole on every screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from grafana.boards import BOARDS
from tests.grafana.display import committed, panels

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHARACTERS: Final = (
    " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~…"
)
_ADVANCES: Final = (
    "267 304 494 639 646 993 653 313 369 369 521 667 303 462 303 370 646 415 616 627 656 603 630 571 "
    "629 630 303 315 667 667 667 527 982 709 657 733 722 603 589 748 745 272 575 688 565 913 756 767 "
    "642 769 648 646 653 740 709 1003 701 696 641 369 370 369 477 463 337 568 618 577 618 587 379 620 "
    "602 252 252 559 252 888 602 604 618 618 387 539 340 602 575 829 557 575 559 440 346 440 667 910"
)
ADVANCES: Final = dict(zip(_CHARACTERS, map(int, _ADVANCES.split()), strict=True))
"""Widths of characters in thousandths of the font's size: Inter, medium weight, which Grafana uses for headings."""
TITLE: Final = 14
ROW: Final = 16
"""Font sizes in pixels."""
NARROW_GRID: Final = 768
"""Pixels of the narrowest grid that has columns. On narrower screens, panels are below each other."""
PHONE: Final = 400
"""Pixels of the narrowest screen for which the boards are made."""
WIDE: Final = 1600
PAGE: Final = 2 * 16
"""Pixels beside the grid."""
CHROME: Final = 2 + 2 * 8 + 32
"""Pixels that a panel needs beside its title: its border, the space around the title, and the description's icon."""
NUMBER_CHROME: Final = 2 + 2 * 8
"""Pixels around the numbers of a panel, and around each number."""
NUMBER_PADDING: Final = 2 * 8
FRAME: Final = 2
ROW_CHROME: Final = 120
"""Pixels beside the name of a row: its arrow and the number of its panels."""
CELL: Final = 2 * 6 + 4
"""Pixels around the heading of a column."""
ARROW: Final = 4 + 20
"""Pixels of the arrow of the column that orders a table."""


def text_width(text: str, size: int) -> float:
    return sum(ADVANCES[character] for character in text) * size / 1000


def panel_width(panel: dict[str, Any], screen: int) -> float:
    grid = screen - PAGE
    if grid < NARROW_GRID:
        return grid
    columns: int = panel["gridPos"]["w"]
    return (grid - 23 * 8) / 24 * columns + 8 * (columns - 1)


def each_panel() -> Iterator[tuple[str, dict[str, Any]]]:
    for board in BOARDS:
        for panel in panels(committed(board.uid)):
            yield board.uid, panel


def columns_of(panel: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the shown columns of a table: heading and options."""
    for override in panel["fieldConfig"]["overrides"]:
        options = {one["id"]: one["value"] for one in override["properties"]}
        if not options.get("custom.hidden"):
            yield override["matcher"]["options"], options


def test_the_widths_of_characters_are_those_of_the_font() -> None:
    # Chromium measures 140.3 pixels, with kerning.
    assert abs(text_width("GPU-hours lost, 24 h", 14) - 140.3) < 1.5


def test_titles_are_seen_whole_on_a_wide_screen_a_narrow_grid_and_a_phone() -> None:
    cut = {
        (uid, panel["title"]): (round(text_width(panel["title"], TITLE)), round(panel_width(panel, screen) - CHROME))
        for uid, panel in each_panel()
        for screen in (WIDE, NARROW_GRID + PAGE, PHONE)
        if text_width(panel["title"], TITLE) > panel_width(panel, screen) - CHROME
    }
    assert cut == {}


def test_names_beside_large_numbers_are_seen_whole() -> None:
    cut = set()
    for uid, panel in each_panel():
        if panel["type"] == "stat":
            names = [target["legendFormat"] for target in panel["targets"]]
            for screen in (WIDE, NARROW_GRID + PAGE, PHONE):
                available = (panel_width(panel, screen) - NUMBER_CHROME) / len(names) - NUMBER_PADDING
                cut |= {(uid, panel["title"], name) for name in names if text_width(name, TITLE) > available}
    assert cut == set()


def test_names_of_rows_are_seen_whole_on_a_phone() -> None:
    rows = [panel["title"] for board in BOARDS for panel in committed(board.uid)["panels"] if panel["type"] == "row"]
    assert [title for title in rows if text_width(title, ROW) > PHONE - PAGE - ROW_CHROME] == []
    assert rows


def test_headings_of_columns_are_seen_whole() -> None:
    cut = {}
    for uid, panel in each_panel():
        if panel["type"] != "table":
            continue
        sorted_by = {one["displayName"] for one in panel["options"]["sortBy"]}
        for heading, options in columns_of(panel):
            needed = text_width(heading, TITLE) + CELL + (ARROW if heading in sorted_by else 0)
            if options.get("custom.minWidth", 0) < needed:
                cut[uid, panel["title"], heading] = round(needed)
    assert cut == {}


def test_tables_need_no_scrolling_on_a_wide_screen() -> None:
    scrolled = {}
    for uid, panel in each_panel():
        if panel["type"] == "table":
            needed = sum(options["custom.minWidth"] for _, options in columns_of(panel))
            if needed > (available := panel_width(panel, WIDE) - FRAME):
                scrolled[uid, panel["title"]] = (needed, round(available))
    assert scrolled == {}
