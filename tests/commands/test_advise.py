"""The command ``advise``, on a recorded world that is changed. The golden outputs have the screens,
and tests/test_day.py and tests/test_worlds.py compare the offers with the truth.
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands.support import Target, run
from tests.recorded import EXPECTED, META, answers
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
