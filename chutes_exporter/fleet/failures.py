"""Chutes that failed on a miner's servers.

The reports do not tell on which of its servers an instance ran.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chutes_exporter.fleet.ends import End, Ledger

FAILS_FROM: Final = 3
"""Failures from which a chute is not launched again. One or two can happen to every chute,
by a reboot or a short outage. The alert about a chute needs as many."""


FAILURE_HOURS: Final = 6
"""Hours in which a chute that fails so often needs action, as in the alert about it."""


@dataclass(frozen=True)
class Failures:
    """The failed instances of a miner in FAILURE_HOURS hours before the newest report.

    Attributes:
        unclear: Its ends of which no report tells whether they were failures.
        are_all_known: Whether no other chute can have failed more often: all ends and their chutes
            are known.
        names: The names of the chutes that failed, or the ids of those without a known name.
        reasons: How often each chute is known to have failed for which reason, by its id.
        deleted: The ends of instances that lost their scores because the miner deleted them, which
            is no failure of their chutes.
    """

    unclear: Mapping[str, int] = field(default_factory=dict)
    are_all_known: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, Counter[str]] = field(default_factory=dict)
    deleted: Sequence[End] = ()

    @property
    def failing(self) -> list[str]:
        """The ids of the chutes that are known to fail again and again, the worst first."""
        chute_ids = [chute_id for chute_id in self.reasons if self.fails(chute_id)]
        return sorted(chute_ids, key=lambda chute_id: (-self.known(chute_id), chute_id))

    def known(self, chute_id: str) -> int:
        """Return how often a chute failed at least."""
        return self.reasons.get(chute_id, Counter()).total()

    def count(self, chute_id: str) -> int | None:
        """Return how often a chute is known to have failed, None while an end may be missing."""
        return self.known(chute_id) if self.are_all_known else None

    def fails(self, chute_id: str) -> bool | None:
        """Return whether a chute fails again and again, None if that is unknown.

        Enough known failures prove it, even if there may be more. Too few ends disprove it, even
        if some are unclear.
        """
        known = self.known(chute_id)
        if known >= FAILS_FROM:
            return True
        may_be_enough = known + self.unclear.get(chute_id, 0) >= FAILS_FROM
        return None if may_be_enough or not self.are_all_known else False


def find_failures(ledger: Ledger, hotkey: str) -> Failures:
    """Return what failed of a miner in the newest FAILURE_HOURS hours.

    A failure may be missing if the ledger lacks the report of one of these hours.
    """
    are_all_known = not ledger.missing_hours(FAILURE_HOURS)
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    unclear: Counter[str] = Counter()
    names = {}
    ends = [end for end in ledger.ends(FAILURE_HOURS) if end.hotkey == hotkey]
    for end in ends:
        if end.is_failure is False:
            continue
        if end.chute_id is None:
            # It may be a failure of any chute.
            are_all_known = False
        elif end.is_failure is None:
            unclear[end.chute_id] += 1
        else:
            # An end is known to be a failure only by its reason, so it has one.
            reasons[end.chute_id][end.reason or ""] += 1
            chute = ledger.chutes.get(end.chute_id)
            names[end.chute_id] = (chute and chute.name) or end.chute_id
    deleted = [end for end in ends if end.reason == "miner" and end.outcome == "lost"]
    return Failures(unclear, are_all_known, names, reasons, deleted)
