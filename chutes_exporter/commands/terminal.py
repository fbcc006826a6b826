"""Text and tables for a terminal."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.rules.sums import product

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_UNLIMITED = 1_000_000
_GAP = "  "
_CUT_PART = 7
"""A column that can be cut gets at least this part of the width, a seventh, if it has such long
texts.
"""
_MAX_DECIMALS = 6
_LONG = 1e15
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d):\d\d(\.\d+)?(\+00:00|Z)")


def printable(text: str) -> str:
    """Return text without control characters, because text of the API could control the
    terminal.
    """
    return "".join(character if character.isprintable() else " " for character in text)


def say(text: str, *, indent: str = "", start: str = "", **style: Any) -> None:
    """Print text that may come from the API, folded to the width of the terminal, or to 80
    columns.
    """
    width = shutil.get_terminal_size().columns
    # A name with a hyphen stays in one piece.
    for line in textwrap.wrap(
        printable(text),
        width,
        initial_indent=start,
        subsequent_indent=indent,
        break_on_hyphens=False,
    ):
        click.echo(click.style(line, **style))


@dataclass
class _Column:
    """A column of a table.

    Attributes:
        lines: The lines of its heading.
        cells: The texts below it.
        width: The width that it gets.
    """

    heading: str
    lines: list[str]
    cells: list[str]
    has_numbers: bool
    width: int = 0

    @property
    def full_width(self) -> int:
        """The width that shows every text whole."""
        return max(len(text) for text in (*self.lines, *self.cells))

    def texts(self, height: int) -> list[str]:
        """Return all its lines, with a heading of this height. A lower heading begins lower."""
        missing = height - len(self.lines)
        return [*[""] * missing, *self.lines, *self.cells]

    def aligned(self, text: str) -> str:
        """Return a text in the width of the column."""
        text = _shortened(text, self.width)
        return text.rjust(self.width) if self.has_numbers else text.ljust(self.width)


def print_table(
    rows: Sequence[Mapping[str, Any]],
    *,
    cut: Collection[str] = (),
    fit: bool = True,
    indent: str = "",
) -> list[str]:
    """Print a table as wide as the terminal, or as ``COLUMNS``. Without both, its width is
    unlimited.

    Columns with numbers are aligned to the right, with one number of decimals each. To fit the
    width, it shortens the texts of the columns in ``cut``, and leaves out the last columns, whose
    headings it returns.
    """
    limit = _UNLIMITED
    if fit:
        limit = shutil.get_terminal_size((_UNLIMITED, 0)).columns - len(indent)
    columns = _columns_of(rows)
    if _line_width([column.full_width for column in columns]) > limit:
        for column in columns:
            # A heading is folded after each word.
            column.lines = re.split("(?<=_)| ", column.heading)
    left_out = _set_widths(columns, limit, cut)
    height = max((len(column.lines) for column in columns), default=0)
    lines = zip(*(column.texts(height) for column in columns), strict=True)
    for number, texts in enumerate(lines):
        cells = [column.aligned(text) for column, text in zip(columns, texts, strict=True)]
        click.echo(click.style(indent + _GAP.join(cells).rstrip(), bold=number < height))
    return left_out


def _columns_of(rows: Sequence[Mapping[str, Any]]) -> list[_Column]:
    headings = dict.fromkeys(heading for row in rows for heading in row)
    columns = []
    for heading in headings:
        values = [row.get(heading) for row in rows]
        has_numbers = any(type(value) in (int, float) for value in values)
        columns.append(_Column(heading, [heading], _cells(values), has_numbers))
    return columns


def _set_widths(columns: list[_Column], limit: int, cut: Collection[str]) -> list[str]:
    """Set the widths of columns so that a line fits, and remove the last columns that do not fit.
    Return their headings.
    """
    for column in columns:
        column.width = column.full_width
        if column.heading in cut:
            least = max(len(column.heading), limit // _CUT_PART)
            column.width = min(column.width, least)
    left_out: list[str] = []
    spare = limit - _line_width([column.width for column in columns])
    while spare < 0 and len(columns) > 1:
        left_out.insert(0, columns.pop().heading)
        spare = limit - _line_width([column.width for column in columns])
    # The first of the cut columns get the spare width. The others have theirs.
    for column in columns:
        more = min(column.full_width - column.width, max(0, spare))
        column.width += more
        spare -= more
    return left_out


def _line_width(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def print_first(
    rows: Sequence[Mapping[str, Any]], count: int, what: str, *, cut: Collection[str]
) -> None:
    """Print a table of the first rows, and name the columns and the number of rows that are not
    shown.
    """
    hidden = print_table(rows[:count], cut=cut)
    if len(rows) > count:
        hidden.insert(0, f"{len(rows) - count} more {what}")
    if hidden:
        say(f"Not shown: {', '.join(hidden)}. --json has everything.")


def moment(time: float) -> str:
    """Return a Unix time as text."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M} UTC"


def iso_time(time: float | None) -> str | None:
    """Return a Unix time as text for scripts, None if it is unknown."""
    return None if time is None else datetime.fromtimestamp(time, UTC).isoformat()


def percent(ratio: float | None) -> str:
    """Return a ratio with three digits, or a dash if it is unknown or too large for a number."""
    value = product(100, ratio)
    return "-" if value is None else f"{value:.3g} %"


def whole_percent(ratio: float | None) -> int | None:
    """Return a ratio as a whole number, None if it is unknown or too large for a number."""
    value = product(100, ratio)
    return None if value is None else round(value)


def cell_text(value: Any) -> str:
    """Return a value as a table shows it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.10g}"
        case list() | dict():
            return printable(json.dumps(value, ensure_ascii=False))
        case str() if time := _TIME.fullmatch(value):
            return f"{time[1]}Z"
        case _:
            return printable(str(value))


def _cells(values: Sequence[Any]) -> list[str]:
    """Return the texts of a column. A typical number that is not whole has three significant
    digits.
    """
    fractions = [
        abs(value) for value in values if isinstance(value, float) and not value.is_integer()
    ]
    digits = 0
    if fractions:
        magnitude = math.floor(math.log10(statistics.median(fractions)))
        digits = min(max(2 - magnitude, 0), _MAX_DECIMALS)
    texts = []
    for value in values:
        if isinstance(value, float) and abs(value) < _LONG:
            texts.append(f"{value:.{digits}f}")
        else:
            texts.append(cell_text(value))
    return texts


def _shortened(text: str, width: int) -> str:
    """Return a text with … for its middle if it is too long, because names often differ at the
    end.
    """
    if len(text) <= width:
        return text
    return f"{text[: width // 2]}…{text[width // 2 + 1 - width :]}"
