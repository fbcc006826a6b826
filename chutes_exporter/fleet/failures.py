"""Chutes that failed on a miner's servers."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.fleet.ends import End, Ledger
    from chutes_exporter.fleet.outages import Outage

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
        ends: The known failures by the ids of their chutes.
        by_outage: The ends that a server's death explains.
        deleted: The ends of instances that lost something because the miner deleted them, which is
            no failure of their chutes.
    """

    unclear: Mapping[str, int] = field(default_factory=dict)
    are_all_known: bool = False
    ends: Mapping[str, Sequence[End]] = field(default_factory=dict)
    by_outage: Sequence[End] = ()
    deleted: Sequence[End] = ()

    @property
    def failing(self) -> list[str]:
        """The ids of the chutes that are known to fail again and again, the worst first."""
        chute_ids = [chute_id for chute_id in self.ends if self.fails(chute_id)]
        return sorted(chute_ids, key=lambda chute_id: (-self.known(chute_id), chute_id))

    def of_main_reason(self, chute_id: str) -> list[End]:
        """Return the failures of a chute that have its most frequent reason."""
        ends = self.ends[chute_id]
        [(reason, _)] = Counter(end.reason for end in ends).most_common(1)
        return [end for end in ends if end.reason == reason]

    @property
    def silent(self) -> list[End]:
        """The failures that lost their score because they did not answer probes, without those that
        a server's death explains. None of them counts if they are fewer than of a failing chute.
        """
        silent = [
            end
            for end in chain(*self.ends.values())
            if end.reason == "probes" and end.outcome == "lost" and end not in self.by_outage
        ]
        return silent if len(silent) >= FAILS_FROM else []

    def known(self, chute_id: str) -> int:
        """Return how often a chute failed at least."""
        return len(self.ends.get(chute_id, ()))

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


def find_failures(ledger: Ledger, hotkey: str, outages: Iterable[Outage] = ()) -> Failures:
    """Return what failed of a miner in the newest FAILURE_HOURS hours, in which servers died.

    A failure may be missing if the ledger lacks the report of one of these hours.
    """
    are_all_known = not ledger.missing_hours(FAILURE_HOURS)
    unclear: Counter[str] = Counter()
    failures: defaultdict[str, list[End]] = defaultdict(list)
    ends = ledger.ends_of(hotkey, FAILURE_HOURS)
    for end in ends:
        if end.is_failure is False:
            continue
        if end.chute_id is None:
            # It may be a failure of any chute.
            are_all_known = False
        elif end.is_failure is None:
            unclear[end.chute_id] += 1
        else:
            failures[end.chute_id].append(end)
    by_outage = [*chain.from_iterable(outage.ends for outage in outages)]
    deleted = [end for end in ends if end.may_be_costly_deletion]
    return Failures(unclear, are_all_known, failures, by_outage, deleted)
