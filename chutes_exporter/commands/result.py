"""What a command found, what it does not know, and the exit status that follows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from chutes_exporter.commands.terminal import say
from chutes_exporter.page.gaps import grouped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chutes_exporter.page.gaps import NotKnown


@dataclass(frozen=True)
class Result:
    """What a command found.

    Attributes:
        summary: For scripts.
        show: Prints the same for people.
        gaps: What is not known.
        needs_action: Whether something needs action, or failed.
    """

    summary: dict[str, Any]
    show: Callable[[], None]
    gaps: Sequence[NotKnown]
    needs_action: bool = False

    def print(self, *, as_json: bool) -> int:
        """Print the result with what is not known.

        Return the exit status: 1 if something needs action, otherwise 3 if something is not known,
        otherwise 0.
        """
        if as_json:
            not_known = [asdict(gap) for gap in self.gaps]
            summary = self.summary | {"all_known": not self.gaps, "not_known": not_known}
            click.echo(json.dumps(summary, indent=2))
        else:
            self.show()
            if self.gaps:
                say("Not known", bold=True)
            print_remarks("?", self.gaps, "yellow")
        if self.needs_action:
            return 1
        return 3 if self.gaps else 0


def print_remarks(mark: str, remarks: Iterable[NotKnown], color: str) -> None:
    """Print each reason once, with all that it is about and the advice, if there is some."""
    for (reason, advice), subjects in grouped(remarks).items():
        say(f"{mark} {subjects}: {reason}", indent="  ", fg=color)
        if advice:
            say(f"→ {advice}", indent="    ", start="  ")
