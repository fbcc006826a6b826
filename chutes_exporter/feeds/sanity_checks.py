"""Sanity checks find answers that look valid but are wrong.

A service whose query fails sends an empty stream with status 200. A service that lost its cache or
its monitoring sends empty lists and zeros. To find such answers, they are compared with the last
answer and with other endpoints.

Each check is a pure function of the last answer without a doubt (None: there is none), the new
answer, and the records of each other feed that it compares the answer with (None: unknown).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from chutes_exporter.api.answer import Answer
from chutes_exporter.api.errors import ApiError

if TYPE_CHECKING:
    from chutes_exporter.api import records as r

WORDS: Final[Mapping[str, str]] = {
    # by more than a fifth, and a second answer did not confirm it
    "shrunk": "the list became much shorter",
    "disagrees": "the list contradicts another answer",  # which names records that are missing
    "no_demand": "every chute reports zero demand",
    "no_bounties": "all bounties are missing",  # at once, and there were at least three
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


class DoubtedError(ApiError):
    """A doubted answer that does not replace an older one without a doubt.

    Sooner than ``retry_after``, it would be the same.
    """

    reason = "doubted"
    advice = "The last good answer stays in use."

    def __init__(self, doubt: str, retry_after: float) -> None:
        super().__init__(f"the answer is doubted: {doubt}", retry_after=retry_after)
        self.doubt = doubt


def reason_to_doubt(
    checks: Checks,
    old: Old,
    new: Answer[Any],
    others: Sequence[Any],
    *,
    first: Answer[Any] | None = None,
) -> str | None:
    """Return the first reason to doubt an answer, or None.

    Args:
        checks: The checks by the reason that each of them finds.
        old: The last answer without a doubt, None if there is none.
        new: The answer to check.
        others: The records of the feeds that the answer is compared with.
        first: The answer to another request a moment ago. If both are about equally long, they
            confirm each other, and the list has really shrunk.
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
    """Return whether a list of GPUs lacks some that the servers have.

    While the servers are unknown, only an empty list is doubted.
    """
    if servers is None:
        return not new.listed
    gpus_of_servers: set[str | None] = set()
    for server in servers:
        gpus_of_servers.update(gpu.uuid for gpu in server.gpus or ())
    return _lacks(new, "uuid", gpus_of_servers)


def instances_are_missing(
    _old: Old, new: Answer[list[r.Instance]], held: Sequence[r.InventoryItem] | None
) -> bool:
    """Return whether a list of instances has none of a chute that holds GPUs."""
    return _lacks(new, "chute_id", {item.chute_id for item in held or ()})


def chutes_are_missing(
    _old: Old,
    new: Answer[list[r.Chute]],
    active: Sequence[r.ActiveInstance] | None,
    metrics: Sequence[r.ChuteMetrics] | None,
) -> bool:
    """Return whether a list lacks more running chutes than are deleted between two answers."""
    running = {instance.chute_id for instance in active or ()}
    # The metrics list every chute with an instance.
    running.update(chute.chute_id for chute in metrics or ())
    return _lacks(new, "chute_id", running, allowed=_MAX_DELETED_CHUTES)


def held_gpus_are_missing(
    _old: Old, new: Answer[list[r.HeldGpu]], instances: Sequence[r.ActiveInstance] | None
) -> bool:
    """Return whether a list of held GPUs lacks more than a fifth of the active instances.

    Some may have begun or ended between two answers.
    """
    active = {instance.instance_id for instance in instances or ()}
    return _lacks(new, "instance_id", active, allowed=len(active) * (1 - _SHRUNK_RATIO))


def _lacks(
    new: Answer[Any], id_field: str, named: AbstractSet[str | None], *, allowed: float = 0
) -> bool:
    """Return whether an answer lacks more of the named ids than allowed.

    ``id_field`` is the field of its records that has the id.
    """
    ids_in_answer = {getattr(record, id_field) for record in new.value}
    # Any of the named ids may be that of a rejected record, or of a record with an unknown id.
    if new.rejected or None in ids_in_answer:
        return False
    missing = named - ids_in_answer - {None}
    return len(missing) > allowed


def bounties_of_chutes_are_gone(old: Old, new: Answer[list[r.Chute]], *_others: Any) -> bool:
    """Return whether all bounties of the chutes disappeared at once."""
    # A rejected record may be that of a chute with a bounty.
    if old is None or new.rejected:
        return False
    count_before = _count_bounties(old.value)
    return count_before >= _MIN_LOST_BOUNTIES and not _count_bounties(new.value)


def bounties_are_gone(
    old: Old, new: Answer[list[r.Bounty]], chutes: Sequence[r.Chute] | None
) -> bool:
    """Return whether an empty list contradicts the last answer, or the bounties of the chutes.

    This happens if the service has lost its Redis.
    """
    if new.listed:
        return False
    count_before = 0 if old is None else old.count
    count_by_chutes = _count_bounties(chutes or ())
    return max(count_before, count_by_chutes) >= _MIN_LOST_BOUNTIES


def _count_bounties(chutes: Iterable[r.Chute]) -> int:
    return sum(1 for chute in chutes if chute.bounty is not UNSET and chute.bounty is not None)
