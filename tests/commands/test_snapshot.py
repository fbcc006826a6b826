"""One snapshot for the commands that report about miners."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from chutes_exporter import collectors, log
from chutes_exporter.commands import snapshot as module
from chutes_exporter.commands.snapshot import take_snapshot
from chutes_exporter.demo.replay import Fault, Replay
from tests.support import recorded_day, watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chutes_exporter.commands.snapshot import Snapshot

METRICS = frozenset({"chutes_fleet_gpus", "chutes_jobs_waiting", "chutes_miner_score_rank"})


@pytest.fixture
async def replay() -> AsyncIterator[Replay]:
    """The recorded day, with a clock that is behind the one of this machine."""
    async with Replay(recorded_day(), clock=lambda: time.time() - 500) as running:
        yield running


async def snapshot_of(replay: Replay) -> Snapshot:
    return await take_snapshot(watching(replay.url), METRICS)


async def test_an_answer_that_does_not_come_in_time_is_a_gap(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    replay.faults["jobs"] = Fault(latency=60)
    assert "jobs" in {gap.subject for gap in (await snapshot_of(replay)).gaps}


async def test_a_collector_with_a_bug_is_a_gap(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(collectors.scores.SCORE, "collect", fail)
    log.configure("error", "logfmt")
    (gap,) = (await snapshot_of(replay)).gaps
    assert (gap.subject, gap.reason) == ("scores", "the collector failed, which is a bug")
