from __future__ import annotations

import pytest
from msgspec.structs import replace

from chutes_exporter.api.records import AuditInstance, ComputeRecord, UnixTime
from chutes_exporter.rules.losses import (
    END_REASONS,
    is_failure,
    join_records,
    loss_of,
    reason_of_text,
)

DELETED = AuditInstance(
    "i",
    "me",
    created_at=UnixTime(0),
    activated_at=UnixTime(100),
    deleted_at=UnixTime(2000),
    stop_billing_at=None,
    billed_to="user",
    deletion_reason="miner initialized",
    valid_termination=False,
)
"""A private instance that its miner deleted."""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("miner initialized", "miner"),
        ("Rolling update timeout", "update"),
        ("instance 1 of chute 2 has an old version of the chute", "update"),
        (
            (
                "Private chute chute.chute_id='1' chute.name='x' already has >= target_count=1 "
                "active instances"
            ),
            # The service takes this end back with the request that it refused.
            "other",
        ),
        ("Private chute has an old versio", "other"),
        ("a text of tomorrow", "other"),
        ("", "none"),
        (None, "none"),
    ],
)
def test_a_text_of_the_service_has_a_reason(text: str | None, reason: str) -> None:
    assert reason_of_text(text) == reason


def test_planned_ends_are_no_failures_and_all_others_are() -> None:
    planned = ("scale_down", "update", "maintenance", "idle", "no_balance", "chute_removed")
    found = {reason: is_failure(DELETED, reason, None) for reason in (*END_REASONS, None)}
    assert {reason for reason in found if found[reason] is False} == {
        *planned,
        "redeployed",
        "miner",
    }
    # Without a reason, it may be a job that is over, or was redeployed.
    assert {reason for reason in found if found[reason] is None} == {"none", None}
    # Its miner may have deleted a start because it failed.
    assert is_failure(replace(DELETED, activated_at=None), "miner", None) is None


@pytest.mark.parametrize("step", [1, -1])
def test_of_two_records_with_one_start_the_open_one_is_cut_in_any_order(step: int) -> None:
    # A report has its records in any order, so a step of -1 reverses them. The older report shows
    # the open record before the deletion cut it to 0.
    start_up = ComputeRecord("i", UnixTime(0), 3.5, UnixTime(100))
    before = [start_up, ComputeRecord("i", UnixTime(0), 3.5)]
    after = [start_up, ComputeRecord("i", UnixTime(0), 0.0, UnixTime(2000))]
    history = join_records({3600: after[::step], 0: before[::step]})
    loss = loss_of(DELETED, history, now=2000)
    assert loss.is_last_of_chute
    # The service pays both records, although they begin at the same time.
    assert loss.units == 3.5 * 100 + 3.5 * 2000


@pytest.mark.parametrize(("hour", "precision"), [(3600, "exact"), (7200, "at_least")])
def test_only_the_report_of_its_activation_has_all_records_of_an_instance(
    hour: float, precision: str
) -> None:
    history = join_records({hour: [ComputeRecord("i", UnixTime(0), 3.5, UnixTime(2000))]})
    loss = loss_of(DELETED, history, now=7200)
    assert (loss.units, loss.precision) == (3.5 * 2000, precision)


def test_a_record_whose_end_no_report_shows_counts_until_the_last_report_that_has_it() -> None:
    newest = [ComputeRecord("i", UnixTime(1500), 2.0, UnixTime(2000))]
    history = join_records({7200: newest, 1000: [ComputeRecord("i", UnixTime(0), 3.5)]})
    loss = loss_of(DELETED, history, now=7200)
    assert (loss.units, loss.precision) == (3.5 * 1000 + 2.0 * 500, "at_least")
