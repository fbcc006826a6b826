"""Text for a terminal."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
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


def json_text(value: Any) -> str:
    """Return JSON for standard output. It has escapes where the encoding lacks a character."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=2)
    return text


def called_as(argument: str) -> str:
    """Return the words that start this program from any folder.

    Args:
        argument: ``sys.argv[0]``.
    """
    path = Path(argument)
    if path.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m {__package__.partition('.')[0]}"
    found = shutil.which(path.name)
    if found is not None and Path(found).absolute() == path.absolute():
        return path.name
    return shlex.quote(os.path.normpath(path.absolute()))
