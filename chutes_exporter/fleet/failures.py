"""Chutes that failed on a miner's servers.

The reports do not tell on which of its servers an instance ran.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chutes_exporter.rules.launch import gpus_of_instance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chutes_exporter.fleet.ends import End, Ledger
    from chutes_exporter.fleet.model import Server
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
        servers: The ids of the servers on which a failed instance can have been, by the id of the
            instance.
        silent: Those that lost their score because they did not answer probes, if they are as many
            as of a chute that fails. Those that a server's death explains are left out.
        deleted: The ends of instances that lost something because the miner deleted them, which is
            no failure of their chutes.
    """

    unclear: Mapping[str, int] = field(default_factory=dict)
    are_all_known: bool = False
    ends: Mapping[str, Sequence[End]] = field(default_factory=dict)
    servers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    silent: Sequence[End] = ()
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

    def suspects(self, ends: Iterable[End]) -> frozenset[str]:
        """Return the ids of the servers on which each of these failures can have been."""
        return frozenset.intersection(*(self.servers[end.instance_id] for end in ends))

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


def find_failures(
    ledger: Ledger,
    hotkey: str,
    servers: Sequence[Server] = (),
    outages: Sequence[Outage] = (),
) -> Failures:
    """Return what failed of a miner in the newest FAILURE_HOURS hours, in which servers died.

    A failure may be missing if the ledger lacks the report of one of these hours.
    """
    are_all_known = not ledger.missing_hours(FAILURE_HOURS)
    unclear: Counter[str] = Counter()
    failures: defaultdict[str, list[End]] = defaultdict(list)
    servers_by_instance = {}
    silent = []
    dead = {end for outage in outages for end in outage.ends}
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
            servers_by_instance[end.instance_id] = _servers_of(end, servers, outages, ledger)
            if end.reason == "probes" and end.outcome == "lost" and end not in dead:
                silent.append(end)
    deleted = [end for end in ends if end.may_be_costly_deletion]
    return Failures(
        unclear,
        are_all_known,
        failures,
        servers_by_instance,
        silent if len(silent) >= FAILS_FROM else (),
        deleted,
    )


def _servers_of(
    end: End, servers: Iterable[Server], outages: Iterable[Outage], ledger: Ledger
) -> frozenset[str]:
    """Return the ids of the servers on which an instance can have been."""
    # GPUs that others held when it ended, on servers that died later.
    held: Counter[str] = Counter()
    for outage in outages:
        if end in outage.ends:
            return frozenset(server.server_id for server in outage.servers)
        if len(outage.servers) > 1:
            continue
        for other in outage.ends:
            if other.created_at < end.ended_at < other.ended_at:
                gpus = gpus_of_instance(ledger.chutes.get(other.chute_id))
                held[outage.servers[0].server_id] += gpus or 0
    chute = ledger.chutes.get(end.chute_id)
    return frozenset(
        server.server_id
        for server in servers
        if server.can_have_held(chute, end.ended_at, held[server.server_id])
    )
