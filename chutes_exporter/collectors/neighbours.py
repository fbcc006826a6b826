"""Which other miners are exported with the watched ones: their neighbours in rank, and in line for
the seat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.feeds.definitions import CHAIN, SCORES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api.records import Scores
    from chutes_exporter.chain.subnet import Subnet
    from chutes_exporter.collectors.base import Answers
    from chutes_exporter.feeds.feed import Feed

FEEDS: Final[tuple[Feed[Any], ...]] = (SCORES, CHAIN)
"""The feeds of which the answers say who is a neighbour."""
NEAR: Final = 4
"""Places on either side at which a miner becomes a neighbour."""
FAR: Final = 8
"""Places on either side up to which it stays one, so that its series do not come and go with each
change of places.
"""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Miners that are near a watched one by score, and in line for the seat."""

    by_score: frozenset[str] = frozenset()
    by_seat: frozenset[str] = frozenset()

    @property
    def hotkeys(self) -> frozenset[str]:
        """All of them."""
        return self.by_score | self.by_seat


def find_neighbours(answers: Answers, watched: AbstractSet[str], before: Neighbours) -> Neighbours:
    """Return the neighbours of the watched miners.

    Args:
        answers: Those of FEEDS that are known. Without an answer, or while scores may be missing
            from it, the neighbours by it stay what they were before.
        watched: The hotkeys of the watched miners.
        before: The neighbours until now.
    """
    by_score, by_seat = before.by_score, before.by_seat
    if SCORES in answers and answers.complete([SCORES.name]):
        by_score = _around(_ranking(answers[SCORES]), watched, before.by_score)
    # A reading of the chain has all seats or fails.
    if CHAIN in answers:
        by_seat = _around(_line_for_the_seat(answers[CHAIN]), watched, before.by_seat)
    return Neighbours(by_score, by_seat)


def _ranking(scores: Scores) -> list[str]:
    """Return the miners with a known score, the best first."""
    shares = {hotkey: share for hotkey, share in scores.shares.items() if share is not None}
    return sorted(shares, key=lambda hotkey: (-shares[hotkey], hotkey))


def _line_for_the_seat(subnet: Subnet) -> list[str]:
    """Return the miners that can lose their seat, the next one first."""
    places: dict[str, int] = {}
    for seat in subnet.seats:
        if seat.registrations_before_loss is not None:
            places[seat.hotkey] = seat.registrations_before_loss
    return sorted(places, key=places.__getitem__)


def _around(
    line: Sequence[str], watched: AbstractSet[str], before: AbstractSet[str]
) -> frozenset[str]:
    """Return the miners in a line that are at most NEAR places from a watched one.

    Those that were neighbours before stay up to FAR places from it.
    """
    neighbours: set[str] = set()
    for place, hotkey in enumerate(line):
        if hotkey not in watched:
            continue
        near = line[max(0, place - NEAR) : place + NEAR + 1]
        not_far = line[max(0, place - FAR) : place + FAR + 1]
        neighbours.update(near)
        neighbours.update(before & set(not_far))
    return frozenset(neighbours - watched)
