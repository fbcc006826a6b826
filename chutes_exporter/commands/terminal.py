"""Text and tables for a terminal."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Row = dict[str, Any]
"""A row of a table. Its keys are the headings on the screen and the names in the JSON."""

_UNLIMITED = 1_000_000
"""The width of a terminal that leaves out no columns."""
_GAP = "  "
"""Text between two columns."""
_MAX_DECIMALS = 6
_LONG = 1e15
"""A float from here on is written with an exponent, so that huge numbers stay short."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d):\d\d(\.\d+)?(\+00:00|Z)")
"""A time in UTC such as ``2026-03-01T12:34:56.789Z``. The first group ends with its minute."""


def printable(text: str) -> str:
    """Return text of the API without control characters, which could control a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def say(text: str, *, indent: str = "", start: str = "", **style: Any) -> None:
    """Print text that may come from the API, folded to the width of the terminal, or to 80
    columns. Without text, it prints nothing.

    ``start`` comes before the first line, and ``indent`` before the others. The style is that of
    click.style.
    """
    lines = textwrap.wrap(
        printable(text),
        shutil.get_terminal_size().columns,
        initial_indent=start,
        subsequent_indent=indent,
        break_on_hyphens=False,  # a name with a hyphen stays in one piece
    )
    for line in lines:
        click.echo(click.style(line, **style))


class _Column:
    """A column of a table: the lines of its heading, and the texts below it."""

    def __init__(self, heading: str, rows: Sequence[Row], most: int) -> None:
        values = [row.get(heading) for row in rows]
        self.heading = heading
        self.heading_lines = [heading]
        self.cells = _cells(values[:most])
        # With isinstance, a bool would be a number.
        types = {*map(type, values)}
        self.is_known = types != {type(None)}
        self._align = str.rjust if types & {int, float} else str.ljust

    @property
    def width(self) -> int:
        return max(len(text) for text in (*self.heading_lines, *self.cells))

    def fold_heading(self) -> None:
        """Fold the heading between its words, as its cells need the width anyway."""
        words = self.heading.replace("_", " ")
        self.heading_lines = textwrap.wrap(words, max(map(len, (*words.split(), *self.cells))))

    def texts(self, height: int) -> list[str]:
        """Return all lines in the width of the column, with a heading of this height."""
        empty_lines = [""] * (height - len(self.heading_lines))
        width = self.width
        return [
            self._align(text, width) for text in (*empty_lines, *self.heading_lines, *self.cells)
        ]


def print_table(
    rows: Sequence[Row] | None,
    headings: Iterable[str] = (),
    *,
    title: str = "",
    most: int = _UNLIMITED,
    fit: bool = True,
) -> None:
    """Print a table that fits the terminal, and below it what is not shown: the rows after the
    first ``most``, and the last columns, if they do not fit. Without rows, print nothing.

    By default, the keys of the first row are the headings. A column in which nothing is known is
    left out. Columns with numbers are aligned to the right, with the same number of decimals in all
    rows.

    The width is that of the variable ``COLUMNS``, otherwise that of the terminal. Without both, or
    without ``fit``, it is unlimited, and no column is left out.
    """
    if not rows:
        return
    if title:
        click.echo()
        say(title, bold=True)
    columns = [_Column(heading, rows, most) for heading in headings or rows[0]]
    not_shown = []
    if len(rows) > most:
        not_shown.append(f"{len(rows) - most} of {len(rows)} rows")
    if fit:
        not_shown += _fit_to_terminal(columns)
    _print_columns(columns)
    if not_shown:
        say(f"Not shown: {', '.join(not_shown)}. --json has everything.")


def _print_columns(columns: Sequence[_Column]) -> None:
    height = max((len(column.heading_lines) for column in columns), default=0)
    texts_by_column = [column.texts(height) for column in columns]
    for number, texts in enumerate(zip(*texts_by_column, strict=True)):
        line = _GAP.join(texts).rstrip()
        click.echo(click.style(line, bold=number < height))


def _fit_to_terminal(columns: list[_Column]) -> list[str]:
    """Leave out columns in which nothing is known, and make the others fit the terminal: fold their
    headings, then leave out the last ones. Return the headings of these.
    """
    columns[:] = [column for column in columns if column.is_known]
    # The fallback counts if there is neither COLUMNS nor a terminal.
    limit = shutil.get_terminal_size(fallback=(_UNLIMITED, 0)).columns
    if _line_width(columns) > limit:
        for column in columns:
            column.fold_heading()
    left_out: list[str] = []
    while len(columns) > 1 and _line_width(columns) > limit:
        left_out.insert(0, columns.pop().heading)
    return left_out


def _line_width(columns: Sequence[_Column]) -> int:
    return sum(column.width + len(_GAP) for column in columns) - len(_GAP)


def iso_time(time: float | None) -> str | None:
    """Return a Unix time as text for scripts, None if it is unknown."""
    return None if time is None else datetime.fromtimestamp(time, UTC).isoformat()


def cell_text(value: Any) -> str:
    """Return a value as a table shows it. A time loses its seconds, a float has at most ten digits,
    and a list, such as a server's GPUs, is only counted.
    """
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.10g}"
        case dict():
            return printable(json.dumps(value, ensure_ascii=False))
        case str() if time := _TIME.fullmatch(value):
            return f"{time[1]}Z"
        case list():
            value = len(value)
    return printable(str(value))


def _cells(values: Sequence[Any]) -> list[str]:
    """Return the texts of a column, in which all floats have the same number of decimals.

    The number of decimals gives three significant digits to the median of the floats that are not
    whole. There are no decimals if all floats are whole.
    """
    fractions = [
        abs(value) for value in values if isinstance(value, float) and not value.is_integer()
    ]
    decimals = 0
    if fractions:
        # The power of ten of the first digit: 0 for 1.5, and -2 for 0.015.
        exponent = math.floor(math.log10(statistics.median(fractions)))
        decimals = min(max(2 - exponent, 0), _MAX_DECIMALS)
    texts = []
    for value in values:
        # A huge float gets an exponent instead, from cell_text.
        if isinstance(value, float) and abs(value) < _LONG:
            texts.append(f"{value:.{decimals}f}")
        else:
            texts.append(cell_text(value))
    return texts
