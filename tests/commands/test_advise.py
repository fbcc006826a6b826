"""The command ``advise``, on the recorded world. tests/test_facts.py compares its offers with the
truth.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands.support import ALPHA_USD, EMISSION, Target, chain_flag, run
from tests.recorded import EXPECTED, META, answers, rows, stream
from tests.support import replay, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SEED = META["invented_seeds"][META["test_miner"]]
MINE = {"MINER_SEED": SEED, "MINER_SS58": META["test_miner"]}


@pytest.fixture
def api() -> dict[str, bytes]:
    """The recorded answers. What a test changes counts from the next request on."""
    return answers(now=time.time())


@pytest.fixture
async def target(api: dict[str, bytes]) -> AsyncIterator[Target]:
    async with served(replay(api)) as url:
        yield Target(url)


async def advise(target: Target, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run the command; returns its exit status and what it wrote."""
    return await run(target, "advise", *arguments, variables=variables or MINE)


async def report(target: Target, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run the command with ``--json``; returns its exit status and the JSON."""
    code, output, _ = await advise(target, "--json", *arguments)
    return code, json.loads(output)


async def test_an_offer_has_what_the_answers_say_about_its_chute(
    target: Target, api: dict[str, bytes]
) -> None:
    code, found = await report(target)
    # Idle GPUs need action.
    assert code == 1
    assert found["all_known"] is True
    assert found["not_known"] == []
    (miner,) = found["miners"]
    assert miner["hotkey"] == META["test_miner"]
    chutes = {row["chute_id"]: row for row in rows(api["chutes"])}
    offers = offers_of(miner)
    for offer in offers:
        chute, launch = chutes[offer["chute_id"]], EXPECTED["launch"][offer["chute_id"]]
        assert offer["public"] == chute["public"]
        assert offer["tee"] == chute["tee"]
        assert offer["name"] == chute["name"]
        assert offer["gpus"] == chute["node_selector"]["gpu_count"]
        assert 0 <= offer["room_left"] <= offer["room"]
        assert offer["starting_instances"] == launch["starting"]
        assert_is_paid_as(chute, offer)
    # The pay of a chute with a bounty was among those that were compared.
    assert any(offer["bounty_boost"] for offer in offers)


def offers_of(miner: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the offers for all idle models."""
    return [offer for model in miner["idle"] for offer in model["runnable"]]


def assert_is_paid_as(chute: dict[str, Any], offer: dict[str, Any]) -> None:
    """Assert that an offer pays what its chute pays, on a GPU that may not be the cheapest."""
    cheapest = chute["effective_compute_multiplier"] / offer["gpus"]
    now, later = offer["units_per_gpu_second"], offer["later_units_per_gpu_second"]
    assert now >= cheapest * 0.999
    factors = chute["compute_multiplier_factors"]
    bounty, urgency = factors.get("bounty_boost", 1), factors.get("urgency_boost", 1)
    assert offer["urgency_boost"] == urgency
    # Later, a public instance is paid without the bounty and the urgency, and as on the cheapest
    # GPU. A private one keeps the pay of its own GPU.
    if offer["public"]:
        assert later == pytest.approx(cheapest / bounty / urgency)
    # The first pay falls to the later one within 8 hours, as if it was paid for 4.6 of 24 hours.
    first_day = (4.6 * now + 19.4 * later) / 24
    assert offer["first_day_units_per_gpu_second"] == pytest.approx(first_day)


async def test_an_offer_has_the_room_and_the_bounty_of_its_chute(
    target: Target, api: dict[str, bytes]
) -> None:
    _, found = await report(target)
    (miner,) = found["miners"]
    allowances = {row["chute_id"]: row["scale_allowance"] for row in json.loads(api["utilization"])}
    bounties = {row["chute_id"]: row for row in json.loads(api["bounties"])}
    without_instance = []
    for offer in offers_of(miner):
        chute_id = offer["chute_id"]
        if offer["public"] and chute_id in allowances:
            assert 1 <= offer["room"] <= allowances[chute_id]
        launch = EXPECTED["launch"][chute_id]
        if launch["rules"] == "private" and not launch["active"]:
            # A private chute with a bounty and without an instance has room for one, whatever its
            # target is.
            assert offer["room"] == 1
            without_instance.append(chute_id)
        bounty = bounties.get(chute_id)
        if bounty is None:
            assert offer["bounty_boost"] is None
        else:
            assert offer["bounty_boost"] is not None
            assert offer["bounty_seconds_left"] == pytest.approx(bounty["time_remaining"], abs=600)
    assert without_instance
    # By its target, one of these chutes would have no room.
    assert any(allowances.get(chute_id, 0) == 0 for chute_id in without_instance)


def cells(output: str, gpu: str) -> list[dict[str, str]]:
    """Return the rows of a model's table: their texts by the head of the column."""
    _, _, after = output.partition(f"\n{gpu}: ")
    _, heads, *lines = after.splitlines()
    # Columns are separated by two blanks or more.
    columns = re.split(r"  +", heads)
    rows_of_table: list[dict[str, str]] = []
    for line in lines:
        # These lines follow the table.
        if line.startswith(("Not shown", "Left out")):
            return rows_of_table
        texts = re.split(r"  +", line)
        rows_of_table.append(dict(zip(columns, texts, strict=True)))
    raise AssertionError(f"the table of {gpu} does not end")


async def test_the_screen_ranks_the_chutes_of_each_idle_model(target: Target) -> None:
    code, output, errors = await advise(target)
    assert (code, errors) == (1, "")
    # After the hotkey comes a date. The numbers of GPUs and chutes are those of the recorded world.
    assert output.startswith(f"{META['test_miner']}  20")
    assert "\npro_6000: 13 idle GPUs, 8 in maintenance, at most 3 on one server\n" in output
    assert "\nh200: 11 idle GPUs, at most 8 on one server\n" in output
    table = cells(output, "pro_6000")
    pays = [row["day 1"] for row in table]
    assert pays == sorted(pays, key=float, reverse=True)
    # Each pay has two decimals, and only the ten best chutes are shown.
    assert {len(pay.partition(".")[2]) for pay in pays} == {2}
    assert len(table) == 10
    assert all(len(row["chute id"]) == 36 for row in table)
    # Private chutes have names, too.
    assert all(re.search(r"\w( \(private\))?$", row["name"]) for row in table)
    assert "\nNot shown: 12 more chutes. --json has everything.\n" in output
    text = " ".join(output.split())
    assert "need more idle GPUs than one server has" in text
    assert "private, without an active instance and without a bounty" in text
    assert output.count("\nFor earnings in US dollars, add --chain.url URL.\n") == 1
    assert "USD" not in " ".join(table[0])
    assert "Day 1, later: compute units a second of one GPU" in output


async def test_the_screen_shows_the_load_of_a_chute_in_percent(
    target: Target, api: dict[str, bytes]
) -> None:
    _, output, _ = await advise(target)
    loads = {row["chute_id"]: row["utilization_15m"] for row in json.loads(api["utilization"])}
    with_load = [row for row in cells(output, "pro_6000") if loads.get(row["chute id"])]
    assert with_load
    for row in with_load:
        assert row["use %"] == f"{round(100 * loads[row['chute id']])}"


def usd_of_a_unit(api: dict[str, bytes]) -> float:
    """Return what all miners receive for a compute unit of the past day."""
    day = json.loads(api["stats"])["past_day"]["instance_stats"]
    usd: float = EMISSION * ALPHA_USD / sum(row["compute_units"] for row in day)
    return usd


async def test_with_prices_each_chute_has_its_pay_in_dollars_and_a_missing_cost_is_named(
    target: Target, api: dict[str, bytes]
) -> None:
    async with chain_flag() as chain:
        _, output, _ = await advise(target, "--gpu.cost=h200=2", chain)
    (best, *_) = cells(output, "h200")
    usd = usd_of_a_unit(api) * 86400
    assert float(best["USD day 1"]) == pytest.approx(usd * float(best["day 1"]), rel=0.01)
    assert float(best["USD later"]) == pytest.approx(usd * float(best["later"]), rel=0.01)
    assert "\nh200: 11 idle GPUs for 22.00 USD per hour, at most" in output
    unknown = "pro_6000: 13 idle GPUs at an unknown cost (add --gpu.cost pro_6000=USD_PER_HOUR)"
    assert unknown in " ".join(output.split())
    assert "--chain.url" not in output


async def test_without_the_sum_over_all_miners_the_pay_has_no_price(
    target: Target, api: dict[str, bytes]
) -> None:
    stats = json.loads(api["stats"])
    stats["past_day"]["instance_stats"][0]["compute_units"] = None
    api["stats"] = json.dumps(stats).encode()
    async with chain_flag() as chain:
        _, found = await report(target, chain)
    offers = offers_of(found["miners"][0])
    assert {offer["estimated_usd_per_gpu_first_day"] for offer in offers} == {None}
    assert {offer["estimated_usd_per_gpu_day_later"] for offer in offers} == {None}


async def test_an_unknown_value_of_an_offer_is_a_dash(
    target: Target, api: dict[str, bytes]
) -> None:
    bounties = json.loads(api["bounties"])
    for bounty in bounties:
        del bounty["time_remaining"]
    api["bounties"] = json.dumps(bounties).encode()
    _, output, _ = await advise(target)
    shown = cells_of_all_models(output)
    # The boost of a bounty is between 1.1 and 1.5.
    with_bounty = [row for row in shown if row["bounty"].startswith("1.")]
    assert any(row["left"] == "-" for row in with_bounty)
    # A chute that the autoscaler has not logged has no load.
    without_load = [row for row in shown if row["use %"] == row["refused %"] == "-"]
    assert any(row["bounty"] == row["left"] == "-" for row in without_load)


def cells_of_all_models(output: str) -> list[dict[str, str]]:
    """Return the rows of the tables of all idle models."""
    found = []
    for gpu in EXPECTED["launch_models"]:
        found += cells(output, gpu)
    return found


async def test_a_load_that_is_too_large_for_percent_is_a_dash(
    target: Target, api: dict[str, bytes]
) -> None:
    utilization = json.loads(api["utilization"])
    for row in utilization:
        row |= {"utilization_15m": 1e307, "rate_limit_ratio_15m": 1e307}
    api["utilization"] = json.dumps(utilization).encode()
    code, output, errors = await advise(target)
    assert (code, errors) == (1, "")
    shown = cells_of_all_models(output)
    assert {row["use %"] for row in shown} == {"-"}
    assert {row["refused %"] for row in shown} == {"-"}


async def test_the_plan_says_what_to_launch_on_which_server_and_what_stays_idle(
    target: Target, api: dict[str, bytes]
) -> None:
    code, output, errors = await advise(target, "--plan")
    assert code == 1
    assert errors == ""
    _, found = await report(target)
    (miner,) = found["miners"]
    names = {one["server_id"]: one["name"] for one in json.loads(api["servers"])["servers"]}
    chutes = {row["chute_id"]: row for row in rows(api["chutes"])}
    for use in miner["plan"]:
        launches = use["launches"]
        assert use["server_name"] == names[use["server_id"]]
        used = sum(launch["gpus"] for launch in launches)
        assert use["idle_gpus"] - used == use["stay_idle"] >= 0
        assert use["first_day_units"] == sum(launch["first_day_units"] for launch in launches)
        for launch in launches:
            chute = chutes[launch["chute_id"]]
            assert (launch["name"], launch["public"]) == (chute["name"], chute["public"])
            size = chute["node_selector"]["gpu_count"]
            assert launch["gpus"] == launch["instances"] * size
            assert re.search(line_of_plan(use, launch), output, re.MULTILINE)
    assert_each_room_is_given_once(miner)
    text = " ".join(output.split())
    total = sum(use["first_day_units"] for use in miner["plan"])
    assert f"Together {total:,.0f} compute units in the first day." in text
    assert "2 h200 on tee-h200-1 stay idle: no chute that can be launched now has room" in text
    assert "8 pro_6000 on tee-pro-2 stay idle: the server holds an upgrade slot." in text
    # The line below each table of offers, which the plan replaces.
    assert "Left out" not in text


def assert_each_room_is_given_once(miner: dict[str, Any]) -> None:
    """Assert that the plan launches offered chutes only, and not more than they have room for."""
    launched: Counter[tuple[str, str]] = Counter()
    for use in miner["plan"]:
        for launch in use["launches"]:
            launched[use["gpu"], launch["chute_id"]] += launch["instances"]
    rooms = {}
    for model in miner["idle"]:
        for offer in model["runnable"]:
            rooms[model["gpu"], offer["chute_id"]] = offer["room_left"]
    for model_and_chute, instances in launched.items():
        assert instances <= rooms[model_and_chute]


def line_of_plan(use: dict[str, Any], launch: dict[str, Any]) -> str:
    """Return a pattern for the line of a launch on the screen."""
    privacy = "" if launch["public"] else r" \(private\)"
    boost = f"{launch['urgency_boost']:.2g}"
    columns = (
        use["server_name"],
        launch["name"] + privacy,
        launch["chute_id"],
        launch["instances"],
        f"{launch['gpus']} {use['gpu']}",
        f"{launch['first_day_units']:.0f}",
        # The units of a later day.
        "[0-9]+",
        "-" if boost == "1" else f"x {boost}",
    )
    return "^" + " +".join(map(str, columns))


async def test_the_plan_has_dollars_where_there_are_prices(
    target: Target, api: dict[str, bytes]
) -> None:
    async with chain_flag() as chain:
        _, output, _ = await advise(target, "--plan", chain)
        _, found = await report(target, chain)
    usd = usd_of_a_unit(api) * 86400
    (miner,) = found["miners"]
    for use in miner["plan"]:
        for launch in use["launches"]:
            dollars = usd * launch["first_day_units"] / 86400
            assert launch["estimated_usd_first_day"] == pytest.approx(dollars, rel=1e-6)
        later = sum(launch["estimated_usd_per_day_later"] for launch in use["launches"])
        assert later == pytest.approx(usd * use["later_units_per_second"], rel=1e-6)
    total = sum(use["first_day_units"] for use in miner["plan"])
    assert f"in the first day, about {total * usd / 86400:,.0f} USD." in output


async def test_the_plan_says_where_more_may_be_possible(
    target: Target, api: dict[str, bytes]
) -> None:
    # The service may accept no launch, because the miner may be blacklisted.
    seats = json.loads(api["metagraph"])
    for seat in seats:
        del seat["blacklist_reason"]
    api["metagraph"] = json.dumps(seats).encode()
    code, output, _ = await advise(target, "--plan")
    text = " ".join(output.split())
    assert code == 3
    reason = "of some chutes it is not known whether they can be launched"
    assert f"8 h200 on tee-h200-2 stay idle: {reason}." in text
    assert "Together" not in text


async def test_the_plan_leaves_out_a_server_that_must_be_upgraded_before_a_window_ends(
    target: Target, api: dict[str, bytes]
) -> None:
    policy = json.loads(api["maintenance"])
    end = datetime.fromtimestamp(time.time() + 10 * 3600, UTC)
    policy["active_window"]["upgrade_window_end"] = end.isoformat()
    policy["window_open"] = True
    for server in policy["servers"]:
        server["needs_upgrade"] = server["name"] == "tee-h200-2"
    api["maintenance"] = json.dumps(policy).encode()
    _, output, _ = await advise(target, "--plan")
    reason = f"the server must be upgraded, and the window ends at {end:%Y-%m-%d %H:%M} UTC."
    assert f"8 h200 on tee-h200-2 stay idle: {reason}" in " ".join(output.split())
    _, found = await report(target)
    (miner,) = found["miners"]
    assert "tee-h200-2" not in {use["server_name"] for use in miner["plan"]}
    whys = {one["server_name"]: one["why"] for one in miner["stay_idle"]}
    assert whys["tee-h200-2"] == "upgrade_due"


async def test_a_chute_that_does_not_start_here_is_marked_and_not_launched_again(
    target: Target, api: dict[str, bytes]
) -> None:
    _, found = await report(target)
    # The best chute for the second of the idle models. One of its instances has been starting for
    # over an hour, so it hangs.
    best = found["miners"][0]["idle"][1]["runnable"][0]
    hanging = {
        "instance_id": "hangs",
        "chute_id": best["chute_id"],
        "active": False,
        "verified": False,
        "activated_at": None,
        "billed_to": None,
        "created_at": datetime.fromtimestamp(time.time() - 2 * 3600, UTC).isoformat(),
    }
    api["instances"] += b"data: %b\n\n" % json.dumps(hanging).encode()
    _, output, _ = await advise(target)
    assert re.search(rf"^{best['chute_id']}  .*\(hangs here\)", output, re.MULTILINE)
    _, found = await report(target)
    (miner,) = found["miners"]
    offers = {offer["chute_id"]: offer for offer in miner["idle"][1]["runnable"]}
    assert offers[best["chute_id"]]["hanging_here"] == 1
    assert best["chute_id"] not in str(miner["plan"])


async def test_without_an_answer_that_decides_it_is_not_known_what_idle_gpus_can_run(
    target: Target, api: dict[str, bytes]
) -> None:
    del api["utilization"]
    code, output, _ = await advise(target)
    assert code == 3
    assert "h200: 11 idle GPUs, at most 8 on one server\nWhat they can run is not known." in output
    assert "? chutes for idle GPUs" in output
    assert "Left out" not in output
    _, found = await report(target)
    assert {model["left_out"] for model in found["miners"][0]["idle"]} == {None}
    assert found["miners"][0]["plan"] is None


@pytest.mark.parametrize(
    ("are_all_pending", "words", "models_without_chute"),
    [
        # 8 of the 13 idle GPUs are on a server in maintenance, which is made pending instead.
        (False, "8 with pending maintenance (do not reboot), at most 3", 0),
        (True, "13 with pending maintenance (do not reboot), at most 0", 2),
    ],
)
async def test_idle_gpus_of_a_pending_server_wait_and_it_is_not_to_be_rebooted(
    target: Target,
    api: dict[str, bytes],
    are_all_pending: bool,  # noqa: FBT001 - a parameter
    words: str,
    models_without_chute: int,
) -> None:
    policy = json.loads(api["maintenance"])
    for server in policy["servers"]:
        is_pending = are_all_pending or server["in_maintenance"]
        server["maintenance_status"] = "pending" if is_pending else "none"
    api["maintenance"] = json.dumps(policy).encode()
    _, output, _ = await advise(target)
    assert f"pro_6000: 13 idle GPUs, {words} on one server" in " ".join(output.split())
    assert output.count("No chute can run on them now.") == models_without_chute


async def test_idle_gpus_of_a_server_whose_maintenance_is_not_known_are_only_counted(
    target: Target, api: dict[str, bytes]
) -> None:
    policy = json.loads(api["maintenance"])
    for server in policy["servers"]:
        del server["in_maintenance"]
    api["maintenance"] = json.dumps(policy).encode()
    _, output, _ = await advise(target)
    assert "pro_6000: 13 idle GPUs, of which some may be in maintenance\n" in output


async def test_if_no_gpu_is_idle_the_exit_status_is_0(
    target: Target, api: dict[str, bytes]
) -> None:
    # One active instance holds all GPUs.
    held = [{"gpu_id": row["uuid"], "chute_id": "c", "active": True} for row in rows(api["nodes"])]
    api["inventory"] = json.dumps(held).encode()
    running = {
        "instance_id": "i",
        "chute_id": "c",
        "active": True,
        "activated_at": "2026-05-01",
        "billed_to": None,
    }
    api["instances"] = b"data: %b\n\n" % json.dumps(running).encode()
    code, output, _ = await advise(target)
    assert code == 0
    assert output.endswith(" UTC\nNo GPU is idle.\n\n")


@pytest.mark.parametrize(
    ("reason", "status", "words"),
    [("spoofed GPUs", 0, "the miner is blacklisted"), (None, 3, "? chutes for ")],
)
async def test_if_the_service_may_accept_nothing_the_status_is_that_of_what_is_known(
    target: Target, api: dict[str, bytes], reason: str | None, status: int, words: str
) -> None:
    # A blacklisted miner can certainly launch nothing, so its idle GPUs need no action. If the
    # reason is None, the seat lacks the field, so the miner may be blacklisted or not.
    seats = json.loads(api["metagraph"])
    for seat in seats:
        del seat["blacklist_reason"]
        if reason is not None:
            seat["blacklist_reason"] = reason
    api["metagraph"] = json.dumps(seats).encode()
    code, output, _ = await advise(target)
    assert code == status
    assert "No chute can run on them now.\nLeft out: " in output
    assert words in output


async def test_a_watched_miner_without_a_key_is_not_known(target: Target) -> None:
    other = META["second_miner"]
    code, found = await report(target, "--hotkey", other)
    # The status is 1, because the miner with the key has idle GPUs.
    assert (code, [gap["hotkey"] for gap in found["not_known"]]) == (1, [other])
    assert {miner["hotkey"]: miner["idle"] is None for miner in found["miners"]} == {
        META["test_miner"]: False,
        other: True,
    }
    _, output, _ = await advise(target, "--hotkey", other)
    assert re.search(rf"^{other}  .* UTC\nThe idle GPUs are not known\.\n", output, re.MULTILINE)


async def test_what_there_is_none_of_is_not_mentioned(
    target: Target, api: dict[str, bytes]
) -> None:
    _, found = await report(target)
    offered = {offer["chute_id"] for offer in offers_of(found["miners"][0])}
    _, before, _ = await advise(target)
    # Now the GPUs of the platform are not known, and there are only chutes that can be launched.
    del api["platform_gpus"]
    api["chutes"] = stream([row for row in rows(api["chutes"]) if row["chute_id"] in offered])
    _, output, _ = await advise(target)
    for words in ("The platform has", "Left out: 1 private"):
        assert words in before
        assert words not in output


async def test_the_screen_fits_80_columns_and_cannot_be_steered_by_the_api(
    target: Target, api: dict[str, bytes]
) -> None:
    chutes = rows(api["chutes"])
    for chute in chutes:
        chute["name"] = f"\x1b[2J{'x' * 60}"
    api["chutes"] = stream(chutes)
    _, output, _ = await advise(target, COLUMNS="80", **MINE)
    assert all(len(line) <= 80 and line == line.rstrip() for line in output.splitlines())
    # The name is shortened in the middle, and its control character is gone.
    assert re.search(r"^[\w-]{36}  .*\[2Jx*…x+ ", output, re.MULTILINE)
    assert "left, use %, refused %. --json has everything." in " ".join(output.split())
    assert "\x1b" not in output
