"""``advise --with``, on the recorded world."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.commands.support import ALPHA_USD, EMISSION, Target, chain_flag, run
from tests.recorded import EXPECTED, META, RECORDED_AT, Row, answers, rows, seconds, stream
from tests.support import replay, served

ME = META["test_miner"]
MINE = {"MINER_SEED": META["invented_seeds"][ME], "MINER_SS58": ME}
COST = "--gpu.cost=pro_6000=2"


async def advise(api: dict[str, bytes], *arguments: str) -> tuple[int, str, str]:
    async with served(replay(api)) as url:
        return await run(Target(url), "advise", *arguments, variables=MINE)


async def forecast(api: dict[str, bytes], gpus: str, *arguments: str) -> Any:
    """Return the forecast of the test miner."""
    _, output, _ = await advise(api, "--json", "--with", gpus, *arguments)
    ((found,),) = (miner["with"] for miner in json.loads(output)["miners"])
    return found


def settled() -> list[Row]:
    """Return the miner's active instances with TEE whose multipliers do not change any more."""
    tee = {chute["chute_id"] for chute in rows(answers()["chutes"]) if chute["tee"]}
    return [
        row
        for row in rows(answers()["instances"])
        if row["active"]
        and row["chute_id"] in tee
        and (seconds(row["activated_at"]) or 0) < RECORDED_AT - 8 * 3600
    ]


def without(instance: Row, gpus: int) -> dict[str, bytes]:
    """Return the answers of a world in which an instance does not exist, and its chute wants it."""
    api = answers(now=time.time())
    api["instances"] = stream(
        [row for row in rows(api["instances"]) if row["instance_id"] != instance["instance_id"]]
    )
    values = {
        name: json.loads(api[name])
        for name in ("active_instances", "held_gpus", "inventory", "utilization")
    }
    key = "instance_id"
    values["active_instances"] = [
        row for row in values["active_instances"] if row[key] != instance[key]
    ]
    for miner in values["held_gpus"].values():
        miner["provisioned"] = [
            gpu for gpu in miner["provisioned"] if gpu["chute"][key] != instance[key]
        ]
    held = [row for row in values["inventory"] if row["chute_id"] == instance["chute_id"]][:gpus]
    values["inventory"] = [row for row in values["inventory"] if row not in held]
    for row in values["utilization"]:
        if row["chute_id"] == instance["chute_id"]:
            for name, change in {
                "active_instance_count": -1,
                "total_instance_count": -1,
                "scale_allowance": 1,
            }.items():
                row[name] += change
    return api | {name: json.dumps(value).encode() for name, value in values.items()}


@pytest.mark.parametrize("instance", settled(), ids=lambda row: row["chute_id"][:8])
async def test_the_share_with_gpus_is_the_share_of_the_world_that_has_them(instance: Row) -> None:
    held = json.loads(answers()["held_gpus"])[ME]["provisioned"]
    models = [gpu["gpu"] for gpu in held if gpu["chute"]["instance_id"] == instance["instance_id"]]
    found = await forecast(without(instance, len(models)), f"{len(models)}x{models[0]}")
    true = EXPECTED["heading_share"][ME]
    assert found["score_share_without"] < true * 0.999
    (share,) = [
        one["score_share"] for one in found["runs"] if one["chute_id"] == instance["chute_id"]
    ]
    assert share == pytest.approx(true, rel=0.02)
    assert found["score_share"] >= share


async def test_the_best_paid_chutes_with_room_come_first_and_room_limits_the_rest() -> None:
    api = answers(now=time.time())
    async with chain_flag() as chain:
        found = await forecast(api, "64xpro_6000", COST, chain)
    assert (found["gpu"], found["gpus"]) == ("pro_6000", 64)
    pays = [one["units_per_gpu_second"] for one in found["runs"]]
    assert pays == sorted(pays, reverse=True)
    allowances = {row["chute_id"]: row["scale_allowance"] for row in json.loads(api["utilization"])}
    assert all(one["instances"] in (1, allowances.get(one["chute_id"])) for one in found["runs"])
    assert found["idle_gpus"] == 64 - sum(one["instances"] * one["gpus"] for one in found["runs"])
    gain = found["score_share"] - found["score_share_without"]
    assert found["score_share_without"] == pytest.approx(EXPECTED["heading_share"][ME])
    assert found["usd_per_day"] == pytest.approx(gain * EMISSION * ALPHA_USD)
    assert found["usd_per_gpu_day"] == pytest.approx(gain * EMISSION * ALPHA_USD / 64)
    assert found["break_even_alpha_price_usd"] == pytest.approx(64 * 24 * 2 / (gain * EMISSION))


