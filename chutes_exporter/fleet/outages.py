"""Servers that probably died: several instances ended within minutes, and nothing runs since."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chutes_exporter.duration import MINUTE
from chutes_exporter.fleet.failures import FAILURE_HOURS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.fleet.ends import End, Ledger
    from chutes_exporter.fleet.placement import LeftOut
    from chutes_exporter.fleet.servers import Server

_REASON: Final = "probes"
"""Why the service ends the instances of a server that does not answer."""
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


def find_outages(
    ledger: Ledger, hotkey: str, servers: Iterable[Server]
) -> tuple[tuple[Outage, ...], dict[str, LeftOut]]:
    """Return the outages of a miner in the newest FAILURE_HOURS hours, the newest first, and why
    nothing is launched on servers that died, or may have, by the server's id.

    A server on which something may earn is no candidate. While the report of an hour is missing,
    any other one may have died.
    """
    newest_first = _clusters(ledger.ends_of(hotkey, FAILURE_HOURS))[::-1]
    lacks_report = bool(ledger.missing_hours(FAILURE_HOURS))
    # The servers that died, by the number of the cluster.
    dead: dict[int, list[Server]] = defaultdict(list)
    left_out: dict[str, LeftOut] = {}
    for server in servers:
        if not server.is_silent:
            continue
        fits = [server.may_explain(ends) for ends in newest_first]
        if True in fits:
            # Nothing has earned on it since it died, so it died only once: at the newest ends.
            dead[fits.index(True)].append(server)
            left_out[server.server_id] = "may_be_dead"
        elif lacks_report or None in fits:
            left_out[server.server_id] = "use_not_known"
    outages = [Outage(tuple(dead[index]), tuple(newest_first[index])) for index in sorted(dead)]
    return tuple(outages), left_out


def _clusters(ends: Iterable[End]) -> list[list[End]]:
    """Return groups of ends of active instances that did not answer probes. The ends of a group
    follow each other within minutes, and are at least two.
    """
    clusters: list[list[End]] = []
    for end in sorted(ends, key=lambda end: end.ended_at):
        if end.reason != _REASON or end.activated_at is None:
            continue
        if not clusters or end.ended_at - clusters[-1][-1].ended_at > _WITHIN:
            clusters.append([])
        clusters[-1].append(end)
    return [cluster for cluster in clusters if len(cluster) > 1]
