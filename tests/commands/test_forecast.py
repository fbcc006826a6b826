"""``advise --with``, on the recorded world."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.chain.support import EXPECTED
from tests.commands.support import ALPHA_USD, EMISSION, Target, chain_flag, run
from tests.recorded import META, RECORDED_AT, Row, answers, rows, seconds, stream
from tests.support import replay, served

ME = META["test_miner"]
MINE = {"MINER_SEED": META["invented_seeds"][ME], "MINER_SS58": ME}
USD_PER_GPU_HOUR = 2
COST = f"--gpu.cost=pro_6000={USD_PER_GPU_HOUR}"


async def advise(api: dict[str, bytes], *arguments: str) -> tuple[int, str, str]:
    async with served(replay(api)) as url:
        return await run(Target(url), "advise", *arguments, variables=MINE)


async def forecast(api: dict[str, bytes], *arguments: str) -> Any:
    """Return the forecast of the test miner, None if it is unknown.

    An argument that is no flag is the value of a ``--with``.
    """
    flags = [one if one.startswith("-") else f"--with={one}" for one in arguments]
    _, output, _ = await advise(api, "--json", *flags)
    (found,) = (miner["with"] for miner in json.loads(output)["miners"])
    return found


def without_idle_gpus(api: dict[str, bytes]) -> dict[str, bytes]:
    """Return the answers of a miner that has no GPUs but those in instances."""
    held = {row["gpu_id"] for row in json.loads(api["inventory"])}
    servers = json.loads(api["servers"])
    for server in servers["servers"]:
        server["gpus"] = [gpu for gpu in server["gpus"] if gpu["uuid"] in held]
    nodes = [row for row in rows(api["nodes"]) if row["uuid"] in held]
    return api | {"servers": json.dumps(servers).encode(), "nodes": stream(nodes)}


def settled() -> list[Row]:
    """Return the miner's active instances with TEE whose multipliers do not change any more.

    They change for 8 hours after the activation.
    """
    tee = {chute["chute_id"] for chute in rows(answers()["chutes"]) if chute["tee"]}
    return [
        row
        for row in rows(answers()["instances"])
        if row["active"]
        and row["chute_id"] in tee
        and (seconds(row["activated_at"]) or 0) < RECORDED_AT - 8 * 3600
    ]


def heading() -> float:
    """Return the miner's share of what the active instances of all scored miners earn."""
    scored = {
        row["hotkey"] for row in json.loads(answers()["metagraph"]) if not row["blacklist_reason"]
    }
    rates: Counter[str] = Counter()
    for row in json.loads(answers()["active_instances"]):
        if row["miner_hotkey"] in scored:
            rates[row["miner_hotkey"]] += row["compute_multiplier"]
    return rates[ME] / rates.total()


def without(instance: Row, gpus: int) -> dict[str, bytes]:
    """Return the answers of a world in which an instance and its GPUs do not exist.

    Its chute wants it, and no other chute wants any instance. ``gpus`` is the number of its GPUs.
    """
    api = answers(now=time.time())
    # The inventory does not say which GPUs of the chute are those of the instance, so any will do.
    inventory = json.loads(api["inventory"])
    held = [row for row in inventory if row["chute_id"] == instance["chute_id"]][:gpus]
    changed = {
        "inventory": [row for row in inventory if row not in held],
        "active_instances": without_instance(json.loads(api["active_instances"]), instance),
        "held_gpus": held_gpus_without(instance, json.loads(api["held_gpus"])),
        "utilization": wanted_only(instance["chute_id"], json.loads(api["utilization"])),
        # No bounty lets another chute start.
        "bounties": bounties_of_no_chute(json.loads(api["bounties"])),
    }
    api |= {name: json.dumps(value).encode() for name, value in changed.items()}
    api["instances"] = stream(just_started(without_instance(rows(api["instances"]), instance)))
    return without_idle_gpus(api)


def without_instance(found: list[Row], instance: Row) -> list[Row]:
    return [row for row in found if row["instance_id"] != instance["instance_id"]]


def just_started(instances: list[Row]) -> list[Row]:
    """Let starts begin now. One that takes long would keep the chute from being launched again."""
    now = datetime.now(UTC).isoformat()
    return [row if row["activated_at"] else row | {"created_at": now} for row in instances]