@pytest.mark.parametrize("allowance", [0, -3])
async def test_a_bounty_does_not_count_and_a_chute_that_wants_no_other_instance_does_not_either(
    allowance: int,
) -> None:
    api = answers(now=time.time())
    chutes, utilization = rows(api["chutes"]), json.loads(api["utilization"])
    before = await forecast(api, "1xpro_6000")
    boosted = {
        one["chute_id"] for one in chutes if "bounty_boost" in one["compute_multiplier_factors"]
    }
    best = next(one for one in before["runs"] if one["chute_id"] in boosted)
    (chute,) = (one for one in chutes if one["chute_id"] == best["chute_id"])
    factors = chute["compute_multiplier_factors"]
    pay = chute["effective_compute_multiplier"] / factors["bounty_boost"]
    assert best["units_per_gpu_second"] == pytest.approx(pay)
    for row in utilization:
        # A private chute that runs with the target 0 accepts a launch, but refuses its activation.
        row |= {"active_instance_count": 1, "scale_allowance": allowance, "target_count": 0}
    api["utilization"] = json.dumps(utilization).encode()
    after = await forecast(api, "1xpro_6000")
    listed = {row["chute_id"] for row in utilization}
    assert not listed & {one["chute_id"] for one in after["runs"]}


async def test_the_screen_shows_the_share_the_money_and_the_gpus_that_stay_idle() -> None:
    async with chain_flag() as chain:
        code, output, _ = await advise(
            answers(now=time.time()), "--with", "64xpro_6000", "--with", "2xh200", COST, chain
        )
    text = " ".join(output.split())
    assert code == 1
    assert re.search(
        r"With 64 more pro_6000: score share [^,]+ %, [\d,]+\.\d\d USD a day, [\d,]+\.\d\d "
        r"for each GPU\.",
        text,
    )
    assert " USD for one alpha" in text
    assert "No chute has room for " in text
    assert "With 2 more h200: score share " in text
    assert "The platform has 400 pro_6000, 299 of them idle." in text
    _, output, _ = await advise(answers(now=time.time()), "--with", "8xpro_6000")
    assert re.search(
        r"^With 8 more pro_6000: score share \d+\.\d % instead of 10\.4 %$", output, re.MULTILINE
    )


async def test_without_an_answer_the_forecast_is_unknown() -> None:
    api = answers(now=time.time())
    nothing = await forecast(api, "1xmi300x")
    assert (nothing["runs"], nothing["usd_per_day"]) == ([], None)
    assert nothing["score_share"] == nothing["score_share_without"]
    del api["utilization"]
    assert await forecast(api, "1xpro_6000") is None
    _, output, _ = await advise(api, "--with", "1xpro_6000")
    assert "What other GPUs would earn is not known." in output


async def test_a_model_that_nobody_knows_is_refused_with_the_known_ones() -> None:
    code, _, errors = await advise({}, "--with", "8xpro6000")
    assert (code, "l40s, mi300x, pro_6000" in errors) == (2, True)


@pytest.mark.parametrize(
    ("fields", "is_known"),
    [
        ({"effective_compute_multiplier": -1.0}, True),
        (
            {
                "effective_compute_multiplier": 1e300,
                "compute_multiplier_factors": {"bounty_boost": 1e-10},
            },
            True,
        ),
        ({"effective_compute_multiplier": 1e308}, False),
        ({"compute_multiplier": 1e307}, False),
    ],
)
async def test_a_chute_without_a_positive_finite_pay_is_left_out_and_too_large_a_sum_is_unknown(
    fields: Row,
    is_known: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    api = answers(now=time.time())
    active = [row | fields for row in json.loads(api["active_instances"])]
    chutes = [row | fields for row in rows(api["chutes"])]
    found = await forecast(
        api | {"chutes": stream(chutes), "active_instances": json.dumps(active).encode()},
        "64xpro_6000",
    )
    assert (found is not None) == is_known
    if is_known:
        assert (found["runs"], found["score_share"]) == ([], found["score_share_without"])
