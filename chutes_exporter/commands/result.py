"""What a command found, what it does not know, and the exit status that follows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.commands.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOTHING_TO_DO, ACTION_NEEDED, NOT_KNOWN = 0, 1, 3
"""The exit status; 2 is that of a wrong command line. 3 means that nothing that is known needs action, but a key or an
answer is missing or incomplete."""

NO_KEY = ("not known without a key", "Add --hotkey-file, or MINER_SS58 with MINER_SEED or MINER_PRIVATE_KEY.")
"""Reason and advice for data that only a key gives."""
TRY_AGAIN = "Try again. If the problem remains, report it."


@dataclass(frozen=True)
class NotKnown:
    """Data of a feed, or of a collector, that the API did not send. Data of the platform has no hotkey."""

    feed: str
    hotkey: str
    reason: str
    advice: str


@dataclass(frozen=True)
class Result:
    """What a command found.

    Attributes:
        summary: For scripts.
        show: Prints the same for people.
        needs_action: Whether something needs action, or failed.
    """

    summary: dict[str, Any]
    show: Callable[[], None]
    gaps: Sequence[NotKnown]
    needs_action: bool = False

    def print(self, *, as_json: bool) -> int:
        """Print all, and return the exit status."""
        if as_json:
            not_known = {"all_known": not self.gaps, "not_known": list(map(asdict, self.gaps))}
            click.echo(json.dumps(self.summary | not_known, indent=2))
        else:
            self.show()
            self._print_not_known()
        return ACTION_NEEDED if self.needs_action else NOT_KNOWN if self.gaps else NOTHING_TO_DO

    def _print_not_known(self) -> None:
        """Print what is not known, the same reasons together."""
        grouped: dict[tuple[str, str], dict[str, None]] = {}
        for gap in self.gaps:
            grouped.setdefault((gap.reason, gap.advice), {})[gap.feed] = None
        if grouped:
            say("Not known", bold=True)
        for (reason, advice), feeds in grouped.items():
            say(f"? {', '.join(feeds)}: {reason}", indent="  ", fg="yellow")
            say(f"→ {advice}", indent="    ", start="  ")
