"""The recording rule and ``chutes-exporter advise`` rank one world as it was ranked by hand."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.commands.advise import run_advise
from chutes_exporter.simulator import Simulator
from tests.prometheus.history import FILES, GROUPS, Target, input_series, play
from tests.prometheus.market import NUMBERS, RANKING, Market, Ranking, name_of, with_chute
from tests.support import NOON, Clock, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from chutes_exporter.config import Settings

RULE = "hotkey_gpu_chute_id:chutes_chute_units_per_gpu_second:runnable"
A, B = RANKING
L40S = "l40s"
EMPTY: Ranking = {"l40s": [], "h200": []}


def _nothing(_market: Market) -> None:
    pass


def _blacklist(market: Market) -> None:
    market.miners[0].blacklist_reason = "Spoofed GPUs"


def _verify(market: Market) -> None:
    market.miners[0].servers[0].gpus[-1].verified_at = market.start - 86400


def _use_up(market: Market) -> None:
    # A GPU in an instance that starts is not idle.
    gpu = market.miners[0].servers[0].gpus[4]
    market.launch(market.miners[0], (gpu,), NUMBERS["plain"], market.start - 600, activated=None)


def _unverify(market: Market) -> None:
    market.unverify(market.miners[0].servers[0].gpus[4:5])


CASES: dict[str, tuple[Callable[[Market], None], Ranking, Ranking]] = {
    "as it is": (_nothing, A, B),
    "a fourth GPU is verified": (
        _verify,
        with_chute(A, L40S, "too-wide", 0.377778),
        B,
    ),
    "one GPU less is idle": (_use_up, {**A, L40S: [one for one in A[L40S] if one[0] != "wide"]}, B),
    "one GPU less is verified": (_unverify, {**A, L40S: [one for one in A[L40S] if one[0] != "wide"]}, B),
    "the chute is enabled": (
        lambda market: market.change("disabled", disabled=False),
        with_chute(A, L40S, "disabled", 0.566667),
        # It pays what the private one pays, so that their order is that of their ids.
        {L40S: [("disabled", 0.566667), *B[L40S]]},
    ),
    "the chute gets an allowance": (
        lambda market: market.change("full", room=1),
        with_chute(A, L40S, "full", 0.755556),
        with_chute(B, L40S, "full", 0.755556),
    ),
    "the server with more idle GPUs gets TEE": (
        lambda market: market.give_tee(0),
        with_chute(A, L40S, "tee-wide", 0.74375),
        B,
    ),
    "a server of the other model gets TEE": (
        lambda market: market.give_tee(2),
        with_chute(A, "h200", "tee-h200", 1.375),
        B,
    ),
    "an active TEE instance opens the private gate": (
        Market.run_tee,
        with_chute(A, L40S, "private", 0.566667),
        B,
    ),
    "a bounty lets a private chute start": (
        lambda market: market.offer("private-unwanted"),
        A,
        with_chute(B, L40S, "private-unwanted", 0.85),
    ),
    "no more instances of a TEE chute start than it has room for": (
        lambda market: market.change("tee-crowded", room=2),
        with_chute(A, L40S, "tee-crowded", 2.125),
        B,
    ),
    "the miner is blacklisted": (_blacklist, EMPTY, B),
}


def settings(url: str, market: Market) -> Settings:
    keys = [miner.key for miner in market.miners[:2]]
    return watching(url, *keys, collectors={"thrash_cooldowns": True})


async def advised(market: Market, capsys: pytest.CaptureFixture[str], cooldown: float = 3600) -> list[Ranking]:
    """Return what the command advises each miner, at the real time, which it works with."""
    async with Simulator(market, clock=time.time) as simulator:
        simulator.faults.update(market.cooldowns(cooldown))
        await run_advise(settings(simulator.url, market), as_json=True)
    miners = {one["hotkey"]: one["idle"] for one in json.loads(capsys.readouterr().out)["miners"]}
    return [
        {
            model["gpu"]: [
                (name_of(offer["chute_id"]), round(offer["units_per_gpu_second"], 6)) for offer in model["runnable"]
            ]
            for model in miners[miner.hotkey]
        }
        for miner in market.miners[:2]
    ]


async def check_rule(
    directory: Path,
    market: Market,
    rankings: Sequence[Ranking],
    cooldown: float = 3600,
    changed: Mapping[str, float] | None = None,
) -> None:
    """Let promtool evaluate all rules on the pages of a real exporter, and compare the recorded ranking.

    Args:
        directory: For its file.
        market: The world.
        rankings: What must be recorded of its two miners.
        cooldown: Seconds until the cooldown of a chute ends.
        changed: Metrics with other values for all miners.
    """
    clock = Clock()
    async with Simulator(market, clock=clock) as simulator:
        simulator.faults.update(market.cooldowns(cooldown))
        scrapes = await play(settings(simulator.url, market), clock, 2)
    for scrape in scrapes:
        for key in scrape:
            if (value := (changed or {}).get(key.partition("{")[0])) is not None:
                scrape[key] = f"{value:f}"
    expected = [
        {
            "labels": f'{RULE}{{hotkey="{miner.hotkey}",gpu="{model}",'
            f'chute_id="{market.chutes[NUMBERS[name]].chute_id}"}}',
            "value": units,
        }
        for miner, ranking in zip(market.miners, rankings, strict=False)
        for model, chutes in ranking.items()
        for name, units in chutes
    ]
    evaluate(directory, input_series([Target(dict(enumerate(scrapes)))], 1), expected)


def evaluate(directory: Path, series: list[dict[str, str]], expected: list[dict[str, Any]]) -> None:
    """Let promtool evaluate all rules, and compare what the rule records after a minute."""
    first = ("chutes-newest", "chutes-market")
    written = {
        "rule_files": list(map(str, FILES)),
        "evaluation_interval": "1m",
        "group_eval_order": sorted(
            (group["name"] for group in GROUPS), key=lambda name: first.index(name) if name in first else 2
        ),
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [{"expr": RULE, "eval_time": "1m", "exp_samples": expected}],
            }
        ],
    }
    path = directory / "market.yml"
    path.write_text(json.dumps(written))
    result = subprocess.run(
        ["promtool", "test", "rules", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("case", CASES)
async def test_the_command_ranks_what_idle_gpus_can_run(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    happens, *expected = CASES[case]
    market = Market(time.time())
    happens(market)
    assert await advised(market, capsys) == expected


@pytest.mark.parametrize("case", CASES)
async def test_the_rule_ranks_the_same(case: str, tmp_path: Path) -> None:
    happens, *expected = CASES[case]
    market = Market(NOON)
    happens(market)
    await check_rule(tmp_path, market, expected)


async def test_a_chute_is_offered_again_after_its_cooldown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = [with_chute(ranking, L40S, "cooling", 1.133333) for ranking in RANKING]
    assert await advised(Market(time.time()), capsys, cooldown=-60) == expected
    await check_rule(tmp_path, Market(NOON), expected, cooldown=-60)


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("chutes_miner_private_gate_instances", 3),
        ("chutes_miner_private_gate_gpus", 11),
        ("chutes_miner_average_active_gpus", 15.9),
        # The rule runs at the 60th second.
        ("chutes_miner_private_gate_oldest_activation_timestamp_seconds", 61 - 3 * 86400),
    ],
)
async def test_the_private_gate_has_four_conditions(tmp_path: Path, metric: str, value: float) -> None:
    public = {L40S: [one for one in B[L40S] if one[0] != "private"]}
    await check_rule(tmp_path, Market(NOON), [A, public], changed={metric: value})
