from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.api.records import Job
from chutes_exporter.rules.jobs import job_state
from tests.rules.support import NOON, read


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"finished_at": None, "miner_hotkey": None}, "waiting"),
        # After 15 tries, or if its chute is gone, nobody can take it any more.
        ({"finished_at": None, "miner_hotkey": None, "miner_history": ["h"] * 14}, "waiting"),
        ({"finished_at": None, "miner_hotkey": None, "miner_history": ["h"] * 15}, "abandoned"),
        ({"finished_at": None, "miner_hotkey": None, "miner_history": None}, None),
        ({"finished_at": None, "miner_hotkey": None, "chute_id": "gone"}, "abandoned"),
        ({"finished_at": None, "miner_hotkey": None, "chute_id": None}, None),
        ({"finished_at": None, "miner_hotkey": "h"}, "stuck"),
        ({"finished_at": NOON, "miner_hotkey": "h"}, "finished"),
        ({"finished_at": NOON, "miner_hotkey": None}, "finished"),
        ({"finished_at": NOON}, "finished"),
        # One of the two fields is missing.
        ({"finished_at": None}, None),
        ({"miner_hotkey": None}, None),
    ],
)
def test_the_state_of_a_job_follows_from_its_fields(
    fields: dict[str, Any], state: str | None
) -> None:
    # A job that waits and one that is stuck are both "pending". Only the chute "c" exists.
    usual = {"job_id": "j", "status": "pending", "chute_id": "c", "miner_history": []}
    job = read(Job, **usual | fields)
    assert job_state(job, {"c"}) == state
    # Without the list of chutes, a job that waits may be of a chute that is gone.
    needs_chutes = job.chute_id == "gone" or state == "waiting"
    assert job_state(job, None) == (None if needs_chutes else state)
