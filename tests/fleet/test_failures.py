"""Failures of chutes, from the reports of recorded worlds and from a few ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from chutes_exporter.api import ChutesClient
from chutes_exporter.api.endpoints import AUDIT_REPORT
from chutes_exporter.feeds.reports import reduced
from chutes_exporter.fleet.ends import End, Ledger
from chutes_exporter.fleet.failures import count_failures
from chutes_exporter.rules.losses import END_REASONS
from tests.fleet.support import WORLDS, truth, world_answers
from tests.recorded import (
    WORLD_F,
    may_have_lost_race,
    outcome,
    report_bodies,
    report_index,
    reported_ends,
    seconds,
)
from tests.support import PATIENCE, replay, served

if TYPE_CHECKING:
    from collections.abc import Collection

    from chutes_exporter.api.records import AuditReport
    from chutes_exporter.rules.losses import Outcome
    from tests.recorded import Miner

PLANNED = {
    *("scale_down", "update", "maintenance", "idle", "no_balance"),
    *("chute_removed", "redeployed"),
}
"""The reasons of ends that are no failures."""


async def reports_of(miner: Miner) -> list[AuditReport]:
    """Return all reports of a miner's world, with the ends and multipliers of this miner only."""
    found = []
    async with (
        served(replay({}, report_bodies(miner.directory))) as url,
        ChutesClient(url, timeout=PATIENCE) as client,
    ):
        for entry in report_index(miner.directory):
            answer = await client.fetch(AUDIT_REPORT, params={"path": entry["path"]})
            # Only the list of reports says when a report ends.
            report = structs.replace(answer.value, end=seconds(entry["end"]))
            found.append(reduced(report, frozenset({miner.hotkey})))
    return found


def ledger_of(miner: Miner) -> Ledger:
    """Return the ended instances of a miner in all reports of its world."""
    chutes = world_answers(miner).chutes
    return Ledger(asyncio.run(reports_of(miner)), chutes.records if chutes else ())


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


@pytest.mark.parametrize("miner", WORLDS, ids=str)
def test_failures_are_the_true_ends_that_do_not_count_without_the_planned_ones(
    miner: Miner,
) -> None:
    ledger = ledger_of(miner)
    ended = [one for one in ledger.ends(24) if one.hotkey == miner.hotkey]
    planned = {one.instance_id for one in ended if one.reason in PLANNED}
    true, unclear = true_failures(miner, planned)
    found = count_failures(ended, ledger.end, are_all_known=True)
    # Each world has some failures, and most have starts that may have lost a race.
    assert true
    assert unclear or miner.directory == WORLD_F
    assert dict(found.known) == true
    assert found.unclear == unclear


def true_failures(miner: Miner, planned: Collection[str]) -> tuple[Counter[str], Counter[str]]:
    """Return the numbers of failures of a day, and of ends that may be failures, by chute.

    ``planned`` are the ids of the instances whose ends are no failures. A private chute, and one
    without TEE, may have been filled by others while an instance started. An end without a reason
    may be that of a job that is over.
    """
    launch = truth(miner)["launch"]
    true: Counter[str] = Counter()
    unclear: Counter[str] = Counter()
    for row in reported_ends(miner.directory):
        # The newest hourly report has the number 0, so those of the day are below 24.
        if row["miner"] != miner.hotkey or row["report"] >= 24:
            continue
        if outcome(row) == "counts" or row["instance_id"] in planned:
            continue
        chute = launch.get(row["chute_id"])
        can_lose_race = chute is None or chute.get("rules") != "general" or not chute["tee"]
        if not row["reason"] or (can_lose_race and may_have_lost_race(row)):
            unclear[row["chute_id"]] += 1
        else:
            true[row["chute_id"]] += 1
    return true, unclear


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


def test_a_chute_without_an_end_has_no_failure() -> None:
    assert count_failures([end(chute_id="c")], 0.0, are_all_known=True).count("other") == 0


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


def test_an_end_that_counts_says_nothing_about_failures_even_if_its_chute_is_unknown() -> None:
    found = count_failures([end("requests", "counts", chute_id=None)], 0.0, are_all_known=True)
    assert found.count("c") == 0
