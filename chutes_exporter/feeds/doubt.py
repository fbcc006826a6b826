"""Answers that look right and are wrong: what gives them away.

A stream whose query fails halfway ends like any other, with status 200. A service that has lost its cache or its own
monitoring says "none" and "zero" in the usual form. Nothing in such an answer shows it, so answers are compared with
the one before and with what other endpoints say.
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
"""Why an answer is doubted: its list shrank by more than a fifth, and asking again did not confirm it; records are
missing that another endpoint names; every chute reports zero demand; all bounties have gone at once; a miner has no
history any more."""

WORTH_ASKING_AGAIN: Final[AbstractSet[Reason]] = {"shrunk", "disagrees"}
"""Reasons that a second answer can settle at once; the others last as long as what fails behind the service."""

_SHRINKS = 0.8
_CHUTES_THAT_MAY_GO = 2
_BOUNTIES_THAT_GO_TOGETHER = 3

T_contra = TypeVar("T_contra", contravariant=True)


class Check(Protocol[T_contra]):
    """Finds a reason to doubt an answer.

    Called with the answer's records, those of the last good answer or None, and those of the evidence, None for what
    is not known.
    """

    def __call__(self, now: T_contra, last: T_contra | None, /, *evidence: Any) -> Reason | None:
        """Return the reason, or None."""


class DoubtedError(Exception):
    """An answer that is not believed, while there is an older one that is.

    Attributes:
        doubt: Why.
        retry_in: Seconds after which to ask again: asking sooner would bring the same.
    """

    reason = "doubted"

    def __init__(self, doubt: Reason, retry_in: float) -> None:
        super().__init__(f"the answer is doubted: {doubt}")
        self.doubt: Reason = doubt
        self.retry_in = retry_in


def shrinks(now: int, last: int) -> bool:
    """Tell whether a list of so many records is shorter by more than a fifth."""
    return now < last * _SHRINKS


def confirms(again: int, now: int) -> bool:
    """Tell whether a second list is as long as the first, give or take a fifth."""
    return not shrinks(again, now) and not shrinks(now, again)


def of_nodes(
    nodes: Sequence[r.Node], _last: Sequence[r.Node] | None, servers: Sequence[r.Server] | None
) -> Reason | None:
    """Compare GPUs with those that the servers list; an empty list needs servers that agree."""
    if servers is None:
        return None if nodes else "disagrees"
    listed = {gpu.uuid for server in servers for gpu in server.gpus or ()}
    return "disagrees" if listed - {node.uuid for node in nodes} else None


def of_instances(
    instances: Sequence[r.Instance], _last: Sequence[r.Instance] | None, inventory: Sequence[r.InventoryItem] | None
) -> Reason | None:
    """Compare instances with the chutes that hold GPUs."""
    held = {item.chute_id for item in inventory or () if item.chute_id is not None}
    run = {instance.chute_id for instance in instances}
    return "disagrees" if None not in run and held - run else None


def of_chutes(
    chutes: Sequence[r.Chute],
    last: Sequence[r.Chute] | None,
    active: Sequence[r.ActiveInstance] | None,
    metrics: Sequence[r.ChuteMetrics] | None,
) -> Reason | None:
    """Compare chutes with those that run somewhere, and their bounties with those before."""
    running: Iterable[r.ActiveInstance | r.ChuteMetrics] = (*(active or ()), *(metrics or ()))
    known = {chute.chute_id for chute in chutes}
    missing = {one.chute_id for one in running if one.chute_id is not None} - known
    # A chute may be deleted between two answers; several at once are a list that ended early.
    if len(missing) > _CHUTES_THAT_MAY_GO:
        return "disagrees"
    if not _bounties(chutes) and _bounties(last or ()) >= _BOUNTIES_THAT_GO_TOGETHER:
        return "no_bounties"
    return None


def of_metrics(chutes: Sequence[r.ChuteMetrics], _last: Sequence[r.ChuteMetrics] | None) -> Reason | None:
    """Look for a platform without any demand."""
    return "no_demand" if demand_is_unknown(chutes) else None


def of_utilization(chutes: Sequence[r.ChuteUtilization], _last: Sequence[r.ChuteUtilization] | None) -> Reason | None:
    """Look for a platform without any load."""
    return "no_demand" if load_is_unknown(chutes) else None


def of_bounties(
    bounties: Sequence[r.Bounty], last: Sequence[r.Bounty] | None, chutes: Sequence[r.Chute] | None
) -> Reason | None:
    """Compare an empty list with the bounties before, and with those of the chutes: it is also sent without Redis."""
    before = max(len(last or ()), _bounties(chutes or ()))
    return "no_bounties" if not bounties and before >= _BOUNTIES_THAT_GO_TOGETHER else None


def _bounties(chutes: Iterable[r.Chute]) -> int:
    return sum(1 for chute in chutes if chute.bounty is not UNSET and chute.bounty is not None)
