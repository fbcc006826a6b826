from __future__ import annotations

from typing import Any

from chutes_exporter.collectors.platform import JOBS_COLLECTOR as COLLECTOR
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


def test_a_job_that_may_be_stuck_hides_the_number_of_stuck_jobs() -> None:
    assert collected(COLLECTOR, {JOBS: [{"job_id": "j", "finished_at": None}]}) == {}


def test_a_job_of_an_unknown_chute_hides_how_many_wait_and_how_many_are_abandoned() -> None:
    found = run({}, {"chute_id": None})
    assert of(found, "chutes_jobs_waiting", "chutes_jobs_abandoned") == {}
