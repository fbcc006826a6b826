"""One collection for the commands that report about miners."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter import collectors, log
from chutes_exporter.commands import report as module
from chutes_exporter.commands.report import collect_report
from chutes_exporter.demo.replay import Fault, Replay
from chutes_exporter.feeds import cache
from tests.support import HOTKEY, PATIENCE, recorded_day, watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chutes_exporter.commands.report import Report

METRICS = frozenset({"chutes_fleet_gpus", "chutes_jobs_waiting", "chutes_miner_score_rank"})


@pytest.fixture
async def replay() -> AsyncIterator[Replay]:
    """The recorded day, with a clock that is behind the one of this machine."""
    async with Replay(recorded_day(), clock=lambda: time.time() - 500) as running:
        yield running


async def report_of(replay: Replay) -> Report:
    return await collect_report(watching(replay.url), METRICS)


async def test_a_report_has_the_samples_of_the_metrics_and_the_time_of_the_api(
    replay: Replay,
) -> None:
    report = await report_of(replay)
    assert report.gaps == []
    assert report.counted == {HOTKEY}
    assert sum(value for _, value in report.of("chutes_fleet_gpus", hotkey=HOTKEY)) == 38
    assert report.of("chutes_fleet_gpus", hotkey="another miner") == []
    assert report.now == pytest.approx(replay.clock(), abs=100)


async def test_answers_that_are_not_whole_are_gaps_and_the_gpus_are_not_counted(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine, the answers with which the list of nodes is compared need more time.
    monkeypatch.setattr(cache, "_EVIDENCE_WAIT", PATIENCE)
    # One item of the inventory cannot be read, and the list of nodes ends after its first record.
    replay.edits["inventory"] = lambda gpus: [{"gpu_id": 5}, *gpus]
    replay.faults["nodes"] = Fault(records=1)
    report = await report_of(replay)
    assert {gap.feed: gap.reason for gap in report.gaps} == {
        "inventory": (
            "1 records could not be read and are left out (Expected `str`, got `int` - at "
            "`$.gpu_id`)"
        ),
        "nodes": "the list contradicts another answer",
    }
    assert report.counted == set()


async def test_a_gpu_in_an_unknown_state_is_a_gap(replay: Replay) -> None:
    def forget(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Let no record say whether the instance of a chute, which is not active, ever was."""
        for record in records:
            if record["chute_id"] == "2618e0af-baee-590c-b50b-4bb7e49f2232":
                record["active"] = False
                record.pop("activated_at", None)
        return records

    replay.edits |= {"instances": forget, "inventory": forget}
    report = await report_of(replay)
    assert report.gaps[-1].feed == "fleet"
    assert report.counted == set()


async def test_an_answer_that_does_not_come_in_time_is_a_gap(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    replay.faults["jobs"] = Fault(latency=60)
    assert "jobs" in {gap.feed for gap in (await report_of(replay)).gaps}


async def test_a_collector_with_a_bug_is_a_gap(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(collectors.scores.SCORE, "collect", fail)
    log.configure("error", "logfmt")
    (gap,) = (await report_of(replay)).gaps
    assert (gap.feed, gap.reason) == ("scores", "the collector failed, which is a bug")
