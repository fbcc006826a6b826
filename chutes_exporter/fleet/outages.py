"""Servers that probably died: several instances ended within minutes, and nothing runs since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chutes_exporter.duration import MINUTE
from chutes_exporter.fleet.failures import FAILURE_HOURS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chutes_exporter.fleet.ends import End, Ledger
    from chutes_exporter.fleet.model import Gpu, LeftOut, Server

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


def find_outages(ledger: Ledger, hotkey: str, servers: Iterable[Server]) -> tuple[Outage, ...]:
    """Return the outages of a miner in the newest FAILURE_HOURS hours, the newest first.

    A server on which something may earn is no candidate.
    """
    outages = []
    candidates = [server for server in servers if _is_silent(server)]
    for ends in reversed(_clusters(ledger.ends(FAILURE_HOURS), hotkey)):
        dead = [server for server in candidates if _fits(server, ends, ledger)]
        # Nothing has earned on a dead server since, so that it has not died twice.
        candidates = [server for server in candidates if server not in dead]
        if dead:
            outages.append(Outage(tuple(dead), tuple(ends)))
    return tuple(outages)


def find_dead(
    ledger: Ledger, hotkey: str, outages: Iterable[Outage], servers: Iterable[Server]
) -> dict[str, LeftOut]:
    """Return why nothing is launched on servers that died, or may have, by the server's id.

    While the report of an hour is missing, any server on which nothing earns may have died.
    """
    left_out: dict[str, LeftOut] = {}
    clusters = _clusters(ledger.ends(FAILURE_HOURS), hotkey)
    lacks_report = bool(ledger.missing_hours(FAILURE_HOURS))
    for server in filter(_is_silent, servers):
        if lacks_report or any(_fits(server, ends, ledger) is None for ends in clusters):
            left_out[server.server_id] = "use_not_known"
    for outage in outages:
        for server in outage.servers:
            left_out[server.server_id] = "may_be_dead"
    return left_out


def _clusters(ends: Iterable[End], hotkey: str) -> list[list[End]]:
    """Return the ends of active instances that follow each other within minutes, two at least."""
    clusters: list[list[End]] = []
    for end in sorted(ends, key=lambda end: end.ended_at):
        if end.hotkey != hotkey or end.activated_at is None or end.reason != _REASON:
            continue
        if clusters and end.ended_at - clusters[-1][-1].ended_at <= _WITHIN:
            clusters[-1].append(end)
        else:
            clusters.append([end])
    return [cluster for cluster in clusters if len(cluster) > 1]


def _is_silent(server: Server) -> bool:
    """Return whether certainly nothing earns on a server that has usable GPUs."""
    return bool(_usable(server)) and server.holds_slot is False and server.earning_instances == 0


def _usable(server: Server) -> list[Gpu]:
    return [gpu for gpu in server.gpus if gpu.state in ("idle", "starting")]


def _fits(server: Server, ends: Sequence[End], ledger: Ledger) -> bool | None:
    """Return whether ended instances can have held at least half of a server's GPUs, None while
    it is unknown of a chute which GPUs it needs.
    """
    usable = _usable(server)
    models = {gpu.model for gpu in usable}
    size = 0
    for end in ends:
        chute = ledger.chutes.get(end.chute_id or "")
        selector = None if chute is None else chute.node_selector
        if selector is None or selector.gpu_count is None or selector.supported_gpus is None:
            return None
        if models.isdisjoint(selector.supported_gpus):
            return False
        size += int(selector.gpu_count)
    return len(usable) <= 2 * size <= 2 * len(usable)
