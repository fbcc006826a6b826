"""Chutes that failed on a miner's servers, and servers that probably died."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

from chutes_exporter.duration import MINUTE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.fleet.ends import End, Ledger
    from chutes_exporter.fleet.servers import Server

FAILS_FROM: Final = 3
"""Failures from which a chute is not launched again. One or two can happen to every chute,
by a reboot or a short outage. The alert about a chute needs as many."""
FAILURE_HOURS: Final = 6
"""Hours in which a chute that fails so often needs action, as in the alert about it."""
_WITHIN: Final = 10 * MINUTE
"""Seconds between two such ends. Probes look at each instance every few minutes."""


@dataclass(frozen=True)
class Outage:
    """Ends of several instances that a dead server explains.

    Attributes:
        servers: Where they can have been. The reports do not name the server of an instance.
        ends: The ends, in their order.
    """

    servers: tuple[Server, ...]
    ends: tuple[End, ...]

    def gpus_at(self, time: float) -> int:
        """Return how many GPUs these instances held at a Unix time, as far as that is known."""
        ends = [end for end in self.ends if end.created_at < time < end.ended_at]
        return sum(end.gpus or 0 for end in ends)


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
        if may_be_enough or not self.are_all_known:
            return None
        return False


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


def find_outages(
    ledger: Ledger, hotkey: str, servers: Iterable[Server]
) -> tuple[tuple[Outage, ...], dict[str, bool | None]]:
    """Return the outages of a miner in the newest FAILURE_HOURS hours, the newest first, and
    whether servers may be dead, by the server's id, for those that are not certainly alive.

    A server on which something may earn is no candidate. While the report of an hour is missing,
    it is unknown of any other one.
    """
    newest_first = _clusters(ledger.ends_of(hotkey, FAILURE_HOURS))[::-1]
    lacks_report = bool(ledger.missing_hours(FAILURE_HOURS))
    # The servers that died, by the number of the cluster.
    dead: dict[int, list[Server]] = defaultdict(list)
    may_be_dead: dict[str, bool | None] = {}
    for server in servers:
        if not server.earns_nothing:
            continue
        fits = [server.may_explain(ends) for ends in newest_first]
        if True in fits:
            # Nothing has earned on it since it died, so it died only once: at the newest ends.
            dead[fits.index(True)].append(server)
            may_be_dead[server.server_id] = True
        elif lacks_report or None in fits:
            may_be_dead[server.server_id] = None
    outages = [Outage(tuple(dead[index]), tuple(newest_first[index])) for index in sorted(dead)]
    return tuple(outages), may_be_dead


def _clusters(ends: Iterable[End]) -> list[list[End]]:
    """Return groups of ends of active instances that did not answer probes. The ends of a group
    follow each other within minutes, and are at least two.
    """
    clusters: list[list[End]] = []
    for end in sorted(ends, key=lambda end: end.ended_at):
        if end.reason != "probes" or end.activated_at is None:
            continue
        if not clusters or end.ended_at - clusters[-1][-1].ended_at > _WITHIN:
            clusters.append([])
        clusters[-1].append(end)
    return [cluster for cluster in clusters if len(cluster) > 1]
