from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.jobs import COLLECTOR
from chutes_exporter.feeds.table import JOBS
from tests.collectors.support import ELEVEN_TEXT, HOUR, ME, NOON, NOON_TEXT, UNREADABLE, collected


def job(number: int, **fields: Any) -> dict[str, Any]:
    """Return a waiting job, unless its fields say something else."""
    return {
        "job_id": f"j{number}",
        "method": "train",
        "created_at": NOON_TEXT,
        "finished_at": None,
        "miner_hotkey": None,
        "miner_history": [],
    } | fields


def test_jobs_that_wait_and_jobs_that_are_stuck_are_counted() -> None:
    answer = [
        job(1, miner_history=[ME, "other"]),
        job(2, method="infer", created_at=ELEVEN_TEXT),
        job(3, method="infer", miner_history=["other"]),
        job(4, miner_hotkey=ME),
        job(5, miner_hotkey="other"),
        job(6, finished_at=NOON_TEXT, miner_hotkey=ME, miner_history=[ME]),
    ]
    assert collected(COLLECTOR, {JOBS: answer}).samples == {
        "chutes_jobs_waiting": 3,
        "chutes_jobs_available{method=train}": 1,
        "chutes_jobs_available{method=infer}": 2,
        "chutes_jobs_oldest_created_timestamp_seconds": NOON - HOUR,
        "chutes_jobs_tried{hotkey=me}": 1,
        "chutes_jobs_stuck{hotkey=me}": 1,
    }


def test_an_empty_list_means_that_no_job_waits() -> None:
    assert collected(COLLECTOR, {JOBS: []}).samples == {
        "chutes_jobs_waiting": 0,
        "chutes_jobs_tried{hotkey=me}": 0,
        "chutes_jobs_stuck{hotkey=me}": 0,
    }


def test_each_watched_miner_has_its_own_counts_and_no_other_miner_has() -> None:
    answer = [job(1, miner_history=["a"]), job(2, miner_hotkey="b"), job(3, miner_hotkey="c")]
    made = collected(COLLECTOR, {JOBS: answer}, watched=["a", "b"], miners="all")
    assert made.of("chutes_jobs_tried", "chutes_jobs_stuck") == {
        "chutes_jobs_tried{hotkey=a}": 1,
        "chutes_jobs_stuck{hotkey=a}": 0,
        "chutes_jobs_tried{hotkey=b}": 0,
        "chutes_jobs_stuck{hotkey=b}": 1,
    }


@pytest.mark.parametrize(
    ("field", "hidden"),
    [
        ("method", {"chutes_jobs_available{method=train}"}),
        ("created_at", {"chutes_jobs_oldest_created_timestamp_seconds"}),
        ("miner_history", {"chutes_jobs_tried{hotkey=me}"}),
    ],
)
def test_an_unknown_field_of_a_waiting_job_hides_what_needs_it(field: str, hidden: set[str]) -> None:
    known = collected(COLLECTOR, {JOBS: [job(1)]}).samples
    made = collected(COLLECTOR, {JOBS: [job(1), job(2, **{field: None})]}).samples
    assert known.keys() - made.keys() == hidden
    assert made["chutes_jobs_waiting"] == 2


def test_an_unknown_field_of_a_job_that_is_over_hides_nothing() -> None:
    over = job(2, finished_at=NOON_TEXT, method=None, created_at=None, miner_history=None)
    assert collected(COLLECTOR, {JOBS: [job(1), over]}) == collected(COLLECTOR, {JOBS: [job(1)]})


@pytest.mark.parametrize("field", ["finished_at", "miner_hotkey"])
def test_a_job_in_an_unknown_state_hides_all_counts(field: str) -> None:
    unknown = job(2)
    del unknown[field]
    assert collected(COLLECTOR, {JOBS: [job(1), unknown]}).samples == {}


def test_a_job_that_is_listed_twice_counts_once() -> None:
    made = collected(COLLECTOR, {JOBS: [job(1), job(1)]})
    assert made.samples["chutes_jobs_waiting"] == 1
    assert made.duplicates == 1


def test_an_incomplete_answer_counts_nothing() -> None:
    assert collected(COLLECTOR, {JOBS: [job(1), UNREADABLE]}).samples == {}
    assert collected(COLLECTOR, {JOBS: [job(1)]}, doubted=[JOBS]).samples == {}
