"""A new user's week of history: fetched, turned into blocks by promtool, read back through a real Prometheus."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from click import ClickException

from chutes_exporter.api.records import HistoryPoint, UnixTime
from chutes_exporter.commands.backfill import _write, openmetrics, run_backfill
from chutes_exporter.config import Credentials, make_settings
from chutes_exporter.simulator import Fault, Simulator, Size, World
from tests.prometheus.farm import Farm, Machine
from tests.support import HOTKEY, NOON, Clock, Prometheus, count_openmetrics, series, watching
from tests.test_cli import run
from tests.test_recordings import DIRECTORIES
from tests.test_recordings import seconds as unix_time


async def test_a_week_of_history_is_there_on_the_first_day(small_world: World, tmp_path: Path) -> None:
    hotkeys = [miner.hotkey for miner in small_world.miners[:2]]
    path = tmp_path / "history.om"
    async with Simulator(small_world, clock=Clock()) as simulator:
        settings = make_settings(api_url=simulator.url, hotkeys=hotkeys)
        await run_backfill(settings, str(path), ("job=chutes", "instance=localhost:10064"))
    # In a thread: the program runs for a while.
    await asyncio.to_thread(
        subprocess.run,
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(path), str(tmp_path / "data")],
        check=True,
        capture_output=True,
    )
    with Prometheus(tmp_path, []) as prometheus:
        for hotkey in hotkeys:
            history = small_world.history(hotkey, NOON)
            assert history is not None
            assert len(history) == 169
            for time, unique, total in history:
                labels = {"hotkey": hotkey, "job": "chutes", "instance": "localhost:10064"}
                answer = await asyncio.to_thread(
                    prometheus.query, f'chutes_miner_active_gpus{{hotkey="{hotkey}"}} @ {time:.0f}'
                )
                assert answer == {series("", **labels)[1]: total}
                answer = await asyncio.to_thread(
                    prometheus.query, f'chutes_miner_unique_chute_gpus{{hotkey="{hotkey}"}} @ {time:.0f}'
                )
                assert list(answer.values()) == [unique]


def test_points_are_in_order_once_each_and_unknown_ones_left_out() -> None:
    def point(hour: int, count: float | None) -> HistoryPoint:
        return HistoryPoint(UnixTime(hour * 3600), count=count, total_count=1.5)

    text = openmetrics({'a"\n': [point(2, 5), point(1, None), point(2, 6)]}, {})
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'chutes_miner_unique_chute_gpus{hotkey="a\\"\\n"} 6 7200',
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
    with pytest.raises(ClickException, match="No such file"):
        await run_backfill(settings, str(tmp_path / "nowhere" / "file"), ())
    (tmp_path / "taken").mkdir()
    with pytest.raises(ClickException, match="cannot write"):
        await run_backfill(settings, str(tmp_path / "taken"), ())
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ClickException, match="cannot write"):
        await run_backfill(settings, str(tmp_path / "file"), ())
    monkeypatch.undo()
    simulator.faults["unique_chute_history"] = Fault(status=503)
    with pytest.raises(ClickException, match="503"):
        await run_backfill(settings, str(tmp_path / "file"), ())
    assert os.listdir(tmp_path) == ["taken"]  # noqa: PTH208 - pathlib's way is not for async functions


async def test_what_is_there_stays_what_it_is(simulator: Simulator, tmp_path: Path) -> None:
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


async def test_miners_without_history_are_left_out_and_said(
    simulator: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"
    await run_backfill(make_settings(api_url=simulator.url, hotkeys=[HOTKEY, new]), str(tmp_path / "file"), ())
    assert f"no history of {new}" in capsys.readouterr().err
    with pytest.raises(ClickException, match="no history to write"):
        await run_backfill(make_settings(api_url=simulator.url, hotkeys=[new]), "-", ())
    simulator.faults["unique_chute_history"] = Fault(
        body=b'[{"time":"2026-11-24 11:00:00+00","count":1234567.5},{"time":5},{"time":"2026-11-24 12:00:00+00"}]'
    )
    await run_backfill(make_settings(api_url=simulator.url, hotkeys=[HOTKEY]), "-", ())
    shown = capsys.readouterr()
    assert "1 hours that cannot be read" in shown.err
    assert "1234567.5" in shown.out


@pytest.mark.parametrize("label", ["job", "1=x", "__name__=x", "hotkey=x", "a-b=c"])
async def test_labels_that_cannot_be_are_refused(simulator: Simulator, label: str) -> None:
    with pytest.raises(ClickException, match="NAME=VALUE"):
        await run_backfill(make_settings(api_url=simulator.url, hotkeys=[HOTKEY]), "-", (label,))


async def test_somebody_must_be_watched(simulator: Simulator) -> None:
    with pytest.raises(ClickException, match="--hotkey"):
        await run_backfill(make_settings(api_url=simulator.url), "-", ())


# Compute units of instances

_UNITS = re.compile(r"chutes_instance_window_compute_units\{(.*)\} (\S+) (\d+)")


def units_in(text: str) -> dict[tuple[str, str], dict[float, float]]:
    """Return the compute units of a page by hotkey, instance and end of the hour."""
    found: dict[tuple[str, str], dict[float, float]] = {}
    for line in text.splitlines():
        if match := _UNITS.fullmatch(line):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[1]))
            assert labels["window"] == "1h"
            found.setdefault((labels["hotkey"], labels["instance_id"]), {})[float(match[3])] = float(match[2])
    return found


async def test_compute_units_are_those_of_the_simulated_instances(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The machine's own clock, because a request is signed with it.
    world = World(start=time.time(), size=Size(miners=12, active_miners=6, chutes=60))
    keys = [miner.key for miner in world.miners[:2]]
    async with Simulator(world, clock=time.time) as simulator:
        settings = make_settings(api_url=simulator.url, credentials=Credentials(tuple(keys), (), ()))
        await run_backfill(settings, str(tmp_path / "file"), ("job=chutes",), compute_history=True)
        asked = [one for one in simulator.asked if one.endpoint == "compute_history"]
    assert [one.signed for one in asked] == [False]
    text = (tmp_path / "file").read_text()
    found = units_in(text)
    assert count_openmetrics(text) == 2 * 2 * 169 + sum(map(len, found.values()))
    now = time.time()
    compared = 0
    for key in keys:
        for one in world.instances(now, key.address):
            hours = found.pop((key.address, one.instance_id), {})
            for hour, units in hours.items():
                assert units == pytest.approx(one.units_within(hour - 3600, hour), rel=1e-6)
                compared += 1
            if one.activated(now - 60):
                assert len(hours) in (full := now // 3600 - one.created_at // 3600, min(full, 167))
    assert found == {}
    assert compared > 100
    shown = capsys.readouterr().err
    assert re.search(r"The compute history has \d+ records of all instances, \d+\.\d MB, read in \d+\.\d s", shown)


def _seconds(text: str | None) -> float:
    """Return a Unix time; what is open ends in the far future."""
    return unix_time(text or "2100-01-01 00:00:00") or 0.0


def _brute_force(rows: list[dict[str, str]], until: float, hour: float) -> float:
    """Add up the seconds of an hour one by one."""
    spans = [(_seconds(row["started_at"]), _seconds(row["ended_at"]), float(row["compute_multiplier"])) for row in rows]
    middles = [hour - 3600 + second + 0.5 for second in range(3600)]
    return sum(units for at in middles for start, end, units in spans if start <= at < min(until, end))


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
async def test_compute_units_of_recorded_answers_are_those_of_a_sum_second_by_second(
    directory: Path, tmp_path: Path
) -> None:
    recorded_at = json.loads((directory / "meta.json").read_text())["recorded_at"]
    csv_body = (directory / "extra" / "compute_history.csv").read_bytes()

    bodies = {"instances": (directory / "instances.stream").read_bytes(), "compute_history": csv_body}
    # The hours count by the API's clock.
    async with Simulator(Farm(recorded_at, [()]), clock=lambda: recorded_at) as simulator:
        simulator.faults.update({name: Fault(body=body) for name, body in bodies.items()})
        await run_backfill(watching(simulator.url), str(tmp_path / "file"), (), compute_history=True)
    found = units_in((tmp_path / "file").read_text())
    rows: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(csv_body.decode().splitlines()):
        rows.setdefault(row["instance_id"], []).append(row)
    own = [json.loads(line[6:]) for line in (directory / "instances.stream").read_text().splitlines() if "{" in line]
    expected = {(HOTKEY, one["instance_id"]) for one in own if one.get("activated_at")}
    assert set(found) == expected
    for (_, instance_id), hours in found.items():
        (raw,) = (one for one in own if one["instance_id"] == instance_id)
        until = min(recorded_at, _seconds(raw["stop_billing_at"]))
        assert max(hours) <= recorded_at
        # The first hours and the newest ones have the changes.
        for hour in [*sorted(hours)[:4], *sorted(hours)[-2:]]:
            assert hours[hour] == pytest.approx(_brute_force(rows[instance_id], until, hour), rel=1e-3, abs=5)


async def test_a_miner_that_the_history_knows_nothing_of_still_gets_its_compute_units(tmp_path: Path) -> None:
    farm = Farm(time.time(), [(Machine("l40s", 1),)])
    async with Simulator(farm, clock=time.time) as simulator:
        simulator.faults["unique_chute_history"] = Fault(status=404)
        await run_backfill(watching(simulator.url), str(tmp_path / "file"), (), compute_history=True)
    (hours,) = units_in((tmp_path / "file").read_text()).values()
    # 0.85 / 4.5 compute units a second.
    assert hours[max(hours)] == pytest.approx(3600 * 0.85 / 4.5)


async def test_records_and_instances_that_cannot_be_read_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    farm = Farm(time.time(), [(Machine("l40s", 1),)])
    (one,) = farm.instances(time.time(), HOTKEY)
    good = {"instance_id": one.instance_id, "chute_id": "c", "activated_at": "2026-11-20T00:00:00+00:00"}
    body = b"".join(b"data: %b\n\n" % json.dumps(row).encode() for row in (good, good | {"instance_id": 5}))
    lines = f"instance_id,compute_multiplier,started_at,ended_at\n{one.instance_id},1,2026-11-20 00:00:00,\nx\n"
    async with Simulator(farm, clock=time.time) as simulator:
        simulator.faults.update(instances=Fault(body=body), compute_history=Fault(body=lines.encode()))
        await run_backfill(watching(simulator.url), str(tmp_path / "file"), (), compute_history=True)
        shown = capsys.readouterr().err
        assert "1 instances that cannot be read" in shown
        assert "Left out: 1 records that cannot be read." in shown
        simulator.faults["compute_history"] = Fault(status=503)
        with pytest.raises(ClickException, match="compute history: 503"):
            await run_backfill(watching(simulator.url), str(tmp_path / "file"), (), compute_history=True)


def test_the_flag_needs_a_key() -> None:
    result = run("backfill", "--hotkey", HOTKEY, "--output", "-", "--compute-history")
    assert result.returncode == 1
    assert "--compute-history needs the ids of the miner's instances" in result.stderr


async def test_without_the_flag_the_heavy_endpoint_is_not_asked(simulator: Simulator, tmp_path: Path) -> None:
    await run_backfill(make_settings(api_url=simulator.url, hotkeys=[HOTKEY]), str(tmp_path / "file"), ())
    assert {one.endpoint for one in simulator.asked} == {"unique_chute_history"}
