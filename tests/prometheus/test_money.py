"""Costs and estimated earnings: each number is worked out by hand in a comment."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from chutes_exporter.simulator import Simulator
from tests.prometheus.farm import FLEET, Farm
from tests.prometheus.history import GROUPS, Target, input_series, play
from tests.support import HOTKEY, NOON, Clock, watching

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

A, B = "5Aaa", "5Bbb"
STATES = ("earning", "starting", "disabled", "idle", "unverified")
DAY = 24 * 60
"""Minutes."""
COST = "chutes_fleet_cost_usd"
ESTIMATE = "chutes_miner_estimated"
MONEY = [rule["record"] for group in GROUPS if group["name"] == "chutes-money" for rule in group["rules"]]


def gpus(model: str, *counts: int, hotkey: str = A, instance: str = "one:1") -> dict[str, float]:
    """Return the GPUs of a model by state: earning, starting, disabled, idle, unverified."""
    labels = f'job="chutes",instance="{instance}",hotkey="{hotkey}",gpu="{model}"'
    return {
        f'chutes_fleet_gpus{{{labels},state="{state}"}}': count for state, count in zip(STATES, counts, strict=True)
    }


def asked(feed: str, at: float, hotkey: str = "", instance: str = "one:1") -> dict[str, float]:
    labels = f'job="chutes",instance="{instance}",hotkey="{hotkey}",feed="{feed}"'
    return {f"chutes_feed_last_success_timestamp_seconds{{{labels}}}": at}


def figures(
    costs: dict[str, float], emission: float | None = None, price: float | None = None, instance: str = "one:1"
) -> dict[str, float]:
    target = f'job="chutes",instance="{instance}"'
    given = {f'chutes_gpu_cost_usd_per_hour{{{target},gpu="{model}"}}': cost for model, cost in costs.items()}
    if emission is not None:
        given[f"chutes_subnet_emission_alpha_per_day{{{target}}}"] = emission
    if price is not None:
        given[f"chutes_alpha_price_usd{{{target}}}"] = price
    return given


def share(value: float, hotkey: str = A, instance: str = "one:1") -> dict[str, float]:
    return {f'chutes_miner_incentive_ratio{{job="chutes",instance="{instance}",hotkey="{hotkey}"}}': value}


def evaluate(
    directory: Path,
    series: list[dict[str, str]],
    minute: int,
    expected: dict[str, float],
    only: list[str] | None = None,
    step: float = 1e-6,
    absent_at: Iterable[int] = (),
) -> None:
    """Let promtool evaluate the rules of money, and compare what they record with all that is expected at a minute.

    Args:
        directory: For its file.
        series: What Prometheus has.
        minute: When.
        expected: Values by series. What is not among them must be absent.
        only: The names that are compared; all of the group where it is None.
        step: What values are rounded to.
        absent_at: Minutes at which all of the names must be absent.
    """
    names = [name for name in MONEY if name.startswith(("hotkey:", "hotkey_state:"))] if only is None else only
    tests = [
        {
            # An average of many values is not exact, and promtool compares exactly.
            "expr": f"round({name}, {step})",
            "eval_time": f"{minute}m",
            "exp_samples": [
                {"labels": key.removeprefix(name), "value": value}
                for key, value in expected.items()
                if key.startswith(f"{name}{{")
            ],
        }
        for name in names
    ]
    tests += [{"expr": name, "eval_time": f"{early}m", "exp_samples": []} for name in names for early in absent_at]
    order = ("chutes-newest", "chutes-money")
    groups = {group["name"]: group for group in GROUPS if group["name"] in order}
    rules = directory / "rules.yml"
    rules.write_text(json.dumps({"groups": list(groups.values())}))
    assert {key.partition("{")[0] for key in expected} <= set(names)
    written: dict[str, Any] = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "group_eval_order": order,
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}],
    }
    path = directory / "money.yml"
    path.write_text(json.dumps(written))
    result = subprocess.run(
        ["promtool", "test", "rules", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def constant(*parts: Mapping[str, float], minutes: int = 5, begin: int = 0) -> list[dict[str, str]]:
    """Return series that keep their values."""
    gap = f"_x{begin} " if begin else ""
    return [
        {"series": key, "values": f"{gap}{value}x{minutes - begin}"} for part in parts for key, value in part.items()
    ]


ONE = (
    gpus("h100", 4, 1, 1, 2, 0),
    gpus("l40s", 3, 0, 0, 3, 1),
    asked("inventory", 60, A),
    asked("metagraph", 60),
    share(0.0625),
)
"""8 h100 and 7 l40s, and a sixteenth of the incentive."""


def test_costs_and_estimates_are_what_a_hand_calculation_says(tmp_path: Path) -> None:
    costs = {"h100": 2.0, "l40s": 0.5}
    evaluate(
        tmp_path,
        constant(*ONE, figures(costs, 7200, 0.25)),
        5,
        {
            # 4 x 2 + 3 x 0.5; 1 x 2; 1 x 2; 2 x 2 + 3 x 0.5; 1 x 0.5
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{A}",state="earning"}}': 9.5,
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{A}",state="starting"}}': 2,
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{A}",state="disabled"}}': 2,
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{A}",state="idle"}}': 5.5,
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{A}",state="unverified"}}': 0.5,
            # 8 x 2 + 7 x 0.5
            f'hotkey:{COST}_per_hour:sum{{hotkey="{A}"}}': 19.5,
            # 7200 / 16; x 0.25; divided by 4 + 3 that earn and 1 that is disabled
            f'hotkey:{ESTIMATE}_alpha_per_day:newest{{hotkey="{A}"}}': 450,
            f'hotkey:{ESTIMATE}_usd_per_day:newest{{hotkey="{A}"}}': 112.5,
            f'hotkey:{ESTIMATE}_alpha_per_day:per_gpu{{hotkey="{A}"}}': 450 / 8,
            f'hotkey:{ESTIMATE}_usd_per_day:per_gpu{{hotkey="{A}"}}': 112.5 / 8,
            # 112.5 - 24 x 19.5
            f'hotkey:{ESTIMATE}_profit_usd_per_day:newest{{hotkey="{A}"}}': -355.5,
        },
    )


def test_without_figures_nothing_is_recorded(tmp_path: Path) -> None:
    evaluate(tmp_path, constant(*ONE), 5, {})


def test_an_emission_without_a_price_gives_alpha_and_no_dollars(tmp_path: Path) -> None:
    evaluate(
        tmp_path,
        constant(*ONE, figures({}, 7200)),
        5,
        {
            f'hotkey:{ESTIMATE}_alpha_per_day:newest{{hotkey="{A}"}}': 450,
            f'hotkey:{ESTIMATE}_alpha_per_day:per_gpu{{hotkey="{A}"}}': 450 / 8,
        },
    )
    evaluate(tmp_path, constant(*ONE, figures({}, None, 0.25)), 5, {})


def test_where_a_model_has_no_cost_only_states_without_it_are_known(tmp_path: Path) -> None:
    evaluate(
        tmp_path,
        constant(*ONE, figures({"h100": 2.0}, 7200, 0.25)),
        5,
        # No l40s starts or is disabled. Those that earn, idle or are unverified have no cost.
        {
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{A}",state="starting"}}': 2,
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{A}",state="disabled"}}': 2,
            f'hotkey:{ESTIMATE}_alpha_per_day:newest{{hotkey="{A}"}}': 450,
            f'hotkey:{ESTIMATE}_usd_per_day:newest{{hotkey="{A}"}}': 112.5,
            f'hotkey:{ESTIMATE}_alpha_per_day:per_gpu{{hotkey="{A}"}}': 450 / 8,
            f'hotkey:{ESTIMATE}_usd_per_day:per_gpu{{hotkey="{A}"}}': 112.5 / 8,
        },
    )


def test_where_the_states_of_a_model_are_unknown_there_is_no_cost(tmp_path: Path) -> None:
    target = f'job="chutes",instance="one:1",hotkey="{A}"'
    unknown = {f'chutes_gpu_info{{{target},gpu_id="g",gpu="b200",server_id="s"}}': 1}
    series = constant(*ONE, asked("nodes", 60, A), unknown, figures({"h100": 2.0, "l40s": 0.5, "b200": 4.0}))
    evaluate(tmp_path, series, 5, {})


def test_a_pair_of_exporters_counts_nothing_twice_and_the_newer_answer_decides(tmp_path: Path) -> None:
    costs = {"h100": 2.0}
    pair = [
        part
        for instance, at, idle in (("one:1", 60, 2), ("two:1", 120, 3))
        for part in (
            gpus("h100", 8 - idle, 0, 0, idle, 0, instance=instance),
            asked("inventory", at, A, instance),
            asked("metagraph", 60, instance=instance),
            share(0.0625, instance=instance),
            figures(costs, 7200, 0.25, instance),
        )
    ]
    evaluate(
        tmp_path,
        constant(*pair),
        5,
        {
            # The second exporter's: 5 x 2, 3 x 2, 8 x 2.
            **{f'hotkey_state:{COST}_per_hour:sum{{hotkey="{A}",state="{state}"}}': 0 for state in STATES},
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{A}",state="earning"}}': 10,
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{A}",state="idle"}}': 6,
            f'hotkey:{COST}_per_hour:sum{{hotkey="{A}"}}': 16,
            f'hotkey:{ESTIMATE}_alpha_per_day:newest{{hotkey="{A}"}}': 450,
            f'hotkey:{ESTIMATE}_usd_per_day:newest{{hotkey="{A}"}}': 112.5,
            f'hotkey:{ESTIMATE}_alpha_per_day:per_gpu{{hotkey="{A}"}}': 90,
            f'hotkey:{ESTIMATE}_usd_per_day:per_gpu{{hotkey="{A}"}}': 22.5,
            f'hotkey:{ESTIMATE}_profit_usd_per_day:newest{{hotkey="{A}"}}': -271.5,
        },
    )


def test_miners_with_exporters_of_their_own_have_costs_of_their_own(tmp_path: Path) -> None:
    # Each also exports the other's incentive. The second one has the newer metagraph.
    both = [
        part
        for hotkey, instance, cost, at in ((A, "one:1", 2.0, 60), (B, "two:1", 3.0, 120))
        for part in (
            gpus("h100", 0, 0, 0, 4, 0, hotkey=hotkey, instance=instance),
            asked("inventory", 60, hotkey, instance),
            asked("metagraph", at, instance=instance),
            share(0.0625, A, instance),
            share(0.125, B, instance),
            {f'chutes_miner_watched{{job="chutes",instance="{instance}",hotkey="{hotkey}"}}': 1.0},
            figures({"h100": cost}, 800, cost, instance),
        )
    ]
    evaluate(
        tmp_path,
        constant(*both),
        5,
        {
            f'hotkey:{COST}_per_hour:sum{{hotkey="{A}"}}': 8,
            f'hotkey:{COST}_per_hour:sum{{hotkey="{B}"}}': 12,
            # 800 / 16 x 2, and 800 / 8 x 3
            f'hotkey:{ESTIMATE}_usd_per_day:newest{{hotkey="{A}"}}': 100,
            f'hotkey:{ESTIMATE}_usd_per_day:newest{{hotkey="{B}"}}': 300,
        },
        [f"hotkey:{COST}_per_hour:sum", f"hotkey:{ESTIMATE}_usd_per_day:newest"],
    )


def test_the_cost_of_the_past_day_needs_a_day_of_data(tmp_path: Path) -> None:
    fixed = constant(asked("inventory", 60, A), figures({"h100": 2.0}), minutes=DAY)
    # 1 idle GPU for the first 6 of 24 hours, then 3: at 2 dollars each, 12 + 108. The other GPUs of 4 earn.
    half = 6 * 60
    changing = [
        {"series": key, "values": f"{first}x{half} {last}x{DAY - half - 1}"}
        for (key, first), last in zip(
            gpus("h100", 3, 0, 0, 1, 0).items(), gpus("h100", 1, 0, 0, 3, 0).values(), strict=True
        )
    ]
    names = [f"hotkey_state:{COST}:sum1d", f"hotkey:{COST}:sum1d"]
    day = {
        # The range [1d] has 360 values of 2 dollars and 1080 of 6, and in Prometheus 2 that of its left end too.
        f'hotkey_state:{COST}:sum1d{{hotkey="{A}",state="idle"}}': 24 * (360 * 2 + 1080 * 6) / 1440,
        f'hotkey_state:{COST}:sum1d{{hotkey="{A}",state="earning"}}': 24 * (360 * 6 + 1080 * 2) / 1440,
        f'hotkey_state:{COST}:sum1d{{hotkey="{A}",state="starting"}}': 0,
        f'hotkey_state:{COST}:sum1d{{hotkey="{A}",state="disabled"}}': 0,
        f'hotkey_state:{COST}:sum1d{{hotkey="{A}",state="unverified"}}': 0,
        f'hotkey:{COST}:sum1d{{hotkey="{A}"}}': 192,
    }
    assert day[f'hotkey_state:{COST}:sum1d{{hotkey="{A}",state="idle"}}'] == 120
    evaluate(tmp_path, fixed + changing, DAY, day, names, step=1, absent_at=[20 * 60])


async def test_a_real_page_has_the_labels_that_the_rules_join(tmp_path: Path) -> None:
    clock = Clock()
    async with Simulator(Farm(NOON, [FLEET]), clock=clock) as simulator:
        settings = watching(simulator.url, gpu_costs=["l40s=0.5", "h200=3"], daily_emission=7200.0, alpha_price=0.25)
        scrapes = await play(settings, clock, 2)
    series = input_series([Target(dict(enumerate(scrapes)))], 1)
    evaluate(
        tmp_path,
        series,
        1,
        # 8 h200 and 16 l40s, 3 of which idle.
        {
            f'hotkey:{COST}_per_hour:sum{{hotkey="{HOTKEY}"}}': 32,
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{HOTKEY}",state="earning"}}': 24 + 6.5,
            f'hotkey_state:{COST}_per_hour:sum{{hotkey="{HOTKEY}",state="idle"}}': 1.5,
            **{
                f'hotkey_state:{COST}_per_hour:sum{{hotkey="{HOTKEY}",state="{state}"}}': 0
                for state in ("starting", "disabled", "unverified")
            },
        },
        [f"hotkey:{COST}_per_hour:sum", f"hotkey_state:{COST}_per_hour:sum"],
    )
