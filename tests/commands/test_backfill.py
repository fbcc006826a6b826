from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from click import ClickException

from chutes_exporter.api.records import HistoryPoint, UnixTime
from chutes_exporter.commands.backfill import _write, openmetrics, run_backfill
from chutes_exporter.config import ConfigError, make_settings
from chutes_exporter.simulator import Fault, Simulator
from tests.commands.support import run
from tests.support import HOTKEY, count_openmetrics


def test_points_are_in_order_once_each_and_unknown_ones_left_out() -> None:
    def point(hour: int, count: float | None) -> HistoryPoint:
        return HistoryPoint(UnixTime(hour * 3600), count=count, total_count=1.5)

    text = openmetrics({'a"\n': [point(2, 5), point(1, None), point(2, 6)]}, {})
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'chutes_miner_unique_chute_gpus{hotkey="a\\"\\n"} 6.0 7200',
        'chutes_miner_active_gpus{hotkey="a\\"\\n"} 1.5 3600',
        'chutes_miner_active_gpus{hotkey="a\\"\\n"} 1.5 7200',
    ]
    assert count_openmetrics(text) == 3


async def test_standard_output_gets_the_page_alone(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    await run_backfill(make_settings(api_url=simulator.url, hotkeys=[HOTKEY]), "-", ())
    assert count_openmetrics(capsys.readouterr().out) == 2 * 169


def fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


async def test_a_file_is_written_whole_or_not_at_all(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(api_url=simulator.url, hotkeys=[HOTKEY])
    with pytest.raises(ConfigError, match="No such file"):
        await run_backfill(settings, str(tmp_path / "nowhere" / "file"), ())
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="cannot write"):
        await run_backfill(settings, str(tmp_path / "taken"), ())
    with pytest.raises(ConfigError, match=r"/no\\nwhere/file: No such file or directory\. Choose another path$"):
        await run_backfill(settings, str(tmp_path / "no\nwhere" / "file"), ())
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ConfigError, match="cannot write"):
        await run_backfill(settings, str(tmp_path / "file"), ())
    monkeypatch.undo()
    simulator.faults["unique_chute_history"] = Fault(status=503)
    with pytest.raises(ClickException, match="503"):
        await run_backfill(settings, str(tmp_path / "file"), ())
    assert os.listdir(tmp_path) == ["taken"]  # noqa: PTH208 - pathlib's way is not for async functions


async def test_an_existing_file_keeps_its_mode_and_kind(simulator: Simulator, tmp_path: Path) -> None:
    settings = make_settings(api_url=simulator.url, hotkeys=[HOTKEY])
    private, link, pipe = tmp_path / "private", tmp_path / "link", tmp_path / "pipe"
    await run_backfill(settings, str(private), ())
    page = private.read_text()
    assert private.stat().st_mode & 0o077 == 0o044
    private.chmod(0o600)
    link.symlink_to(private)
    await run_backfill(settings, str(link), ())
    assert link.is_symlink()
    assert private.stat().st_mode & 0o777 == 0o600
    os.mkfifo(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
    # In a thread: the other end is read in this process.
    await asyncio.to_thread(_write, pipe, page)
    assert await reading == page
    assert pipe.is_fifo()


async def test_miners_without_a_history_are_left_out_with_a_message(
    simulator: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"
    await run_backfill(make_settings(api_url=simulator.url, hotkeys=[HOTKEY, new]), str(tmp_path / "file"), ())
    assert f"no history of {new}" in capsys.readouterr().err
    with pytest.raises(ClickException, match="no miner has a history"):
        await run_backfill(make_settings(api_url=simulator.url, hotkeys=[new]), "-", ())
    simulator.faults["unique_chute_history"] = Fault(
        body=b'[{"time":"2026-11-24 11:00:00+00","count":1234567.5},{"time":5},{"time":"2026-11-24 12:00:00+00"}]'
    )
    await run_backfill(make_settings(api_url=simulator.url, hotkeys=[HOTKEY]), "-", ())
    shown = capsys.readouterr()
    assert "1 hours of " in shown.err
    assert "1.2345675e+06" in shown.out


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        *((label, "NAME=VALUE") for label in ("job", "1=x", "__name__=x", "a-b=c")),
        ("hotkey=x", "the series have a label hotkey already"),
        ("cluster=b", "there is another value of cluster"),
    ],
)
async def test_labels_that_cannot_be_are_refused(simulator: Simulator, label: str, reason: str) -> None:
    with pytest.raises(ClickException, match=reason):
        await run_backfill(make_settings(api_url=simulator.url, hotkeys=[HOTKEY]), "-", ("cluster=a", label))


async def test_somebody_must_be_watched(simulator: Simulator) -> None:
    with pytest.raises(ClickException, match="--hotkey"):
        await run_backfill(make_settings(api_url=simulator.url), "-", ())


async def test_history_can_be_backfilled_from_the_command_line(simulator: Simulator, tmp_path: Path) -> None:
    status, _, errors = await run(simulator, "backfill", "--output", str(tmp_path / "week.om"), "--label", "job=chutes")
    assert status == 0
    assert "Wrote 169 hourly points of 1 miners" in errors
    assert 'job="chutes"' in (tmp_path / "week.om").read_text()
    _, _, errors = await run(simulator, "backfill", "--output", str(tmp_path / "my week.om"))
    assert f"promtool tsdb create-blocks-from openmetrics '{tmp_path}/my week.om' PATH-OF-PROMETHEUS-DATA\n" in errors
