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
from chutes_exporter.fleet.failures import FAILS_FROM, count_failures
from chutes_exporter.rules.losses import END_REASONS
from tests.fleet.support import WORLDS, world_answers
from tests.recorded import seconds
from tests.support import PATIENCE, replay, served
from tests.test_ended import outcome, report_bodies, report_index, reported_ends

if TYPE_CHECKING:
    from collections.abc import Collection

    from chutes_exporter.api.records import AuditReport
    from chutes_exporter.rules.losses import Outcome
    from tests.recorded import Miner

NO_FAILURES = {
    *("scale_down", "update", "maintenance", "idle", "no_balance"),
    *("chute_removed", "redeployed"),
}


async def reports_of(miner: Miner) -> list[AuditReport]:
    """Return all reports of a miner's world, with what the miner needs."""
    found = []
    async with (
        served(replay({}, report_bodies(miner.directory))) as url,
        ChutesClient(url, timeout=PATIENCE) as client,
    ):
        for entry in report_index(miner.directory):
            answer = await client.fetch(AUDIT_REPORT, params={"path": entry["path"]})
            report = structs.replace(answer.value, end=seconds(entry["end"]))
            found.append(reduced(report, frozenset({miner.hotkey})))
    return found


def ledger_of(miner: Miner) -> Ledger:
    """Return the ended instances of a miner in all reports of its world."""
    chutes = world_answers(miner).chutes
    return Ledger(asyncio.run(reports_of(miner)), chutes.records if chutes else ())


def end(reason: str | None = "requests", outcome: Outcome = "lost", **fields: Any) -> End:
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
        "outcome": outcome,
        "lost_units": 0.0,
        "is_last_of_chute": False,
    }
    return End(**given | fields)


@pytest.mark.parametrize("miner", WORLDS, ids=str)
def test_failures_are_the_true_ends_that_do_not_count_without_the_planned_ones(
    miner: Miner,
) -> None:
    ledger = ledger_of(miner)
    ends = [one for one in ledger.ends(24) if one.hotkey == miner.hotkey]
    planned = {one.instance_id for one in ends if one.reason in NO_FAILURES}
    true = true_failures(miner, planned)
    found = count_failures(ends, ledger.end, are_all=True)
    assert true
    assert dict(found.known) == true
    assert not found.unclear


def true_failures(miner: Miner, planned: Collection[str]) -> Counter[str]:
    """Return the ends of a day that do not count, by chute, without the planned ones."""
    true: Counter[str] = Counter()
    for row in reported_ends(miner.directory):
        if row["miner"] != miner.hotkey or row["report"] >= 24:
            continue
        if outcome(row) != "counts" and row["instance_id"] not in planned:
            true[row["chute_id"]] += 1
    return true


def test_planned_ends_are_no_failures_and_all_others_are() -> None:
    reasons = {reason for reason in END_REASONS if end(reason).is_failure}
    assert reasons == set(END_REASONS) - NO_FAILURES
    assert end("miner", "never_active").is_failure
    assert end("requests", "counts").is_failure is False
    assert end("redeployed", "lost").is_failure is False


def test_a_chute_fails_from_three_failures_on() -> None:
    for count in range(5):
        found = count_failures([end()] * count, 0.0, are_all=True)
        assert (found.count("c"), found.fails("c")) == (count, count >= FAILS_FROM)
    assert count_failures([end()] * 3, 0.0, are_all=True).count("other") == 0


def test_enough_failures_prove_it_and_fewer_prove_nothing_while_some_are_not_known() -> None:
    few = count_failures([end()], 0.0, are_all=False)
    assert (few.count("c"), few.fails("c"), few.fails("other")) == (None, None, None)
    many = count_failures([end()] * 3, 0.0, are_all=False)
    assert (many.count("c"), many.fails("c"), many.fails("other")) == (None, True, None)


def test_an_end_that_may_be_a_redeployment_leaves_its_own_chute_unknown() -> None:
    found = count_failures([end(None), end(chute_id="other")], 0.0, are_all=True)
    assert (found.count("c"), found.fails("c")) == (None, None)
    assert found.count("other") == 1


def test_a_failure_of_an_unknown_chute_may_be_one_of_any() -> None:
    found = count_failures([end(chute_id=None)], 0.0, are_all=True)
    assert (found.count("c"), found.fails("c")) == (None, None)
    harmless = count_failures([end("requests", "counts", chute_id=None)], 0.0, are_all=True)
    assert harmless.count("c") == 0
