from __future__ import annotations

from typing import Any

from chutes_exporter.collectors.jobs import COLLECTOR
from chutes_exporter.feeds.table import CHUTES, JOBS
from tests.collectors.support import ELEVEN_TEXT, HOUR, ME, NOON, NOON_TEXT, Samples, collected, of


def job(number: int, **fields: Any) -> dict[str, Any]:
    """Return a waiting job, unless its fields say something else."""
    return {
        "job_id": f"j{number}",
        "chute_id": "c",
        "method": "train",
        "created_at": NOON_TEXT,
        "finished_at": None,
        "miner_hotkey": None,
        "miner_history": [],
    } | fields


def run(jobs: list[dict[str, Any]], *, chutes: Any = ({"chute_id": "c"},), **options: Any) -> Samples:
    return collected(COLLECTOR, {JOBS: jobs, CHUTES: list(chutes)}, **options)


def test_jobs_that_wait_and_jobs_that_are_stuck_are_counted() -> None:
    answer = [
        job(1, miner_history=[ME, "other"]),
        job(2, method="infer", created_at=ELEVEN_TEXT),
        job(3, method="infer", miner_history=["other"]),
        job(4, miner_hotkey=ME),
        job(5, miner_hotkey="other"),
        job(6, finished_at=NOON_TEXT, miner_hotkey=ME, miner_history=[ME]),
        job(7, miner_history=[ME] * 15),
        job(8, chute_id="gone", miner_history=[ME]),
    ]
    assert run(answer) == {
        "chutes_jobs_waiting": 3,
        "chutes_jobs_abandoned": 2,
        "chutes_jobs_available{method=train}": 1,
        "chutes_jobs_available{method=infer}": 2,
        "chutes_jobs_oldest_created_timestamp_seconds": NOON - HOUR,
        "chutes_jobs_tried{hotkey=me}": 1,
        "chutes_jobs_stuck{hotkey=me}": 1,
    }


def test_each_watched_miner_has_its_own_counts_and_no_other_miner_has() -> None:
    answer = [job(1, miner_history=["a"]), job(2, miner_hotkey="b"), job(3, miner_hotkey="c")]
    made = run(answer, watched=["a", "b"], miners="all")
    assert of(made, "chutes_jobs_tried", "chutes_jobs_stuck") == {
        "chutes_jobs_tried{hotkey=a}": 1,
        "chutes_jobs_stuck{hotkey=a}": 0,
        "chutes_jobs_tried{hotkey=b}": 0,
        "chutes_jobs_stuck{hotkey=b}": 1,
    }


def test_an_unknown_field_of_a_job_that_is_over_hides_nothing() -> None:
    over = job(2, finished_at=NOON_TEXT, method=None, created_at=None, miner_history=None)
    assert run([job(1), over]) == run([job(1)])
