"""Chutes that failed on a miner's servers in the past day.

The reports do not tell on which of its servers an instance ran.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.fleet.ends import End
    from chutes_exporter.fleet.model import Market

FAILS_FROM: Final = 3
"""Failures in a day from which a chute is not launched again. One or two can happen to every chute,
by a reboot or a short outage. The alert about a chute needs as many."""


@dataclass(frozen=True)
class Failures:
    """The failed instances of a miner in the 24 hours before the newest report.

    Attributes:
        known: The failures of each chute that are known.
        unclear: Chutes of which it is not known whether some ends were failures.
        are_all: Whether all reports are known.
        until: The end of the newest report, 0 without one.
    """

    known: Mapping[str, int]
    unclear: frozenset[str]
    are_all: bool
    until: float

    def count(self, chute_id: str) -> int | None:
        """Return how often a chute failed, None if there may be more failures."""
        if not self.are_all or chute_id in self.unclear:
            return None
        return self.known.get(chute_id, 0)

    def fails(self, chute_id: str) -> bool | None:
        """Return whether a chute fails again and again. Enough failures prove it, even if there
        may be more.
        """
        if self.known.get(chute_id, 0) >= FAILS_FROM:
            return True
        return None if self.count(chute_id) is None else False


def count_failures(ends: Iterable[End], until: float, *, are_all: bool) -> Failures:
    """Return the failures among a miner's ends of a day."""
    known: Counter[str] = Counter()
    unclear = set[str]()
    for end in ends:
        is_failure = end.is_failure
        if is_failure is False:
            continue
        if end.chute_id is None:
            # It may be one of any chute.
            are_all = False
        elif is_failure:
            known[end.chute_id] += 1
        else:
            unclear.add(end.chute_id)
    return Failures(known, frozenset(unclear), are_all, until)


def markets_in_order(markets: Iterable[Market], failures: Failures) -> tuple[Market, ...]:
    """Return markets whose failing chutes come after all others."""
    found = []
    for market in markets:
        good = [one for one in market.offers if not failures.fails(one.chute_id)]
        failing = [one for one in market.offers if failures.fails(one.chute_id)]
        found.append(replace(market, offers=(*good, *failing)))
    return tuple(found)


def markets_without(markets: Iterable[Market], failures: Failures) -> tuple[Market, ...]:
    """Return markets without failing chutes."""
    found = []
    for market in markets:
        good = tuple(one for one in market.offers if not failures.fails(one.chute_id))
        found.append(replace(market, offers=good))
    return tuple(found)
