"""Recorded values: names, states, costs and estimates. Each number is worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import states
from tests.prometheus.scenario import DAY, HOTKEY, Scenario

if TYPE_CHECKING:
    from pathlib import Path

ME = {"hotkey": HOTKEY}
COST = "hotkey_state:chutes_fleet_cost_usd_per_hour:sum"
ALL_COST = "hotkey:chutes_fleet_cost_usd_per_hour:sum"
PAIR = ("one:1", "two:2")


def labels(name: str, /, **more: str) -> str:
    """Write a series of the miner."""
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in {**ME, **more}.items()) + "}"


def test_a_pair_of_exporters_counts_nothing_twice(tmp_path: Path) -> None:
    miner = Scenario(10, {"alpha": 8}, exporters=PAIR)
    miner.state(0, ["alpha-0"], "idle")
    place = {"server_id": "id-alpha", "server": "alpha", "gpu": "pro_6000"}
    count = "hotkey_server_id_gpu_state:chutes_gpus:count"
    values = {
        count: (5, {labels(count, **place, state="earning"): 7, labels(count, **place, state="idle"): 1}),
        "hotkey:chutes_fleet_gpus:sum": (5, {labels("hotkey:chutes_fleet_gpus:sum"): 8}),
        "hotkey:chutes_fleet_gpus:lost": (5, {labels("hotkey:chutes_fleet_gpus:lost"): 1}),
    }
    miner.check(tmp_path, {}, values=values)


def test_the_state_of_a_gpu_is_the_number_that_boards_map(tmp_path: Path) -> None:
    miner = Scenario(10, {"alpha": 0})
    for state in states.GPU:
        miner.gpu(state.text, "alpha", state=state.text)
    name = "hotkey_gpu_id:chutes_gpu_state:max"
    place = {"server_id": "id-alpha", "server": "alpha", "gpu": "pro_6000"}
    expected = {labels(name, **place, gpu_id=one.text, state=one.text): float(one.value) for one in states.GPU}
    miner.check(tmp_path, {}, values={name: (5, expected)})


def test_the_state_of_an_instance_is_the_number_that_boards_map(tmp_path: Path) -> None:
    miner = Scenario(9)
    for state in states.INSTANCE:
        miner.instance(state.text, -10)
        if state.text != "starting":
            miner.activate(state.text, 0)
    miner.set("chutes_instance_active", 0, 0, **ME, instance_id="disabled")
    name = "hotkey_instance_id:chutes_instance_state:max"
    expected = {labels(name, instance_id=one.text): float(one.value) for one in states.INSTANCE}
    miner.check(tmp_path, {}, values={name: (5, expected)})


def test_an_instance_has_its_place_and_a_name_as_far_as_they_are_known(tmp_path: Path) -> None:
    miner = Scenario(10, {"alpha": 1})
    miner.instance("i-1", 0, server="alpha")
    miner.instance("i-2", 0, private=False)
    miner.set("chutes_instance_info", 1, **ME, instance_id="i-3", chute_id="12345678-abc", billed_to="")
    name = "hotkey_instance_id:chutes_instance_info:max"
    known = {"chute_id": "chute-1", "name": "glm-5"}
    expected = {
        labels(name, instance_id="i-1", billed_to="user", **known, server="alpha", gpu="pro_6000"): 1,
        labels(name, instance_id="i-2", **known): 0,
        labels(name, instance_id="i-3", chute_id="12345678-abc", name="12345678…"): 0,
    }
    miner.check(tmp_path, {}, values={name: (5, expected)})


def test_a_server_without_a_name_is_named_by_its_id_and_two_names_are_no_error(tmp_path: Path) -> None:
    miner = Scenario(10, exporters=PAIR)
    miner.set("chutes_server_info", 1, **ME, server_id="id-1", name="", version="")
    for name in ("old", "new"):
        miner.set("chutes_server_info", 1, **ME, server_id="id-2", name=name, version="")
    recorded = "hotkey_server_id:chutes_server_info:max"
    miner.check(tmp_path, {}, values={
        f'{recorded}{{server_id="id-1"}}': (5, {labels(recorded, server_id="id-1", server="id-1"): 1}),
        f'count({recorded}{{server_id="id-2"}})': (5, {"{}": 1}),
    })  # fmt: skip


def test_costs_and_estimates_of_a_day(tmp_path: Path) -> None:
    # 8 GPUs at 1.5 dollars an hour cost 12. 2 % of 1000 alpha are 20, and 200 dollars at 10 each. 6 GPUs earned.
    miner = Scenario(DAY + 60, {"alpha": 8}, exporters=PAIR)
    miner.state(0, ["alpha-0", "alpha-1"], "idle")
    miner.set("chutes_gpu_cost_usd_per_hour", 1.5, gpu="pro_6000")
    miner.set("chutes_subnet_emission_alpha_per_day", 1000)
    miner.set("chutes_alpha_price_usd", 10)
    costs = {"earning": 9, "starting": 0, "disabled": 0, "idle": 3, "unverified": 0}
    day = "hotkey_state:chutes_fleet_cost_usd:sum1d"
    numbers = {
        ALL_COST: 12,
        "hotkey:chutes_fleet_cost_usd:sum1d": 288,
        "hotkey:chutes_fleet_gpu_hours_lost:sum1d": 48,
        "hotkey:chutes_miner_estimated_alpha_per_day:max": 20,
        "hotkey:chutes_miner_estimated_usd_per_day:max": 200,
        "hotkey:chutes_miner_estimated_alpha_per_day:per_gpu": 3.333,
        "hotkey:chutes_miner_estimated_usd_per_day:per_gpu": 33.333,
        "hotkey:chutes_miner_estimated_profit_usd_per_day:max": -88,
    }
    values = {f"round({name}, 0.001)": (DAY + 60, {f'{{hotkey="{HOTKEY}"}}': value}) for name, value in numbers.items()}
    values |= {
        f"round({name}, 0.001)": (DAY + 60, {labels("", state=state): hours * cost for state, cost in costs.items()})
        for name, hours in ((COST, 1), (day, 24))
    }
    values[f"{day} or hotkey:chutes_fleet_cost_usd:sum1d"] = (DAY // 2, {})
    lost = [("ChutesGpusIdle", "warning"), ("ChutesGpuHoursLost", "info"), ("ChutesMinerLoss", "info")]
    miner.check(tmp_path, {}, ever=lost, values=values)


def test_a_cost_that_is_only_partly_known_is_absent(tmp_path: Path) -> None:
    miner = Scenario(10, {"alpha": 2})
    miner.state(0, ["alpha-0"], "idle")
    miner.set("chutes_gpu_cost_usd_per_hour", 1.5, gpu="pro_6000")
    for state, count in (("earning", 1), ("idle", 0)):
        miner.set("chutes_fleet_gpus", count, **ME, gpu="h200", state=state)
    # One earning GPU has another model without a cost.
    idle = {labels(COST, state=state): cost for state, cost in (("idle", 1.5), ("starting", 0), ("disabled", 0))}
    miner.check(tmp_path, {}, values={COST: (5, {**idle, labels(COST, state="unverified"): 0}), ALL_COST: (5, {})})