def held_gpus_without(instance: Row, miners: dict[str, Row]) -> dict[str, Row]:
    """Remove the GPUs that an instance holds."""
    for miner in miners.values():
        miner["provisioned"] = [
            gpu
            for gpu in miner["provisioned"]
            if gpu["chute"]["instance_id"] != instance["instance_id"]
        ]
    return miners


def wanted_only(chute_id: str, utilization: list[Row]) -> list[Row]:
    """Take an instance from a chute, which wants it back. No other chute wants any."""
    for row in utilization:
        row |= {"scale_allowance": 0, "target_count": row["active_instance_count"]}
        if row["chute_id"] == chute_id:
            # Instances that start take room, too.
            starting = row["total_instance_count"] - row["active_instance_count"]
            row["scale_allowance"] = 1 + starting
            row["active_instance_count"] -= 1
            row["total_instance_count"] -= 1
    return utilization


def bounties_of_no_chute(bounties: list[Row]) -> list[Row]:
    return [row | {"chute_id": f"gone-{number}"} for number, row in enumerate(bounties)]


@pytest.mark.parametrize("instance", settled(), ids=lambda row: row["chute_id"][:8])
async def test_the_share_with_gpus_is_the_share_of_the_world_that_has_them(instance: Row) -> None:
    held = json.loads(answers()["held_gpus"])[ME]["provisioned"]
    models = [gpu["gpu"] for gpu in held if gpu["chute"]["instance_id"] == instance["instance_id"]]
    found = await forecast(without(instance, len(models)), f"{len(models)}x{models[0]}")
    true = heading()
    assert found["score_share_without"] < true * 0.999
    assert [one["chute_id"] for one in found["launches"]] == [instance["chute_id"]]
    assert found["idle_gpus"] == 0
    assert found["score_share_later"] == pytest.approx(true, rel=0.02)


def with_more(share: float, units: float, api: dict[str, bytes]) -> float:
    """Return the score share of a miner with so many more compute units per second."""
    everybody: float = sum(row["compute_multiplier"] for row in json.loads(api["active_instances"]))
    return (share * everybody + units) / (everybody + units)


async def test_gpus_get_the_chutes_with_room() -> None:
    api = without_idle_gpus(answers(now=time.time()))
    found = await forecast(api, "64xpro_6000")
    assert found["gpus"] == [{"gpu": "pro_6000", "count": 64}]
    allowances = {row["chute_id"]: row["scale_allowance"] for row in json.loads(api["utilization"])}
    chutes = {row["chute_id"]: row for row in rows(api["chutes"])}
    used_gpus = 0
    for launch in found["launches"]:
        chute = chutes[launch["chute_id"]]
        # A chute without an active instance has room for one, whatever the autoscaler allows.
        room = max(1, allowances.get(launch["chute_id"], 1))
        assert 1 <= launch["instances"] <= room
        assert launch["gpus"] == chute["node_selector"]["gpu_count"]
        assert launch["name"] == (chute["name"] if chute["public"] else None)
        used_gpus += launch["instances"] * launch["gpus"]
    assert found["idle_gpus"] == 64 - used_gpus


async def test_the_score_share_and_the_dollars_with_gpus_are_those_of_what_the_launches_pay() -> (
    None
):
    api = without_idle_gpus(answers(now=time.time()))
    async with chain_flag() as chain:
        found = await forecast(api, "64xpro_6000", COST, chain)
    units_first_day = units_later = 0.0
    for launch in found["launches"]:
        gpus = launch["instances"] * launch["gpus"]
        units_first_day += gpus * launch["first_day_units_per_gpu_second"]
        units_later += gpus * launch["later_units_per_gpu_second"]
    share_without = found["score_share_without"]
    share_first_day, share_later = found["score_share_first_day"], found["score_share_later"]
    assert share_without == pytest.approx(heading())
    # The pay falls to that of the cheapest GPU that a chute allows.
    assert share_first_day > share_later > share_without
    assert share_first_day == pytest.approx(with_more(share_without, units_first_day, api))
    assert share_later == pytest.approx(with_more(share_without, units_later, api))
    usd_of_all = EMISSION * ALPHA_USD
    assert found["usd_first_day"] == pytest.approx((share_first_day - share_without) * usd_of_all)
    assert found["usd_per_day_later"] == pytest.approx((share_later - share_without) * usd_of_all)
    assert found["cost_usd_per_day"] == 64 * 24 * USD_PER_GPU_HOUR
    assert found["price_usd"] is found["pay_back_days"] is None


