from __future__ import annotations

from typing import Any

from chutes_exporter.collectors.jobs import COLLECTOR
from chutes_exporter.feeds.definitions import CHUTES, JOBS
from tests.collectors.support import NOON_TEXT, Samples, collected, of

WAITING: dict[str, Any] = {
    "chute_id": "c",
    "method": "train",
    "created_at": NOON_TEXT,
    "finished_at": None,
    "miner_hotkey": None,
    "miner_history": [],
}


def run(*jobs: dict[str, Any], **options: Any) -> Samples:
    answer = [WAITING | {"job_id": f"j{number}"} | job for number, job in enumerate(jobs)]
    return collected(COLLECTOR, {JOBS: answer, CHUTES: [{"chute_id": "c"}]}, **options)


def tried_by(hotkey: str) -> dict[str, Any]:
    return {"miner_history": [hotkey]}


def stuck_with(hotkey: str) -> dict[str, Any]:
    """Return a job that a miner holds without an instance for it."""
    return {"miner_hotkey": hotkey}


def test_each_watched_miner_has_its_own_counts_and_no_other_miner_has() -> None:
    jobs = [tried_by("a"), stuck_with("b"), stuck_with("c")]
    # Jobs are about the watched miners, even if all miners are exported.
    samples = run(*jobs, watched=["a", "b"], miners="all")
    assert of(samples, "chutes_jobs_tried", "chutes_jobs_stuck") == {
        "chutes_jobs_tried{hotkey=a}": 1,
        "chutes_jobs_stuck{hotkey=a}": 0,
        "chutes_jobs_tried{hotkey=b}": 0,
        "chutes_jobs_stuck{hotkey=b}": 1,
    }


def test_an_unknown_field_of_a_job_that_is_over_hides_nothing() -> None:
    over = {"finished_at": NOON_TEXT, "method": None, "created_at": None, "miner_history": None}
    assert run({}, over) == run({})


def test_a_job_that_may_be_stuck_hides_the_number_of_stuck_jobs() -> None:
    assert collected(COLLECTOR, {JOBS: [{"job_id": "j", "finished_at": None}]}) == {}


def test_a_job_of_an_unknown_chute_hides_how_many_wait_and_how_many_are_abandoned() -> None:
    found = run({}, {"chute_id": None})
    assert of(found, "chutes_jobs_waiting", "chutes_jobs_abandoned") == {}
