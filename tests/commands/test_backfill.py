from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.api.records import HistoryPoint, UnixTime
from chutes_exporter.commands.backfill import openmetrics
from chutes_exporter.simulator import Fault, Simulator
from tests.commands.support import run
from tests.support import HOTKEY, count_openmetrics
from tests.test_credentials import OTHER

if TYPE_CHECKING:
    from pathlib import Path


def test_points_are_in_order_once_each_and_unknown_ones_left_out() -> None:
    def point(hour: int, count: float | None) -> HistoryPoint:
        return HistoryPoint(UnixTime(hour * 3600), count=count, total_count=1.5)

    text = openmetrics({'a"\n': [point(2, 5), point(1, None), point(2, 6)]}, {}).decode()
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'chutes_miner_unique_chute_gpus{hotkey="a\\"\\n"} 6.0 7200',
        'chutes_miner_active_gpus{hotkey="a\\"\\n"} 1.5 3600',
        'chutes_miner_active_gpus{hotkey="a\\"\\n"} 1.5 7200',
    ]
    assert count_openmetrics(text) == 3


async def test_problems_are_refused_with_the_reason(simulator: Simulator, tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere" / "file")
    _, _, errors = await run(simulator, "backfill", "--output", path)
    assert f"Error: Could not open file '{path}': No such file or directory" in errors
    simulator.faults["unique_chute_history"] = Fault(status=503)
    status, output, errors = await run(simulator, "backfill", "--output", str(tmp_path / "file"))
    assert (status, output) == (1, "")
    assert "503" in errors
    assert not (tmp_path / "file").exists()


async def test_miners_without_a_history_are_left_out_with_a_message(simulator: Simulator) -> None:
    arguments = ("backfill", "--output", "-", "--hotkey", OTHER)
    status, output, errors = await run(simulator, *arguments, "--hotkey", HOTKEY, variables={})
    assert status == 0
    assert count_openmetrics(output) == 2 * 169
    assert f"no history of {OTHER}" in errors
    _, output, errors = await run(simulator, *arguments, variables={})
    assert (output, "no miner has a history" in errors) == ("", True)
    simulator.faults["unique_chute_history"] = Fault(
        body=b'[{"time":"2026-11-24 11:00:00+00","count":1234567.5},{"time":5},{"time":"2026-11-24 12:00:00+00"}]'
    )
    _, output, errors = await run(simulator, "backfill", "--output", "-")
    assert "1 hours of " in errors
    assert "1.2345675e+06" in output


async def test_a_file_gets_the_history_with_the_labels(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "week.om"
    status, _, errors = await run(simulator, "backfill", "--output", str(path), "--label", "job=→")
    assert status == 0
    assert "Wrote 169 hourly points of 1 miners" in errors
    assert 'job="→"' in path.read_text(encoding="utf-8")
    assert {asked.endpoint for asked in simulator.requests} == {"unique_chute_history"}
