"""Which ends are failures, and which chutes fail. tests/commands/test_advise.py has a world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.fleet.ends import End
from chutes_exporter.fleet.failures import count_failures
from chutes_exporter.rules.losses import END_REASONS

if TYPE_CHECKING:
    from chutes_exporter.rules.losses import Outcome

PLANNED = {
    *("scale_down", "update", "maintenance", "idle", "no_balance"),
    *("chute_removed", "redeployed"),
}
"""The reasons of ends that are no failures."""


def end(reason: str | None = "requests", outcome: Outcome = "lost", **fields: Any) -> End:
    """Return an end of an instance of the chute c. By default, it is a failure."""
    given: dict[str, Any] = {
        "instance_id": "i",
        "hotkey": "me",
        "chute_id": "c",
        "private": False,
        "created_at": 0.0,
        "activated_at": 1.0,
        "ended_at": 2.0,
        "reason": reason,
        "text": None,
        "may_have_lost_race": False,
        "outcome": outcome,
        "lost_units": 0.0,
        "loss_precision": "exact",
        "is_last_of_chute": False,
    }
    return End(**given | fields)


def test_planned_ends_are_no_failures_and_all_others_are() -> None:
    failures = {reason for reason in END_REASONS if end(reason, "lost").is_failure}
    # Without a reason, it may be a job that is over.
    assert failures == set(END_REASONS) - PLANNED - {"none"}
    assert end("none", "lost").is_failure is None


UNCLEAR = end("none")
"""It may be a job that is over, which is no failure."""


@pytest.mark.parametrize(
    ("ends", "are_all_known", "count", "fails"),
    [
        # A chute fails from three failures on.
        ([end()] * 2, True, 2, False),
        ([end()] * 3, True, 3, True),
        # A start that was never active failed, and an end that counts did not.
        ([end(outcome="never_active")] * 3, True, 3, True),
        ([end(outcome="counts")] * 3, True, 0, False),
        # Enough failures prove it, and fewer prove nothing while some are not known.
        ([end()] * 2, False, None, None),
        ([end()] * 3, False, None, True),
        # Two ends are not enough, whatever they were.
        ([end(), UNCLEAR], True, 1, False),
        ([end(), UNCLEAR, UNCLEAR], True, 1, None),
        # Only the name of its chute would say whether it was redeployed.
        ([end(reason=None)] * 3, True, 0, None),
        ([end("not_active_in_time", "never_active", may_have_lost_race=True)] * 3, True, 0, None),
        # It may be a failure of any chute.
        ([end(chute_id=None)], True, None, None),
    ],
)
def test_a_chute_fails_from_three_failures_on(
    ends: list[End],
    are_all_known: bool,  # noqa: FBT001 - a parameter
    count: int | None,
    fails: bool | None,  # noqa: FBT001 - a parameter
) -> None:
    found = count_failures(ends, 0.0, are_all_known=are_all_known)
    assert (found.count("c"), found.fails("c")) == (count, fails)
