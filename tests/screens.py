"""Writes the screens of docs/commands.md anew, as the commands print them on the recorded day."""

from __future__ import annotations

import asyncio
import re
import shlex

from tests.commands.support import run
from tests.golden import Case, api_of
from tests.support import ROOT

PAGE = ROOT / "docs" / "commands.md"
SCREEN = re.compile(r"(?<=```text\n\$ chutes-exporter )(.+)\n[^`]*")


async def screen(command: str) -> str:
    """Return a command and what it prints at 22:00."""
    async with api_of(Case()) as (target, _, variables):
        arguments = shlex.split(command)
        _, output, _ = await run(target, *arguments, variables=variables | {"COLUMNS": "100"})
    return f"{command}\n{output.replace(target.url, 'https://api.chutes.ai').rstrip()}\n"


if __name__ == "__main__":
    PAGE.write_text(SCREEN.sub(lambda found: asyncio.run(screen(found[1])), PAGE.read_text()))
