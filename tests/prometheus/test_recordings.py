"""Recorded values: names, states, costs and estimates. Each number is worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import states
from tests.prometheus.scenario import DAY, HOTKEY, HOUR, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ME = {"hotkey": HOTKEY}
PAIR = ("one:1", "two:2")


def labels(name: str, /, **more: str) -> str:
    """Write a series of the miner."""
    return (
        name + "{" + ",".join(f'{label}="{value}"' for label, value in {**ME, **more}.items()) + "}"
    )


def test_a_pair_of_exporters_counts_nothing_twice(tmp_path: Path) -> None:
    miner = Scenario(10, {"alpha": 8}, exporters=PAIR)
    miner.state(0, ["alpha-0"], "idle")
    place = {"server_id": "id-alpha", "server": "alpha", "gpu": "pro_6000"}
    count = "hotkey_server_id_gpu_state:chutes_gpus:count"
    values = {
        count: (
            5,
            {labels(count, **place, state="earning"): 7, labels(count, **place, state="idle"): 1},
        ),
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
    expected = {
        labels(name, **place, gpu_id=one.text, state=one.text): float(one.value)
        for one in states.GPU
    }
    miner.check(tmp_path, {}, values={name: (5, expected)})


def test_the_state_of_an_instance_is_the_number_that_boards_map(tmp_path: Path) -> None:
    miner = Scenario(9)
    recorded = states.INSTANCE[1:]
    for state in recorded:
        miner.instance(state.text, -10)
        if state.text != "starting":
            miner.activate(state.text, 0)
    miner.set("chutes_instance_active", 0, 0, instance_id="disabled")
    # It has no purge time, so that it is unknown whether it was active.
    miner.set("chutes_instance_active", 0, 0, instance_id="unknown")
    name = "hotkey_instance_id:chutes_instance_state:max"
    expected = {labels(name, instance_id=one.text): float(one.value) for one in recorded}
    miner.check(tmp_path, {}, values={name: (5, expected)})


def test_an_instance_has_its_place_and_a_name_as_far_as_they_are_known(tmp_path: Path) -> None:
    miner = Scenario(10, {"alpha": 1})
    miner.instance("i-1", 0, server="alpha")
    miner.instance("i-2", 0, private=False)
    miner.set("chutes_instance_info", 1, instance_id="i-3", chute_id="12345678-abc", billed_to="")
    name = "hotkey_instance_id:chutes_instance_info:max"
    known = {"chute_id": "chute-1", "name": "glm-5"}
    expected = {
        labels(
            name, instance_id="i-1", billed_to="user", **known, server="alpha", gpu="pro_6000"
        ): 1,
        labels(name, instance_id="i-2", **known): 0,
        labels(name, instance_id="i-3", chute_id="12345678-abc", name="12345678…"): 0,
    }
    miner.check(tmp_path, {}, values={name: (5, expected)})


def test_a_server_without_a_name_is_named_by_its_id_and_two_names_are_no_error(
    tmp_path: Path,
) -> None:
    miner = Scenario(10, exporters=PAIR)
    miner.set("chutes_server_info", 1, server_id="id-1", name="", version="")
    for name in ("old", "new"):
        miner.set("chutes_server_info", 1, server_id="id-2", name=name, version="")
    recorded = "hotkey_server_id:chutes_server_info:max"
    miner.check(
        tmp_path,
        {},
        values={
            f'{recorded}{{server_id="id-1"}}': (
                5,
                {labels(recorded, server_id="id-1", server="id-1"): 1},
            ),
            f'count({recorded}{{server_id="id-2"}})': (5, {"{}": 1}),
        },
    )


def report(miner: Scenario, hours: Iterable[int], lost: float = 10) -> None:
    """Let the reports of hours come, four minutes after the end of the hour."""
    miner.set("chutes_miner_window_lost_compute_units", lost, window="1h")
    for hour in hours:
        miner.set("chutes_audit_report_end_timestamp_seconds", 3600 * hour, HOUR * hour + 4)


def test_lost_units_are_known_once_24_reports_are_and_count_the_newest_at_once(
    tmp_path: Path,
) -> None:
    miner = Scenario(27 * HOUR, step=4)
    report(miner, range(1, 27))
    miner.set("chutes_miner_window_lost_compute_units", 15, 25 * HOUR + 4, window="1h")
    miner.set("chutes_miner_window_lost_compute_units", 10, 26 * HOUR + 4, window="1h")
    name, none = "hotkey:chutes_miner_lost_compute_units:sum1d", dict[str, float]()
    miner.check(
        tmp_path,
        {},
        values={
            name: (24 * HOUR, none),
            f"({name})": (24 * HOUR + 8, {labels(name): 240}),
            f"(({name}))": (25 * HOUR, {labels(name): 240}),
            f"((({name})))": (25 * HOUR + 8, {labels(name): 245}),
            f"(((({name}))))": (27 * HOUR, {labels(name): 245}),
        },
    )


def test_a_server_has_no_counts_while_the_state_of_one_of_its_gpus_is_unknown(
    tmp_path: Path,
) -> None:
    miner = Scenario(10, {"alpha": 2, "beta": 1}).cost("alpha").cost("beta")
    miner.drop(0, "chutes_gpu_state_info", gpu_id="alpha-0")
    count, cost = (
        "hotkey_server_id_gpu_state:chutes_gpus:count",
        "hotkey_server_id_gpu:chutes_idle_usd_per_day:sum",
    )
    beta = {"server_id": "id-beta", "server": "beta", "gpu": "pro_6000"}
    miner.check(
        tmp_path,
        {},
        values={
            count: (5, {labels(count, **beta, state="earning"): 1}),
            cost: (5, {labels(cost, **beta): 0}),
            "hotkey:chutes_idle_usd_per_day:sum": (5, {}),
        },
    )


def test_the_work_of_the_past_hour_replaces_the_heading_of_an_exporter_without_a_key_only(
    tmp_path: Path,
) -> None:
    name = "hotkey:chutes_miner_score_heading_ratio:max"
    for key, expected in ((False, {labels(name): 0.1}), (True, {})):
        miner = Scenario(10)
        miner.drop(0, "chutes_miner_score_heading_ratio")
        miner.set("chutes_miner_window_compute_units", 10, window="1h")
        miner.set("chutes_platform_window_compute_units", 100, window="1h")
        if key:
            miner.set("chutes_scrape_collector_off", 0, collector="score_heading")
        miner.check(tmp_path, {}, values={name: (5, expected)})


def test_costs_and_estimates_of_a_day(tmp_path: Path) -> None:
    # 6 of 8 GPUs earned 200 dollars, and all cost 288.
    miner = Scenario(DAY + 60, {"alpha": 8}, exporters=PAIR, step=4)
    miner.state(0, ["alpha-0", "alpha-1"], "idle")
    miner.prices()
    miner.set("chutes_compute_unit_usd", 10)
    report(miner, range(1, 25))
    numbers = {
        "24 * avg_over_time(hotkey:chutes_fleet_gpus:lost[1d])": 48,
        # 2 idle GPUs cost 72 dollars a day. 10 compute units an hour are 240, and 2400 dollars at
        # 10 each.
        "hotkey:chutes_idle_usd_per_day:sum": 72,
        "hotkey:chutes_ended_usd:sum1d": 2400,
        "hotkey:chutes_miner_estimated_usd_per_day:per_gpu": 33.333,
    }
    values = {
        f"round({name}, 0.001)": (DAY + 60, {f'{{hotkey="{HOTKEY}"}}': value})
        for name, value in numbers.items()
    }
    lost = [
        "ChutesGpusIdle warning",
        "ChutesGpusIdle info",
        "ChutesGpuHoursLost info",
        "ChutesMinerLoss info",
    ]
    miner.check(tmp_path, {}, ever=lost, values=values)


def test_the_cost_of_the_idle_gpus_of_a_server_is_known_although_another_one_has_no_cost(
    tmp_path: Path,
) -> None:
    miner = Scenario(10, {"alpha": 2}).cost("alpha")
    miner.state(0, ["alpha-0"], "idle")
    miner.gpu("beta-0", "beta", state="unverified")
    name = "hotkey_server_id_gpu:chutes_idle_usd_per_day:sum"
    place = {"server_id": "id-alpha", "server": "alpha", "gpu": "pro_6000"}
    total = "hotkey:chutes_idle_usd_per_day:sum"
    miner.check(tmp_path, {}, values={name: (5, {labels(name, **place): 36}), total: (5, {})})


def test_compute_units_have_a_place_and_idle_gpus_the_pay_of_the_market(tmp_path: Path) -> None:
    miner = Scenario(10, {"alpha": 4, "beta": 2})
    miner.state(0, ["alpha-0"], "idle").gpu("gamma-0", "gamma", state="unverified")
    for number in ("i-1", "i-2"):
        miner.instance(number, -10, server="alpha").set(
            "chutes_instance_compute_multiplier", 2, instance_id=number
        )
    miner.activate("i-1", 0)
    # The instances of four GPUs that earn are unknown. Later, these are idle, and can launch a
    # chute.
    miner.state(7, ["alpha-2", "alpha-3", "beta-0", "beta-1"], "idle")
    miner.set("chutes_launch_units_per_gpu_second", 3, 6, gpu="pro_6000", chute_id="chute-1")
    units, model = (
        f"hotkey_{place}:chutes_compute_units_per_second:sum" for place in ("server_id", "gpu")
    )
    idle, servers = (
        "hotkey_server_id_gpu:chutes_idle_units_per_day:sum",
        ("id-alpha", "id-beta", "id-gamma"),
    )
    alpha, beta = (
        {"server_id": f"id-{server}", "server": server, "gpu": "pro_6000"}
        for server in ("alpha", "beta")
    )
    miner.check(
        tmp_path,
        {},
        values={
            f'{units}{{server_id!="id-gamma"}}': (5, {}),
            f"({units})": (
                9,
                {labels(units, server_id=one): 2 * (one == "id-alpha") for one in servers},
            ),
            model: (9, {labels(model, gpu="pro_6000"): 2}),
            idle: (5, {labels(idle, **beta): 0}),
            f"({idle})": (9, {labels(idle, **alpha): 86400 * 9, labels(idle, **beta): 86400 * 6}),
        },
    )
