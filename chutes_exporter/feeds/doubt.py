"""Finds answers that look valid but are wrong.

A stream whose query fails halfway ends normally, with status 200. A service that lost its cache or its monitoring
sends empty lists and zeros. To find such answers, they are compared with the last answer and with other endpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

from msgspec import UNSET

from chutes_exporter.api.meaning import demand_is_unknown, load_is_unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from chutes_exporter.api import records as r

Reason = Literal["shrunk", "disagrees", "no_demand", "no_bounties", "no_history"]
"""Reason to doubt an answer.

- shrunk: the list lost more than a fifth, and a second answer did not confirm it.
- disagrees: records are missing that another endpoint names.
- no_demand: every chute reports zero demand.
- no_bounties: all bounties disappeared at once.
- no_history: a miner lost its history.
"""

REPEAT_REQUEST: Final[AbstractSet[Reason]] = {"shrunk", "disagrees"}
"""Reasons that an immediate second request can settle. The others last until the service is repaired."""

_SHRUNK_RATIO = 0.8
_MAX_DELETED_CHUTES = 2
_MIN_LOST_BOUNTIES = 3

T_contra = TypeVar("T_contra", contravariant=True)


class Check(Protocol[T_contra]):
    """Finds a reason to doubt an answer."""

    def __call__(self, now: T_contra, last: T_contra | None, /, *evidence: Any) -> Reason | None:
        """Compare the records of an answer with those of the last good answer and of other feeds (None: unknown)."""


class DoubtedError(Exception):
    """A doubted answer that does not replace an older good one.

    Attributes:
        doubt: The reason.
        retry_in: Seconds to wait before the next request, because an earlier one would return the same.
    """

    reason = "doubted"

    def __init__(self, doubt: Reason, retry_in: float) -> None:
        super().__init__(f"the answer is doubted: {doubt}")
        self.doubt: Reason = doubt
        self.retry_in = retry_in


def shrinks(now: int, last: int) -> bool:
    """Return whether a list lost more than a fifth of its records."""
    return now < last * _SHRUNK_RATIO


def confirms(second: int, first: int) -> bool:
    """Return whether the lengths of two lists differ by less than a fifth."""
    return not shrinks(second, first) and not shrinks(first, second)


def check_nodes(
    nodes: Sequence[r.Node], _last: Sequence[r.Node] | None, servers: Sequence[r.Server] | None
) -> Reason | None:
    """Compare GPUs with those of the servers. Without known servers, an empty list is doubted."""
    if servers is None:
        return None if nodes else "disagrees"
    listed = {gpu.uuid for server in servers for gpu in server.gpus or ()}
    return "disagrees" if listed - {node.uuid for node in nodes} else None


def check_instances(
    instances: Sequence[r.Instance], _last: Sequence[r.Instance] | None, inventory: Sequence[r.InventoryItem] | None
) -> Reason | None:
    """Compare instances with the chutes that hold GPUs."""
    held = {item.chute_id for item in inventory or () if item.chute_id is not None}
    run = {instance.chute_id for instance in instances}
    return "disagrees" if None not in run and held - run else None


def check_chutes(
    chutes: Sequence[r.Chute],
    last: Sequence[r.Chute] | None,
    active: Sequence[r.ActiveInstance] | None,
    metrics: Sequence[r.ChuteMetrics] | None,
) -> Reason | None:
    """Compare chutes with the running ones, and bounties with the last answer."""
    running: Iterable[r.ActiveInstance | r.ChuteMetrics] = (*(active or ()), *(metrics or ()))
    known = {chute.chute_id for chute in chutes}
    missing = {one.chute_id for one in running if one.chute_id is not None} - known
    # One or two chutes may be deleted between two answers. If more are missing, the list is incomplete.
    if len(missing) > _MAX_DELETED_CHUTES:
        return "disagrees"
    if not _bounties(chutes) and _bounties(last or ()) >= _MIN_LOST_BOUNTIES:
        return "no_bounties"
    return None


def check_metrics(chutes: Sequence[r.ChuteMetrics], _last: Sequence[r.ChuteMetrics] | None) -> Reason | None:
    """Doubt an answer without any demand on the whole platform."""
    return "no_demand" if demand_is_unknown(chutes) else None


def of_utilization(chutes: Sequence[r.ChuteUtilization], _last: Sequence[r.ChuteUtilization] | None) -> Reason | None:
    """Look for a platform without any load."""
    return "no_demand" if load_is_unknown(chutes) else None


def of_bounties(
    bounties: Sequence[r.Bounty], last: Sequence[r.Bounty] | None, chutes: Sequence[r.Chute] | None
) -> Reason | None:
    """Doubt an empty list if there were bounties before, or if the chutes have some.

    A service without Redis sends an empty list too.
    """
    before = max(len(last or ()), _bounties(chutes or ()))
    return "no_bounties" if not bounties and before >= _MIN_LOST_BOUNTIES else None


def _bounties(chutes: Iterable[r.Chute]) -> int:
    return sum(1 for chute in chutes if chute.bounty is not UNSET and chute.bounty is not None)
