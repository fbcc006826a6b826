from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.simulator import Fault, Simulator, Size, World
from tests.commands.support import Target, another_key, run
from tests.support import HOTKEY, Clock, replay, served
from tests.test_credentials import OTHER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def clock() -> Clock:
    """The time at which the test began: the command's own clock is near, and all commands of a test
    see one world.
    """
    return Clock(time.time())


@pytest.fixture
async def one_miner(clock: Clock) -> AsyncIterator[Simulator]:
    """A simulator whose jobs can only be claimed by the test key's miner."""
    world = World(start=clock.now, size=Size(miners=2, active_miners=1, chutes=30))
    async with Simulator(world, clock=clock) as running:
        yield running


def stuck_job(simulator: Simulator) -> str:
    """Return the id of a stuck job, which is the test miner's."""
    return next(one.job_id for one in simulator.world.jobs(simulator.clock()) if one.stuck)


async def test_releasing_a_job_asks_first(one_miner: Simulator) -> None:
    simulator = one_miner

    def released() -> set[str]:
        return simulator.world.released_jobs

    job = stuck_job(simulator)
    status, output, _ = await run(simulator, "release-job", job, stdin="n\n")
    assert (status, released() & {job}) == (1, set())
    assert f"Release job {job} of {HOTKEY}" in output
    # The input ends without an answer to the question.
    status, _, _ = await run(simulator, "release-job", job)
    assert (status, released() & {job}) == (1, set())
    status, output, _ = await run(simulator, "release-job", job, stdin="y\n")
    assert (status, released() & {job}) == (0, {job})
    assert "Released" in output
    status, _, errors = await run(simulator, "release-job", job, "--yes")
    assert status == 1
    assert f"job {job} is not released: " in errors
    status, _, errors = await run(simulator, "release-job", job, "--yes", variables={})
    assert status == 2
    assert "--hotkey-file" in errors


async def test_an_interrupted_question_releases_nothing(
    one_miner: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("click.termui.visible_prompt_func", interrupt)
    status, _, errors = await run(one_miner, "release-job", stuck_job(one_miner))
    assert (status, errors) == (1, "Aborted.\n")
    assert not one_miner.world.released_jobs


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(latency=30), " may or may not be released"),
        (Fault(status=500), " may or may not be released"),
        (Fault(status=403), " is not released"),
        (Fault(status=404), "→ It is finished, or another miner holds it."),
    ],
)
async def test_a_failure_says_whether_the_job_may_be_released(
    one_miner: Simulator, fault: Fault, words: str
) -> None:
    one_miner.faults["release_job"] = fault
    job = stuck_job(one_miner)
    status, _, errors = await run(one_miner, "release-job", job, "--yes", "--api.timeout", "3")
    assert status == 1
    assert words in errors
    # Without a connection, the request was certainly not sent.
    _, _, errors = await run(Target("http://127.0.0.1:9"), "release-job", "abc", "--yes")
    assert "job abc is not released: jobs: cannot connect to 127.0.0.1:9" in errors


async def test_release_job_refuses_several_keys(simulator: Simulator, tmp_path: Path) -> None:
    another_key(tmp_path / "hot", simulator)
    status, _, errors = await run(
        simulator, "release-job", "abc", "--hotkey-file", str(tmp_path / "hot")
    )
    assert (status, "exactly one key" in errors) == (2, True)


async def test_without_an_id_the_stuck_jobs_of_the_miner_are_listed(one_miner: Simulator) -> None:
    stuck = set()
    for job in one_miner.world.jobs(one_miner.clock()):
        if job.stuck and job.miner is not None and job.miner.hotkey == HOTKEY:
            stuck.add(job.job_id)
    assert stuck
    status, output, errors = await run(one_miner, "release-job")
    assert status == 0
    lines = output.splitlines()
    assert {line.split()[0] for line in lines} == stuck
    for line in lines:
        assert re.search(r"  chute \S{36}  created 20\S+ \d\d:\d\d UTC$", line)
    assert "chutes-exporter release-job JOB_ID" in errors


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
    one_miner: Simulator, fault: Fault, status: int, words: str
) -> None:
    one_miner.faults["jobs"] = fault
    exit_status, output, errors = await run(one_miner, "release-job")
    assert (exit_status, output) == (status, "")
    assert errors.startswith(words)
    # Only a complete list says that no job is stuck.
    assert errors.count("No job is stuck") == words.count("No job is stuck")


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"miner_hotkey": OTHER, "finished_at": None}, "another miner holds it"),
        ({"miner_hotkey": None, "finished_at": None}, "no miner holds it"),
        ({"miner_hotkey": HOTKEY, "finished_at": "2026-11-24T12:00:00"}, "it is finished"),
        ({"miner_hotkey": HOTKEY}, "the answer does not say whether it is stuck"),
        ({"job_id": "b"}, "the API does not list it\n"),
        ({"job_id": "b", "unreadable": 5}, "the API does not list it, or lists it in a way that"),
    ],
)
async def test_a_job_that_is_not_stuck_with_the_miner_is_not_released(
    job: dict[str, Any], words: str
) -> None:
    lines = [json.dumps({"job_id": "a", "chute_id": "c", **job})]
    if "unreadable" in job:
        lines.append('{"job_id": 5}')
    api = replay({"jobs": "\n".join(lines).encode()})
    async with served(api) as url:
        status, output, errors = await run(Target(url), "release-job", "a", "--yes")
    assert (status, output) == (1, "")
    assert f"Error: job a is not released: {words}" in errors
