from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator import Fault, Simulator, Size, World
from tests.commands.support import Target, another_key, run
from tests.support import HOTKEY, Clock

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


async def test_releasing_a_job_asks_first(one_miner: Simulator) -> None:
    simulator = one_miner

    def released() -> set[str]:
        return simulator.world.released_jobs

    job = next(one.job_id for one in simulator.world.jobs(simulator.clock()) if one.stuck)
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
    assert f"404 job_id='{job}' not found or is not associated with your miner" in errors
    assert "→ It is finished, or another miner holds it." in errors
    status, _, errors = await run(simulator, "release-job", job, "--yes", variables={})
    assert status == 2
    assert "--hotkey-file" in errors


async def test_an_interrupted_question_releases_nothing(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("click.termui.visible_prompt_func", interrupt)
    status, _, errors = await run(simulator, "release-job", "abc")
    assert (status, errors) == (1, "Aborted.\n")
    assert not simulator.requests


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(latency=30), "job abc may or may not be released"),
        (Fault(status=500), "job abc may or may not be released"),
        (Fault(status=403), "job abc is not released"),
    ],
)
async def test_a_failure_says_whether_the_job_may_be_released(
    simulator: Simulator, fault: Fault, words: str
) -> None:
    simulator.faults["release_job"] = fault
    status, _, errors = await run(simulator, "release-job", "abc", "--yes", "--api.timeout", "0.3")
    assert status == 1
    assert words in errors
    # Without a connection, the request was certainly not sent.
    _, _, errors = await run(Target("http://127.0.0.1:9"), "release-job", "abc", "--yes")
    assert "job abc is not released: cannot connect to 127.0.0.1:9" in errors


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
