"""``backfill --compute-history``: compute units of instances, against the simulator and a sum second by second."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from click import ClickException

from chutes_exporter.commands.backfill import run_backfill
from chutes_exporter.config import make_settings
from chutes_exporter.simulator import Fault, Simulator, Size, World
from tests.recorded import DIRECTORIES
from tests.recorded import seconds as unix_time
from tests.simulator.farm import Farm, Machine
from tests.support import HOTKEY, count_openmetrics, watching

if TYPE_CHECKING:
    from pathlib import Path

    from chutes_exporter.config import Settings

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


async def written(settings: Settings) -> str:
    """Return the page with compute units."""
    file = io.BytesIO()
    await run_backfill(settings, file, {"job": "chutes"}, compute_history=True)
    return file.getvalue().decode()


async def test_compute_units_are_those_of_the_simulated_instances(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The machine's own clock, because a request is signed with it.
    world = World(start=time.time(), size=Size(miners=12, active_miners=6, chutes=60))
    keys = [miner.key for miner in world.miners[:2]]
    async with Simulator(world, clock=time.time) as simulator:
        settings = make_settings(api_url=simulator.url, keys=keys)
        text = await written(settings)
        asked = [one for one in simulator.requests if one.endpoint == "compute_history"]
    assert [one.signed for one in asked] == [False]
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
    directory: Path,
) -> None:
    recorded_at = json.loads((directory / "meta.json").read_text())["recorded_at"]
    csv_body = (directory / "extra" / "compute_history.csv").read_bytes()

    bodies = {"instances": (directory / "instances.stream").read_bytes(), "compute_history": csv_body}
    # The hours count by the API's clock.
    async with Simulator(Farm(recorded_at, [()]), clock=lambda: recorded_at) as simulator:
        simulator.faults.update({name: Fault(body=body) for name, body in bodies.items()})
        text = await written(watching(simulator.url))
    found = units_in(text)
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


async def test_a_miner_that_the_history_knows_nothing_of_still_gets_its_compute_units() -> None:
    farm = Farm(time.time(), [(Machine("l40s", 1),)])
    async with Simulator(farm, clock=time.time) as simulator:
        simulator.faults["unique_chute_history"] = Fault(status=404)
        text = await written(watching(simulator.url))
    (hours,) = units_in(text).values()
    # 0.85 / 4.5 compute units a second, and the factor of TEE.
    assert hours[max(hours)] == pytest.approx(3600 * 0.85 / 4.5 * 2.25)


async def test_records_and_instances_that_cannot_be_read_are_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    farm = Farm(time.time(), [(Machine("l40s", 1),)])
    (one,) = farm.instances(time.time(), HOTKEY)
    good = {"instance_id": one.instance_id, "chute_id": "c", "activated_at": "2026-11-20T00:00:00+00:00"}
    body = b"".join(b"data: %b\n\n" % json.dumps(row).encode() for row in (good, good | {"instance_id": 5}))
    lines = f"instance_id,compute_multiplier,started_at,ended_at\n{one.instance_id},1,2026-11-20 00:00:00,\nx\n"
    async with Simulator(farm, clock=time.time) as simulator:
        simulator.faults.update(instances=Fault(body=body), compute_history=Fault(body=lines.encode()))
        await written(watching(simulator.url))
        shown = capsys.readouterr().err
        assert "1 instances that cannot be read" in shown
        assert "Left out: 1 records that cannot be read." in shown
        simulator.faults["compute_history"] = Fault(status=503)
        with pytest.raises(ClickException, match="compute history: 503"):
            await written(watching(simulator.url))
