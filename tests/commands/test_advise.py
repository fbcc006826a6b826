"""The command ``advise``: what it says. tests/prometheus/test_market.py has what it ranks and what it leaves out."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.meaning import GPU_HOURLY_RATES
from chutes_exporter.commands.advise import Market, run_advise
from chutes_exporter.simulator import Fault, Simulator
from chutes_exporter.simulator.world import TEST_SEED
from tests.commands.support import run
from tests.prometheus.farm import Farm, Machine
from tests.prometheus.market import NUMBERS
from tests.prometheus.market import Market as SimulatedMarket
from tests.support import HOTKEY, watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

MINE = {"MINER_SEED": TEST_SEED, "MINER_SS58": HOTKEY}
DAY = 86400.0


async def advise(simulator: Simulator, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run the command; returns its exit status and what it wrote."""
    return await run(simulator, "advise", *arguments, variables=variables)


async def screen(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command in this process; returns its exit status and its screen on one line."""
    code = await run_advise(watching(simulator.url), as_json=False)
    return code, " ".join(capsys.readouterr().out.split())


async def report(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    code = await run_advise(watching(simulator.url), as_json=True)
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def market() -> SimulatedMarket:
    # The machine's own clock: the command sees it too.
    return SimulatedMarket(time.time())


@pytest.fixture
async def simulator(market: SimulatedMarket) -> AsyncIterator[Simulator]:
    async with Simulator(market, clock=time.time) as simulator:
        yield simulator


async def test_the_screen_has_a_table_for_each_idle_model(simulator: Simulator, market: SimulatedMarket) -> None:
    code, output, errors = await advise(simulator, **MINE)
    assert (code, errors) == (1, "")
    lines = re.sub(r"\d+h\d\dm", "20h00m", output).splitlines()
    assert lines[0].startswith(f"{HOTKEY}  20")
    start = lines.index("l40s: 5 idle GPUs, at most 3 on one server")
    assert lines[start + 1 : start + 8] == [
        "  Units/s GPUs Room Start   Use Refused  Bounty       Chute",
        "    1.13     1    2     0     -       -  -            cooling",
        "   0.425     2    2     0     -       -  -            tee",
        "   0.283     1    2     0     -       -  x1.50 20h00m bounty",
        "   0.236     3    2     0     -       -  -            wide",
        "   0.189     1    2     0     -       -  -            plain",
        "Left out: 1 disabled, 2 no allowance, 2 need more idle GPUs than one server has,",
    ]
    assert "   0.917*    1    2     0     -       -  x1.50 20h00m bounty" in lines
    assert "Left out: 1 no allowance, 1 need a TEE server." in lines
    assert "* A cheaper GPU can run the chute too." in output
    assert market.miners[0].hotkey == HOTKEY


async def test_a_chute_in_a_cooldown_is_left_out_where_cooldowns_are_asked_for(
    simulator: Simulator, market: SimulatedMarket
) -> None:
    simulator.faults.update(market.cooldowns())
    _, output, _ = await advise(simulator, "--collector.thrash_cooldowns", **MINE)
    assert "1 in a cooldown" in " ".join(output.split())
    assert "            cooling" not in output


async def test_json_has_everything_about_an_offer(
    simulator: Simulator, market: SimulatedMarket, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "chute_id": market.chutes[NUMBERS["bounty"]].chute_id,
        "timestamp": "2026-11-25T10:00:00",
        "utilization_5m": 0.9,
        "utilization_15m": 0.8,
        "utilization_1h": 0.7,
        "rate_limit_ratio_15m": 0.05,
        "instance_count": 1,
        "total_instance_count": 4,
        "active_instance_count": 1,
        "scale_allowance": 3,
    }
    simulator.faults["utilization"] = Fault(body=json.dumps([row]).encode())
    code, found = await report(simulator, capsys)
    assert (code, found["all_known"], found["not_known"]) == (1, True, [])
    (miner,) = found["miners"]
    assert (miner["hotkey"], miner["private_gate_open"]) == (HOTKEY, False)
    h200 = miner["idle"][0]
    (offer,) = h200.pop("runnable")
    assert h200 == {
        "gpu": "h200",
        "idle": 1,
        "on_one_server": 1,
        "on_one_tee_server": 0,
        "rate_known": True,
        # Nothing is known of the room of the others.
        "left_out": {"no_allowance": 3},
    }
    assert offer.pop("bounty_seconds_left") == pytest.approx(20 * 3600, abs=600)
    assert offer == {
        "chute_id": row["chute_id"],
        "name": "bounty",
        "public": True,
        "tee": False,
        "gpus": 1,
        "units_per_gpu_second": pytest.approx(2.75 / 4.5 * 1.5),
        "cheapest_gpu_units_per_gpu_second": pytest.approx(0.85 / 4.5 * 1.5),
        "scale_allowance": 3,
        "starting_instances": 3,
        "utilization_ratio": 0.8,
        "rate_limited_ratio": 0.05,
        "bounty_boost": 1.5,
    }
    _, text = await screen(simulator, capsys)
    assert re.search(r"0\.917\* 1 3 3 80 % 5 % x1\.50 (20h00m|19h5\dm) bounty", text)


async def test_a_private_chute_has_no_name(
    simulator: Simulator, market: SimulatedMarket, capsys: pytest.CaptureFixture[str]
) -> None:
    market.run_tee()
    chute_id = market.chutes[NUMBERS["private"]].chute_id
    _, found = await report(simulator, capsys)
    (offer,) = (one for one in found["miners"][0]["idle"][1]["runnable"] if not one["public"])
    assert (offer["chute_id"], offer["name"]) == (chute_id, None)
    _, text = await screen(simulator, capsys)
    assert f"private {chute_id[:17]}…" in text


async def test_each_endpoint_is_asked_once_and_the_public_ones_without_a_signature(
    simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    await report(simulator, capsys)
    assert sorted((one.endpoint, one.signed) for one in simulator.requests) == [
        ("bounties", False),
        ("chutes", True),
        ("instances", True),
        ("inventory", True),
        ("metagraph", False),
        ("nodes", True),
        ("servers", True),
        ("unique_chute_history", False),
        ("utilization", False),
    ]


async def test_where_no_gpu_is_idle_the_exit_status_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    async with Simulator(Farm(time.time(), [(Machine("l40s", 4),)]), clock=time.time) as simulator:
        code, text = await screen(simulator, capsys)
    assert code == 0
    assert text.endswith("UTC No GPU is idle.")


async def test_where_nothing_fits_the_exit_status_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    # The autoscaler knows nothing of the farm's chutes.
    async with Simulator(Farm(time.time(), [(Machine("l40s", 4, idle=1),)]), clock=time.time) as simulator:
        simulator.faults["bounties"] = Fault(body=b"[]")
        code, text = await screen(simulator, capsys)
    assert code == 0
    assert "l40s: 1 idle GPU, at most 1 on one server No chute can run on them now. Left out: 1 no allowance." in text


async def test_idle_gpus_that_are_not_known_are_said(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    simulator.faults["inventory"] = Fault(status=503)
    code, text = await screen(simulator, capsys)
    assert code == 3
    assert "The idle GPUs are not known. Not known ? inventory: 503 simulated fault" in text


async def test_gpus_in_an_unknown_state_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    farm = Farm(time.time(), [(Machine("l40s", 4, idle=1),)])
    (first, *others) = [
        {"instance_id": one.instance_id, "chute_id": one.chute.chute_id, "active": True, "billed_to": None}
        for one in farm.instances(time.time(), HOTKEY)
    ]
    # Neither active, nor with a word about its activation.
    rows = [first | {"active": False}, *others]
    held = [
        {"gpu_id": gpu.uuid, "chute_id": one.chute.chute_id, "active": one.instance_id != first["instance_id"]}
        for one in farm.instances(time.time(), HOTKEY)
        for gpu in one.gpus
    ]
    async with Simulator(farm, clock=time.time) as simulator:
        simulator.faults["instances"] = Fault(body=b"".join(b"data: %b\n\n" % json.dumps(row).encode() for row in rows))
        simulator.faults["inventory"] = Fault(body=json.dumps(held).encode())
        code, found = await report(simulator, capsys)
    assert code == 3
    assert "fleet" in {one["feed"] for one in found["not_known"]}
    assert found["miners"][0]["idle"] is None


async def test_chutes_that_are_not_known_are_said(simulator: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    simulator.faults["chutes"] = Fault(status=503)
    code, text = await screen(simulator, capsys)
    assert code == 3
    assert "on one server No chute that supports them is known." in text
    assert "? chutes: 503 simulated fault" in text


async def test_a_deployment_without_utilization_is_said(
    simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.faults["utilization"] = Fault(status=404)
    code, text = await screen(simulator, capsys)
    assert code == 3
    assert "? utilization: the deployment has no /chutes/utilization → " in text


async def test_an_unknown_value_of_an_offer_is_a_dash(
    simulator: Simulator, market: SimulatedMarket, capsys: pytest.CaptureFixture[str]
) -> None:
    chute_id = market.chutes[NUMBERS["bounty"]].chute_id
    bounty = {"chute_id": chute_id, "seconds_elapsed": 0, "created_at": time.time()}
    simulator.faults["bounties"] = Fault(body=json.dumps([bounty]).encode())
    simulator.faults["utilization"] = Fault(body=json.dumps([{"chute_id": chute_id, "scale_allowance": 3}]).encode())
    _, text = await screen(simulator, capsys)
    assert "1 3 - - - x1.10 bounty" in text


async def test_a_model_without_a_known_rate_earns_at_least_what_is_shown(
    simulator: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(GPU_HOURLY_RATES, "h200")
    _, text = await screen(simulator, capsys)
    assert "The exporter does not know the hourly rate of this model" in text


async def test_the_screen_fits_80_columns_and_cannot_be_steered_by_the_api(
    simulator: Simulator, market: SimulatedMarket
) -> None:
    made = [
        replace(market.chutes[NUMBERS["plain"]], chute_id=f"{number:08}-x", name=f"\x1b[2J{'x' * 60}")
        for number in range(100, 120)
    ]
    market.__dict__["chutes"] = (*market.chutes, *made)
    market.asks[made[0].name or ""] = market.asks["plain"]
    market._offers.update({chute.chute_id: [] for chute in made})  # noqa: SLF001 - chutes are not made later
    _, output, _ = await advise(simulator, **MINE)
    assert all(len(line) <= 80 and line == line.rstrip() for line in output.splitlines())
    assert "\x1b" not in output
    # 5 others, of which 4 pay more.
    assert "\n15 more: --json lists them.\n" in output


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"chutes_miner_private_gate_instances": 3}, False),
        ({"chutes_miner_private_gate_gpus": 11}, False),
        ({"chutes_miner_average_active_gpus": 15.9}, False),
        ({"chutes_miner_private_gate_oldest_activation_timestamp_seconds": 7 * DAY + 1}, False),
        ({"chutes_miner_average_active_gpus": None}, None),
        ({"chutes_miner_average_active_gpus": None, "chutes_miner_private_gate_gpus": 11}, False),
    ],
)
def test_the_private_gate_has_four_conditions(changes: dict[str, float | None], expected: bool | None) -> None:  # noqa: FBT001
    values = {
        "chutes_miner_private_gate_instances": 4,
        "chutes_miner_private_gate_gpus": 12,
        "chutes_miner_average_active_gpus": 16,
        "chutes_miner_private_gate_oldest_activation_timestamp_seconds": 7 * DAY,
        **changes,
    }
    samples = {name: [({"hotkey": "me"}, float(value))] for name, value in values.items() if value is not None}
    assert Market(samples, 10 * DAY).private_gate("me") is expected


async def test_a_wrong_command_line_has_the_exit_status_2(simulator: Simulator) -> None:
    for arguments in ((), ("--hotkey", HOTKEY)):
        code, output, errors = await advise(simulator, *arguments)
        assert (code, output) == (2, "")
        assert "add --hotkey-file, or set MINER_SS58 and MINER_SEED" in errors


async def test_warnings_go_to_standard_error(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "hot"
    path.write_text(json.dumps({"ss58Address": HOTKEY, "secretSeed": TEST_SEED}))
    path.chmod(0o644)
    code, output, errors = await advise(simulator, "--json", "--hotkey-file", str(path))
    assert code == 1
    assert json.loads(output)["api"] == simulator.url
    assert "Warning: " in errors
