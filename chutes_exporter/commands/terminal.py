"""Text and tables for a terminal."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
import textwrap
from datetime import UTC, datetime
from itertools import zip_longest
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
    width = (shutil.get_terminal_size((_UNLIMITED, 0)).columns if fit else _UNLIMITED) - len(indent)
    shown = list(dict.fromkeys(head for row in rows for head in row))
    cells = {head: _cells([row.get(head) for row in rows]) for head in shown}
    heads = {head: [head] for head in shown}
    if _line_width([max(map(len, (head, *cells[head]))) for head in shown]) > width:
        # Headings are folded after each word.
        heads = {head: re.split("(?<=_)| ", head) for head in shown}
    full = {head: max(map(len, (*heads[head], *cells[head]))) for head in shown}
    least = {
        head: max(len(head), width // _CUT_PART) if head in cut else full[head] for head in shown
    }
    widths = {head: min(full[head], least[head]) for head in shown}
    left_out: list[str] = []
    while (spare := width - _line_width([widths[head] for head in shown])) < 0 and len(shown) > 1:
        left_out.insert(0, shown.pop())
    # The first of the cut columns get the spare width. The others have theirs.
    for head in shown:
        more = min(full[head] - widths[head], max(0, spare))
        widths[head] += more
        spare -= more
    # Headings with fewer lines begin lower.
    headings = [*zip_longest(*(reversed(heads[head]) for head in shown), fillvalue="")][::-1]
    numbers = {head for head in shown if any(type(row.get(head)) in (int, float) for row in rows)}
    for index, line in enumerate((*headings, *zip(*(cells[head] for head in shown), strict=True))):
        texts = [
            f"{_shortened(text, widths[head]):{'>' if head in numbers else '<'}{widths[head]}}"
            for head, text in zip(shown, line, strict=True)
        ]
        click.echo(click.style(indent + _GAP.join(texts).rstrip(), bold=index < len(headings)))
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
    magnitude = math.floor(math.log10(statistics.median(fractions))) if fractions else 2
    digits = min(max(2 - magnitude, 0), _MAX_DECIMALS)
    return [
        f"{value:.{digits}f}"
        if isinstance(value, float) and abs(value) < _LONG
        else cell_text(value)
        for value in values
    ]


def _shortened(text: str, width: int) -> str:
    """Return a text with … for its middle if it is too long, because names often differ at the
    end.
    """
    return text if len(text) <= width else f"{text[: width // 2]}…{text[width // 2 + 1 - width :]}"