async def test_a_price_is_paid_back_by_the_later_pay_less_the_cost() -> None:
    api = answers(now=time.time())
    async with chain_flag() as chain:
        two = await forecast(api, "8xpro_6000=64000", "2xh200=50000.5", COST, chain)
        costed = await forecast(
            api, "8xpro_6000=64000", "2xh200=50000.5", COST, "--gpu.cost=h200=3", chain
        )
        dear = await forecast(api, "8xpro_6000=64000", "--gpu.cost=pro_6000=9999", chain)
        free = await forecast(api, "8xpro_6000=64000", chain)
        unpriced = await forecast(api, "8xpro_6000=64000", "2xh200", chain)
    assert two["price_usd"] == 114000.5
    # The cost of an h200 is not known.
    assert two["cost_usd_per_day"] is two["pay_back_days"] is None
    both_costs = 24 * (8 * 2 + 2 * 3)
    assert costed["cost_usd_per_day"] == both_costs
    profit = costed["usd_per_day_later"] - both_costs
    assert costed["pay_back_days"] == pytest.approx(114000.5 / profit)
    # Without any cost, all of the later pay counts.
    assert free["pay_back_days"] == pytest.approx(64000 / free["usd_per_day_later"])
    # At this cost, the GPUs lose money.
    assert dear["cost_usd_per_day"] == 8 * 24 * 9999
    assert dear["pay_back_days"] is None
    assert unpriced["price_usd"] is unpriced["pay_back_days"] is None
    assert [gpu["gpu"] for gpu in two["gpus"]] == ["pro_6000", "h200"]


async def test_a_bounty_does_not_last() -> None:
    api = without_idle_gpus(answers(now=time.time()))
    launches = (await forecast(api, "8xpro_6000"))["launches"]
    boosted = {
        chute["chute_id"]: chute
        for chute in rows(api["chutes"])
        if "bounty_boost" in chute["compute_multiplier_factors"]
    }
    launch = next(one for one in launches if one["chute_id"] in boosted)
    chute = boosted[launch["chute_id"]]
    boost = chute["compute_multiplier_factors"]["bounty_boost"]
    pay = chute["effective_compute_multiplier"] / launch["gpus"] / boost
    assert launch["later_units_per_gpu_second"] == pytest.approx(pay)
    assert launch["first_day_units_per_gpu_second"] > pay


@pytest.mark.parametrize("allowance", [0, -3])
async def test_a_chute_that_wants_no_other_instance_is_not_launched(allowance: int) -> None:
    api = without_idle_gpus(answers(now=time.time()))
    utilization = json.loads(api["utilization"])
    full = {row["chute_id"] for row in utilization}
    before = await forecast(api, "8xpro_6000")
    assert full & {launch["chute_id"] for launch in before["launches"]}
    for row in utilization:
        # A private chute that runs with the target 0 accepts a launch, but refuses its activation.
        row |= {"active_instance_count": 1, "scale_allowance": allowance, "target_count": 0}
    api["utilization"] = json.dumps(utilization).encode()
    after = await forecast(api, "8xpro_6000")
    assert not full & {launch["chute_id"] for launch in after["launches"]}


