from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.demo.replay import Fault, Replay
from tests import support
from tests.commands.support import Target, hotkey_file, run
from tests.support import HOTKEY, served
from tests.test_credentials import OTHER

if TYPE_CHECKING:
    from pathlib import Path


STUCK = "c105691c-bff6-47f6-96b9-1ac38432bfb8"
"""The stuck job of the troubled miner."""


async def stuck_jobs(replay: Replay) -> str:
    """Return the list of stuck jobs."""
    _, output, _ = await run(replay, "release-job")
    return output


async def test_releasing_a_job_asks_first(replay: Replay) -> None:
    status, output, _ = await run(replay, "release-job", STUCK, stdin="n\n")
    assert status == 1
    assert f"Release job {STUCK} of {HOTKEY}" in output
    # The input ends without an answer to the question.
    status, _, _ = await run(replay, "release-job", STUCK)
    assert (status, STUCK in await stuck_jobs(replay)) == (1, True)
    status, output, _ = await run(replay, "release-job", STUCK, stdin="y\n")
    assert (status, await stuck_jobs(replay)) == (0, "")
    assert "Released" in output
    status, _, errors = await run(replay, "release-job", STUCK, "--yes")
    assert status == 1
    assert f"job {STUCK} is not released: " in errors
    status, _, errors = await run(replay, "release-job", STUCK, "--yes", variables={})
    assert status == 2
    assert "--hotkey-file" in errors


async def test_a_failure_says_how_to_see_whether_the_job_is_released(replay: Replay) -> None:
    replay.faults["release_job"] = Fault(status=500)
    status, _, errors = await run(replay, "release-job", STUCK, "--yes")
    assert status == 1
    assert f"Error: the release of job {STUCK} failed: " in errors
    assert "→ Run release-job without JOB_ID to see whether the job is still stuck." in errors


async def test_a_key_of_another_miner_beside_it_is_refused(replay: Replay, tmp_path: Path) -> None:
    both_keys = ("--hotkey-file", str(hotkey_file(tmp_path)))
    status, _, errors = await run(replay, "release-job", STUCK, "--yes", *both_keys)
    assert (status, "exactly one key" in errors) == (2, True)


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (Fault(body=b""), 0, f"No job is stuck with {HOTKEY}."),
        (
            Fault(body=b'{"job_id": "a"}\n{"job_id": 5}\n'),
            0,
            "The list may be incomplete, because some jobs",
        ),
        (Fault(status=500), 1, "Error: jobs: 500 "),
    ],
)
async def test_a_list_without_a_stuck_job_says_whether_there_is_none(
    replay: Replay, fault: Fault, status: int, words: str
) -> None:
    replay.faults["jobs"] = fault
    exit_status, output, errors = await run(replay, "release-job")
    assert (exit_status, output) == (status, "")
    assert errors.startswith(words)
    # Only a complete list says that no job is stuck.
    assert errors.count("No job is stuck") == words.count("No job is stuck")


@pytest.mark.parametrize(
    "job",
    [
        {"miner_hotkey": OTHER, "finished_at": None},
        {"miner_hotkey": None, "finished_at": None},
        {"miner_hotkey": HOTKEY, "finished_at": "2026-11-24T12:00:00"},
        # It does not say whether it is finished.
        {"miner_hotkey": HOTKEY},
        {"job_id": "b", "miner_hotkey": HOTKEY, "finished_at": None},
    ],
)
async def test_a_job_that_is_not_stuck_with_the_miner_is_not_released(job: dict[str, Any]) -> None:
    line = json.dumps({"job_id": "a", "chute_id": "c", **job})
    async with served(support.replay({"jobs": line.encode()})) as url:
        status, output, errors = await run(Target(url), "release-job", "a", "--yes")
    assert (status, output) == (1, "")
    assert f"Error: job a is not released: it is not stuck with {HOTKEY}" in errors
    assert ("incomplete" in errors) is (job == {"miner_hotkey": HOTKEY})
