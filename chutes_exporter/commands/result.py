"""What a command found, what it does not know, and the exit status that follows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.commands.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NOTHING_TO_DO, ACTION_NEEDED, NOT_KNOWN = 0, 1, 3
"""The exit status; 2 is that of a wrong command line. 3 means that nothing that is known needs action, but a key or an
answer is missing or incomplete."""

NO_KEY = ("not known without a key", "Add --hotkey-file, or MINER_SS58 with MINER_SEED or MINER_PRIVATE_KEY.")
"""Reason and advice for data that only a key gives."""
TRY_AGAIN = "Try again. If the problem remains, report it."
MISSING = "Ask the operators of Chutes for a newer service."
"""Advice about an endpoint that the deployment does not have."""


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
        """Print the result with what is not known, and return the exit status."""
        if as_json:
            not_known = {"all_known": not self.gaps, "not_known": list(map(asdict, self.gaps))}
            click.echo(json.dumps(self.summary | not_known, indent=2))
        else:
            self.show()
            if self.gaps:
                say("Not known", bold=True)
            for feeds, reason, advice in grouped((gap.feed, gap.reason, gap.advice) for gap in self.gaps):
                say(f"? {feeds}: {reason}", indent="  ", fg="yellow")
                say(f"→ {advice}", indent="    ", start="  ")
        otherwise = NOT_KNOWN if self.gaps else NOTHING_TO_DO
        return ACTION_NEEDED if self.needs_action else otherwise


def grouped(remarks: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Return remarks with the same text once, with all subjects. An outage is not repeated for each feed."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for subject, text, advice in remarks:
        found.setdefault((text, advice), {})[subject] = None
    return [(", ".join(subjects), *texts) for texts, subjects in found.items()]