async def test_the_screen_shows_the_share_the_money_and_the_gpus_that_stay_idle() -> None:
    api = answers(now=time.time())
    async with chain_flag() as chain:
        many = ("--with", "64xpro_6000=64000")
        few = ("--with", "8xpro_6000=64000")
        code, output, _ = await advise(api, *many, "--with", "2xh200=1", chain)
        _, half, _ = await advise(api, *few, "--with", "2xh200=1", COST, chain)
        _, unpriced, _ = await advise(api, *few, "--with", "2xh200", chain)
        _, dear, _ = await advise(api, *few, "--gpu.cost=pro_6000=9999", chain)
    text = " ".join(output.split())
    assert code == 1
    # In the recorded world, the miner's share is 14 %.
    assert re.search(
        r"With 64 more pro_6000 and 2 more h200: score share [\d.]+ % in the first day and "
        r"[\d.]+ % later, instead of 14\.\d %\. They earn [\d,]+\.\d\d USD in the first day and "
        r"[\d,]+\.\d\d USD a day later\.",
        text,
    )
    assert re.search(
        r"At the later pay, without running costs, they have paid their price of 64,001 USD after "
        r"\d+ days\.",
        text,
    )
    # Only one of the two models has a cost here, and only one has a price.
    unknown = "When they have paid their price is not known: add"
    assert f"{unknown} --gpu.cost h200=USD_PER_HOUR." in " ".join(half.split())
    assert f"{unknown} the price of h200." in " ".join(unpriced.split())
    assert re.search(r"No chute has room for \d+ of them\.", text)
    assert "(private)" in output
    text = " ".join(dear.split())
    assert f"They cost {8 * 24 * 9999:,.2f} USD a day (--gpu.cost)." in text
    assert "they never earn their price of 64,000 USD." in text


async def test_without_the_chain_the_screen_has_the_share_and_says_how_to_get_the_money() -> None:
    api = answers(now=time.time())
    _, output, _ = await advise(api, "--with", "8xpro_6000=64000")
    assert "is not known without prices of the chain." in " ".join(output.split())
    _, output, _ = await advise(api, "--with", "8xpro_6000")
    assert re.search(
        r"With 8 more pro_6000: score share \d+\.\d % in the first day and \d+\.\d % later, "
        r"instead of 14\.\d %\. ",
        " ".join(output.split()),
    )
    assert "They cost" not in output
    assert "\nFor earnings in US dollars, add --chain.url URL.\n" in output


async def test_a_miner_without_a_key_does_not_hide_how_to_get_the_money() -> None:
    api = without_idle_gpus(answers(now=time.time()))
    # The miner without a key, which comes first on the screen.
    before_me = min(EXPECTED["seats"])
    assert before_me < ME
    _, output, _ = await advise(api, "--with", "8xpro_6000", "--hotkey", before_me)
    assert output.index(before_me) < output.index(ME)
    assert "\nFor earnings in US dollars, add --chain.url URL.\n" in output


async def test_without_an_answer_the_forecast_is_unknown() -> None:
    api = answers(now=time.time())
    # No chute can be launched on this model, so the share stays the same. Dollars need the chain.
    nothing = await forecast(api, "1xmi300x")
    assert (nothing["launches"], nothing["idle_gpus"]) == ([], 1)
    assert nothing["usd_first_day"] is nothing["usd_per_day_later"] is None
    shares = {value for name, value in nothing.items() if name.startswith("score_share")}
    assert len(shares) == 1
    for name in ("utilization", "active_instances"):
        less = {key: body for key, body in api.items() if key != name}
        assert await forecast(less, "1xpro_6000") is None
    less = {key: body for key, body in api.items() if key != "utilization"}
    _, output, _ = await advise(less, "--with", "1xpro_6000")
    assert "? what other GPUs would earn" in output


async def test_a_model_that_nobody_knows_is_refused_with_the_known_ones() -> None:
    code, _, errors = await advise({}, "--with", "8xpro6000")
    assert (code, "l40s, mi300x, pro_6000" in errors) == (2, True)


@pytest.mark.parametrize(
    ("fields", "is_known"),
    [
        ({"effective_compute_multiplier": -1.0}, True),
        # In each of the others, a pay or a sum of pays is too large for a float.
        (
            {
                "effective_compute_multiplier": 1e300,
                "compute_multiplier_factors": {"bounty_boost": 1e-10},
            },
            False,
        ),
        ({"effective_compute_multiplier": 1e308}, False),
        ({"compute_multiplier": 1e307}, False),
    ],
)
async def test_a_chute_without_a_positive_pay_is_left_out_and_too_large_a_sum_is_unknown(
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
        assert (found["launches"], found["score_share_later"]) == ([], found["score_share_without"])
