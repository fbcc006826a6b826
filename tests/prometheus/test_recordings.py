"""Recorded values: names, states, costs and estimates. Each number is worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.fleet.model import SERVER_STATES
from grafana import states
from tests.prometheus.scenario import HOTKEY, Scenario, run_promtool

if TYPE_CHECKING:
    from pathlib import Path

ME = {"hotkey": HOTKEY}


def labels(name: str, /, **more: str) -> str:
    """Write a series of the miner."""
    return (
        name + "{" + ",".join(f'{label}="{value}"' for label, value in {**ME, **more}.items()) + "}"
    )


def test_a_server_on_which_3_starts_failed_in_6_hours_is_failing(tmp_path: Path) -> None:
    miner = Scenario(60)
    name = "hotkey_server_id:chutes_server_state:with_failing"
    # A server in maintenance with failed starts keeps its state, which is worse than failing.
    found = {}
    servers = (
        ("loop", "idle", 3),
        ("twice", "idle", 2),
        ("old", "in_maintenance", 3),
        # One of these starts was in vain for a moment, and one was ended by a scale-down.
        ("raced", "idle", 3),
        ("planned", "idle", 3),
    )
    miner.set("chutes_instance_start_in_vain", 1, 5, instance_id="raced-0")
    miner.set("chutes_instance_start_in_vain", 0, 7, instance_id="raced-0")
    miner.drop(20, "chutes_instance_start_in_vain", instance_id="raced-0")
    miner.set("chutes_instance_planned_start_end", 1, 30, instance_id="planned-0")
    for server, state, starts in servers:
        place = {"server_id": f"id-{server}", "server": server}
        miner.set("chutes_server_state", 1, **place, state=state)
        for number in range(starts):
            instance = f"{server}-{number}"
            miner.instance(instance, 0, server=server).remove(instance, 20)
        found[server] = labels(name, **place)
    numbers = {state.text: float(state.value) for state in states.SERVER}
    expected = {
        found["loop"]: numbers["failing"],
        found["twice"]: numbers["idle"],
        found["old"]: numbers["in maintenance"],
        found["raced"]: numbers["idle"],
        found["planned"]: numbers["idle"],
    }
    miner.check(tmp_path, {40: []}, values={name: (40, expected)})


# The states of a server have other texts on boards, in the same order, and one more.
_OF_SERVERS = [state for state in states.SERVER if state.text != "failing"]


def test_each_state_has_the_number_that_boards_show_also_while_two_exporters_disagree(
    tmp_path: Path,
) -> None:
    numbers = {name: float(one.value) for name, one in zip(SERVER_STATES, _OF_SERVERS, strict=True)}
    recorded = "hotkey_server_id:chutes_server_state:number"
    *_, last = numbers
    series = []
    # At 0:10, everything gets the last state. The second exporter sees it 2 minutes later.
    for exporter, minutes in (("one:1", 10), ("two:2", 12)):
        for name in numbers:
            for state in numbers:
                of_state = {"server_id": name, "state": state, "instance": exporter}
                values = f"{int(state == name)}x{minutes - 1} {int(state == last)}x20"
                series.append(
                    {"series": labels("chutes_server_state", **of_state), "values": values}
                )
    tests = []
    for minute in (5, 11, 15):
        samples = []
        for name, number in numbers.items():
            seen = number if minute == 5 else numbers[last]
            samples.append({"labels": labels(recorded, server_id=name), "value": seen})
        tests.append({"expr": recorded, "eval_time": f"{minute}m", "exp_samples": samples})
    test = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    run_promtool(tmp_path / "test.yml", evaluation_interval="1m", tests=[test])


def test_the_pay_of_a_seat_that_cannot_score_is_unknown(tmp_path: Path) -> None:
    pay = "hotkey:chutes_miner_estimated_usd:next24h"
    for name, number, alert in (
        ("chutes_miner_registered", 0, "ChutesMinerDeregistered critical"),
        ("chutes_miner_blacklisted", 1, "ChutesMinerBlacklisted critical"),
    ):
        miner = Scenario(30).set("chutes_subnet_emission_alpha_per_day", 100)
        miner.set("chutes_alpha_price_usd", 10).set(name, number, 10)
        # The score and the heading are 2 %, and all miners are paid 1,000 dollars a day.
        # In parentheses, it is the same query, at another minute.
        values = {f"round({pay})": (5, {labels(""): 20.0}), pay: (20, {})}
        miner.check(tmp_path, {}, ever=[alert], values=values)
