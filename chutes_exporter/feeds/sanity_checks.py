"""Sanity checks find answers that look valid but are wrong.

A service whose query fails sends an empty stream with status 200. A service that lost its cache or
its monitoring sends empty lists and zeros. To find such answers, they are compared with the last
answer and with other endpoints.

Each check is a pure function of the last good answer (None: there is none), the new answer, and the
records of each other feed that it compares the answer with (None: unknown).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from chutes_exporter.api.answer import Answer

if TYPE_CHECKING:
    from chutes_exporter.api import records as r
    from chutes_exporter.chain.subnet import Subnet

WORDS: Final[Mapping[str, str]] = {
    # by more than a fifth, and a second answer did not confirm it
    "shrunk": "the list became much shorter",
    "disagrees": "the list contradicts another answer",  # which names records that are missing
    "no_demand": "every chute reports zero demand",
    "no_bounties": "all bounties are missing",  # at once, and there were at least three
    "no_history": "the miner has no history any more",
}
"""The reasons to doubt an answer, in words."""

Old = Answer[Any] | None
Check = Callable[..., bool]
Checks = Mapping[str, Check]

REPEAT_REQUEST: Final[AbstractSet[str]] = {"shrunk", "disagrees"}
"""Reasons that an immediate second request can settle.

The others last until the service is repaired.
"""

_SHRUNK_RATIO = 0.8
_MAX_DELETED_CHUTES = 2
_MIN_LOST_BOUNTIES = 3


class DoubtedError(Exception):
    """A doubted answer that does not replace an older good one.

    Sooner than ``retry_after``, it would be the same.
    """

    reason = "doubted"
    advice = "The last good answer stays in use."

    def __init__(self, doubt: str, retry_after: float) -> None:
        super().__init__(f"the answer is doubted: {doubt}")
        self.doubt = doubt
        self.retry_after = retry_after


def reason_to_doubt(
    checks: Checks,
    old: Old,
    new: Answer[Any],
    others: Sequence[Any],
    *,
    first: Answer[Any] | None = None,
) -> str | None:
    """Return the first reason to doubt an answer, or None.

    ``others`` are the records of the feed's evidence. ``first`` is the answer to an earlier request
    of this moment. If it is about as long, a list has really shrunk.
    """
    is_confirmed = first is not None and not (shrunk(first, new) or shrunk(new, first))
    for reason, applies in checks.items():
        if reason == "shrunk" and is_confirmed:
            continue
        if applies(old, new, *others):
            return reason
    return None


def shrunk(old: Old, new: Answer[Any], *_others: Any) -> bool:
    """Return whether a list lost more than a fifth of its records."""
    return old is not None and new.listed < old.listed * _SHRUNK_RATIO


def gpus_are_missing(
    _old: Old, new: Answer[list[r.Node]], servers: Sequence[r.Server] | None
) -> bool:
    """Compare GPUs with those of the servers.

    An empty list is doubted even if the servers are unknown.
    """
    if servers is None:
        return not new.listed
    named: set[str | None] = set()
    for server in servers:
        named.update(gpu.uuid for gpu in server.gpus or ())
    return _lacks(new, "uuid", named)


def instances_are_missing(
    _old: Old, new: Answer[list[r.Instance]], held: Sequence[r.InventoryItem] | None
) -> bool:
    """Compare instances with the chutes that hold GPUs."""
    return _lacks(new, "chute_id", {item.chute_id for item in held or ()})


def chutes_are_missing(
    _old: Old,
    new: Answer[list[r.Chute]],
    active: Sequence[r.ActiveInstance] | None,
    metrics: Sequence[r.ChuteMetrics] | None,
) -> bool:
    """Compare chutes with those that run. Some may be deleted between two answers."""
    running = {instance.chute_id for instance in active or ()}
    running.update(chute.chute_id for chute in metrics or ())
    return _lacks(new, "chute_id", running, allowed=_MAX_DELETED_CHUTES)


def held_gpus_are_missing(
    _old: Old, new: Answer[list[r.HeldGpu]], instances: Sequence[r.ActiveInstance] | None
) -> bool:
    """Compare the instances that hold GPUs with the active ones.

    Some may have begun or ended between two answers.
    """
    active = {instance.instance_id for instance in instances or ()}
    return _lacks(new, "instance_id", active, allowed=len(active) * (1 - _SHRUNK_RATIO))


def _lacks(
    new: Answer[Any], id_field: str, named: AbstractSet[str | None], *, allowed: float = 0
) -> bool:
    """Return whether more records are missing than allowed, of those that another answer names by
    their ids.
    """
    listed = {getattr(record, id_field) for record in new.value}
    # Rejected records are missing for a known reason, and one of an unknown id may be any of them.
    return len(named - listed - {None}) > allowed and not new.rejected and None not in listed


def seats_are_others(
    _old: Old, new: Answer[Subnet], metagraph: Sequence[r.MetagraphNode] | None
) -> bool:
    """Compare the chain's seats with those of the API. Some may be taken between two answers."""
    hotkeys = dict(enumerate(new.value.hotkeys))
    listed = {node.node_id: node.hotkey for node in metagraph or () if node.node_id is not None}
    same = sum(hotkeys.get(uid) == hotkey for uid, hotkey in listed.items())
    return same < len(listed) * _SHRUNK_RATIO


def bounties_of_chutes_are_gone(old: Old, new: Answer[list[r.Chute]], *_others: Any) -> bool:
    """Look for bounties that disappeared all at once."""
    if old is None or new.rejected:
        return False
    return _bounties(old.value) >= _MIN_LOST_BOUNTIES and not _bounties(new.value)


def bounties_are_gone(
    old: Old, new: Answer[list[r.Bounty]], chutes: Sequence[r.Chute] | None
) -> bool:
    """Doubt an empty list if there were bounties before, or if the chutes have some: Redis may be
    missing.
    """
    before = max(old.count if old is not None else 0, _bounties(chutes or ()))
    return before >= _MIN_LOST_BOUNTIES and not new.listed


def history_is_gone(old: Old, new: Answer[Any]) -> bool:
    """Look for a miner that lost its history. The service lost its cache then."""
    return old is not None and old.count > 0 and not new.listed


def _bounties(chutes: Iterable[r.Chute]) -> int:
    return sum(1 for chute in chutes if chute.bounty is not UNSET and chute.bounty is not None)
