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


def test_a_start_that_was_never_active_failed_and_an_end_that_counts_did_not() -> None:
    assert end("requests", "never_active").is_failure is True
    assert end("requests", "counts").is_failure is False


def test_a_chute_fails_from_three_failures_on() -> None:
    for count in range(5):
        found = count_failures([end()] * count, 0.0, are_all_known=True)
        assert found.count("c") == count
        assert found.fails("c") == (count >= 3)


def test_enough_failures_prove_it_and_fewer_prove_nothing_while_some_are_not_known() -> None:
    # A chute fails from three failures on.
    few = count_failures([end()], 0.0, are_all_known=False)
    assert (few.count("c"), few.fails("c")) == (None, None)
    enough = count_failures([end()] * 3, 0.0, are_all_known=False)
    assert (enough.count("c"), enough.fails("c")) == (None, True)
    # Another chute may have all those that are not known.
    assert enough.fails("other") is None


@pytest.mark.parametrize(
    "unclear",
    [
        # Only the name of the chute, which is not known, would say whether it was redeployed.
        end(reason=None),
        end("not_active_in_time", "never_active", may_have_lost_race=True),
        # As a job that is over.
        end("none"),
    ],
)
def test_an_end_that_may_be_no_failure_is_not_counted_and_leaves_its_chute_unknown(
    unclear: End,
) -> None:
    found = count_failures([end(), unclear, unclear], 0.0, are_all_known=True)
    assert (found.count("c"), found.fails("c")) == (1, None)
    # Two ends are not enough, whatever they were.
    found = count_failures([end(), unclear], 0.0, are_all_known=True)
    assert (found.count("c"), found.fails("c")) == (1, False)


def test_a_failure_of_an_unknown_chute_may_be_one_of_any() -> None:
    found = count_failures([end(chute_id=None)], 0.0, are_all_known=True)
    assert (found.count("c"), found.fails("c")) == (None, None)
