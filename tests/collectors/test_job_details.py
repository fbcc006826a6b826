from __future__ import annotations

from chutes_exporter.collectors.job_details import COLLECTOR
from chutes_exporter.feeds.table import JOBS
from tests.collectors.support import NOON, NOON_TEXT, UNREADABLE, collected

WAITING = {"job_id": "j", "finished_at": None, "miner_hotkey": None}


def test_a_waiting_job_has_its_chute_its_age_its_multiplier_and_its_tries() -> None:
    job = WAITING | {
        "chute_id": "c",
        "method": "train",
        "status": "pending",
        "created_at": NOON_TEXT,
        "compute_multiplier": 16.0,
        "miner_history": ["me", "other"],
    }
    assert collected(COLLECTOR, {JOBS: [job]}).samples == {
        "chutes_job_info{job_id=j,chute_id=c,method=train,status=pending}": 1,
        "chutes_job_created_timestamp_seconds{job_id=j}": NOON,
        "chutes_job_compute_multiplier{job_id=j}": 16,
        "chutes_job_tries{job_id=j}": 2,
    }


def test_a_job_that_nobody_tried_has_zero_tries_and_an_unknown_history_has_none() -> None:
    untried = collected(COLLECTOR, {JOBS: [WAITING | {"miner_history": []}]})
    assert untried.samples == {"chutes_job_info{job_id=j}": 1, "chutes_job_tries{job_id=j}": 0}
    unknown = collected(COLLECTOR, {JOBS: [WAITING | {"miner_history": None}]})
    assert unknown.samples == {"chutes_job_info{job_id=j}": 1}


def test_a_job_that_does_not_wait_or_may_not_wait_is_left_out() -> None:
    answer = [
        {"job_id": "finished", "finished_at": NOON_TEXT, "miner_hotkey": None},
        {"job_id": "stuck", "finished_at": None, "miner_hotkey": "me"},
        {"job_id": "unknown end", "miner_hotkey": None},
        {"job_id": "unknown miner", "finished_at": None},
    ]
    assert collected(COLLECTOR, {JOBS: answer}).samples == {}


def test_a_job_that_is_listed_twice_is_one_series() -> None:
    made = collected(COLLECTOR, {JOBS: [WAITING, WAITING]})
    assert made.samples == {"chutes_job_info{job_id=j}": 1}
    assert made.duplicates == 1


def test_the_jobs_that_are_known_stay_where_the_answer_is_incomplete() -> None:
    expected = {"chutes_job_info{job_id=j}": 1}
    assert collected(COLLECTOR, {JOBS: [WAITING, UNREADABLE]}).samples == expected
    assert collected(COLLECTOR, {JOBS: [WAITING]}, doubted=[JOBS]).samples == expected
