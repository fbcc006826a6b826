from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands.support import Target, hotkey_file, run
from tests.exporters import served
from tests.recorded import recorded_api
from tests.replay import Fault, Replay
from tests.support import HOTKEY
from tests.test_credentials import OTHER

if TYPE_CHECKING:
    from pathlib import Path


STUCK = "c105691c-bff6-47f6-96b9-1ac38432bfb8"
"""The stuck job of the troubled miner."""


async def test_releasing_a_job_asks_first(replay: Replay) -> None:
    _, output, _ = await run(replay, "release-job", stdin="n\n")
    assert f"Release job {STUCK} (chute " in output
    assert f" of {HOTKEY} at {replay.url}? [y/N]" in output
    # The input ends without an answer to the question.
    status, output, _ = await run(replay, "release-job")
    assert (status, STUCK in output) == (1, True)
    status, output, _ = await run(replay, "release-job", stdin="y\n")
    assert (status, f"Released job {STUCK}." in output) == (0, True)
    status, _, errors = await run(replay, "release-job", stdin="y\n")
    assert (status, errors) == (0, f"No job is stuck with {HOTKEY}.\n")
    status, _, errors = await run(replay, "release-job", variables={})
    assert (status, "--hotkey-file" in errors) == (2, True)


async def test_a_failure_says_how_to_see_whether_the_job_is_released(replay: Replay) -> None:
    replay.faults["release_job"] = Fault(status=500)
    status, output, errors = await run(replay, "release-job", stdin="y\n")
    assert (status, "Released" in output) == (1, False)
    assert "Error: the release failed. Run release-job again to see whether" in errors


async def test_a_key_of_another_miner_beside_it_is_refused(replay: Replay, tmp_path: Path) -> None:
    both_keys = ("--hotkey-file", str(hotkey_file(tmp_path)))
    status, _, errors = await run(replay, "release-job", *both_keys, stdin="y\n")
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
    ("job", "is_unknown"),
    [
        ({"miner_hotkey": OTHER, "finished_at": None}, False),
        ({"miner_hotkey": None, "finished_at": None}, False),
        ({"miner_hotkey": HOTKEY, "finished_at": "2026-11-24T12:00:00"}, False),
        # It does not say whether it is finished. Only the miner that claimed it can release it.
        ({"miner_hotkey": HOTKEY}, True),
        ({"miner_hotkey": OTHER}, False),
        # It does not say who claimed it.
        ({"finished_at": None}, True),
    ],
)
async def test_a_job_that_is_not_stuck_with_the_miner_is_not_offered(
    job: dict[str, Any],
    is_unknown: bool,  # noqa: FBT001 - a parameter
) -> None:
    line = json.dumps({"job_id": "a", "chute_id": "c", **job})
    async with served(recorded_api({"jobs": line.encode()})) as url:
        status, output, errors = await run(Target(url), "release-job", stdin="n\n")
    assert (status, "job a" in output) == (0, False)
    assert ("incomplete" in errors, "No job is stuck" in errors) == (is_unknown, not is_unknown)
