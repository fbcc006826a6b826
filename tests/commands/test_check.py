from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.feeds.definitions import FEEDS
from tests.commands.support import MINE, Target, run
from tests.exporters import served
from tests.program import hotkey_file
from tests.recorded import META, answers, recorded_api
from tests.replay import Fault, Replay
from tests.support import AT_22, HOTKEY, TEST_SEED, Clock
from tests.test_credentials import OTHER

if TYPE_CHECKING:
    from pathlib import Path


async def check(target: Replay | Target, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command; returns its exit status and its output, on one line."""
    status, output, _ = await run(target, "check", *arguments, variables=variables)
    return status, " ".join(output.split())


async def check_json(
    target: Replay | Target, *arguments: str, **variables: str
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command with ``--json``; returns its exit status, and each line by its feed."""
    status, output = await check(target, "--json", *arguments, **variables)
    report = json.loads(output)
    return status, {line["subject"]: line for line in report["checks"]}


async def test_the_flags_of_serve_are_taken_and_each_feed_has_its_line(replay: Replay) -> None:
    flags = ("--web.listen-address", ":1", "--no-collector.scores", "--max-series", "5")
    status, lines = await check_json(replay, "--chain.url", replay.chain_url, *flags, **MINE)
    assert status == 0
    assert {feed.name for feed in FEEDS} <= lines.keys()
    assert {line["verdict"] for line in lines.values()} == {"ok"}


async def test_a_node_of_another_chain_is_refused(replay: Replay) -> None:
    replay.faults["chain"] = Fault(body=b'{"result": "0x91b171bb158e2d3848fa23a9f1c25182"}')
    status, lines = await check_json(replay, "--chain.url", replay.chain_url)
    assert (status, lines["chain"]["verdict"]) == (1, "failed")
    assert "its first block is not 0x2f0555cc76fc…" in lines["chain"]["reason"]


@pytest.mark.parametrize(
    ("offset", "status", "words"),
    [(720, 1, "12 minutes behind"), (-60, 0, "1 minute ahead of"), (-20, 0, "")],
)
async def test_a_clock_that_is_off_is_reported_and_fails_from_10_minutes_on(
    replay: Replay, offset: float, status: int, words: str
) -> None:
    # The offset is how many seconds the API's clock is ahead of this machine's. Without words,
    # nothing is reported.
    behind = Target(replay.url, Clock(AT_22 - offset))
    code, lines = await check_json(behind, **MINE)
    assert (code, "clock" in lines) == (status, bool(words))
    assert words in lines.get("clock", {"reason": ""})["reason"]


async def test_a_clock_that_cannot_be_compared_is_not_known() -> None:
    miner = META["test_miner"]
    # These answers do not say the API's time.
    async with served(recorded_api(answers(now=time.time()))) as url:
        variables = {"MINER_SEED": META["invented_seeds"][miner], "MINER_SS58": miner}
        status, lines = await check_json(Target(url), **variables)
    assert (status, lines["clock"]["verdict"]) == (3, "not known")


async def test_a_hotkey_without_a_seat_is_reported_with_advice(replay: Replay) -> None:
    # The stranger is a seed whose hotkey has no seat.
    stranger = "44" * 32
    address = Hotkey.from_seed(stranger).address
    status, lines = await check_json(replay, MINER_SEED=stranger, MINER_SS58=address)
    assert status == 1
    assert lines["registration"]["reason"].endswith(f"{address} has no seat on the subnet.")
    assert (lines["nodes"]["status"], "subnet 64" in lines["nodes"]["advice"]) == (401, True)
    # A miner that the API does not know has no history: that alone is no failure.
    history = lines["unique_chute_history"]
    assert (history["verdict"], history["status"]) == ("ok", 404)
    seats = replay.day.answer("metagraph", replay.moment()) or ()
    coldkey = next(seat["coldkey"] for seat in seats if seat["hotkey"] == HOTKEY)
    _, lines = await check_json(replay, "--hotkey", coldkey)
    assert "It is the cold key of a miner: use the hotkey." in lines["registration"]["reason"]


async def test_what_the_api_changed_is_listed(replay: Replay) -> None:
    body = b'data: {"image_id": "x", "invented": 1}'
    replay.faults["images"] = Fault(body=body)
    status, lines = await check_json(replay, **MINE)
    line = lines["changes of the API"]
    # Nobody knows what depends on a missing field.
    assert (status, line["verdict"]) == (3, "not known")
    assert line["reason"].startswith("images: unknown field invented, missing field ")


async def test_wrong_and_risky_settings_are_reported_and_the_rest_is_checked(
    replay: Replay, tmp_path: Path
) -> None:
    status, lines = await check_json(replay, MINER_SEED=TEST_SEED, MINER_SS58=OTHER)
    assert (status, lines["nodes"]["verdict"], lines["scores"]["verdict"]) == (1, "not known", "ok")
    assert "does not belong" in lines["credentials"]["reason"]
    # A hotkey file that others can read is risky. An empty web configuration is right.
    path = tmp_path / "web.yml"
    path.write_text("")
    flags = ("--hotkey-file", hotkey_file(tmp_path / "hot"), "--web.config.file", str(path))
    status, lines = await check_json(replay, *flags)
    assert (status, "web configuration" in lines) == (0, False)
    assert "chmod 600" in lines["settings"]["reason"]
    path.write_text("nonsense: 1\n")
    status, lines = await check_json(replay, *flags)
    assert (status, "nonsense" in lines["web configuration"]["reason"]) == (1, True)


async def test_an_outage_is_reported_once_for_all_endpoints() -> None:
    nowhere = Target("http://127.0.0.1:9")
    status, screen = await check(nowhere, "--hotkey", HOTKEY, "--chain.url", nowhere.url)
    # The chain has its own address.
    assert (status, screen.count("cannot connect")) == (1, 2)
    assert "report a bug" not in screen
    assert "clock" not in screen


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        # The second record cannot be read, and may be the miner's.
        (Fault(body=json.dumps([{"hotkey": OTHER}, {"hotkey": 5}]).encode()), "not known"),
        # Nothing says whether the miner is blacklisted.
        (Fault(body=json.dumps([{"hotkey": HOTKEY, "node_id": 1}]).encode()), "ok"),
        (Fault(status=503), "failed"),
    ],
)
async def test_an_incomplete_metagraph_does_not_say_whether_the_miner_has_a_seat(
    replay: Replay, fault: Fault, verdict: str
) -> None:
    replay.faults["metagraph"] = fault
    status, lines = await check_json(replay, **MINE)
    assert status == (1 if verdict == "failed" else 3)
    assert lines["metagraph"]["verdict"] == verdict
    # After a failed request, that alone is the line.
    if verdict == "failed":
        assert "registration" not in lines
    else:
        assert lines["registration"]["verdict"] == "not known"
