"""Text for a terminal."""

from __future__ import annotations

import textwrap
from typing import Any

import click

_WIDTH = 80


def printable(text: str) -> str:
    """Return text without control characters, because text of the API could control the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def say(text: str, *, indent: str = "", start: str = "", **style: Any) -> None:
    """Print text that may come from the API, folded to the width of a terminal."""
    lines = textwrap.wrap(printable(text), _WIDTH, initial_indent=start, subsequent_indent=indent, drop_whitespace=True)
    for line in lines:
        click.echo(click.style(line, **style))
