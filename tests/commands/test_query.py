from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.definitions import ENDPOINTS
from tests.commands.support import MINE, hotkey_file, run
from tests.replay import Fault, Replay
from tests.support import HOTKEY, recorded_day

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support import Clock

HEALTHY = recorded_day().miners["healthy"].address
UNKNOWN = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
SERVERS = {"hugin", "munin", "freya", "idun", "balder", "loki", "tyr", "hel"}


async def rows_of(replay: Replay, *arguments: str, **variables: str) -> list[dict[str, Any]]:
    """Return the rows of an endpoint, as JSON has them."""
    status, text, errors = await run(
        replay, "query", *arguments, "--json", variables=MINE | variables
    )
    assert status == 0, errors
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


ENDPOINTS_OF_ALL = {
    endpoint.name for endpoint in ENDPOINTS if "{" not in endpoint.path and endpoint.method == "GET"
}


# `held_gpus --hotkey` shows what miner_gpus does, and `incidents` the reports.
@pytest.mark.parametrize("name", sorted(ENDPOINTS_OF_ALL - {"miner_gpus", "audit_report"}))
async def test_every_endpoint_prints_a_table_and_json_of_the_same_rows(
    replay: Replay, name: str
) -> None:
    _, table, note = await run(replay, "query", name)
    rows = await rows_of(replay, name)
    # Without rows, such as of thrash_cooldowns, there is no table.
    head, *lines = table.splitlines() or [""]
    assert note.endswith(f"Rows: {len(rows)}\n")
    assert len(lines) == len(rows)
    columns: set[str] = set().union(*rows)
    assert {*head.split()} <= columns


async def test_private_data_is_that_of_the_selected_miner(replay: Replay, tmp_path: Path) -> None:
    async def names(*arguments: str, **variables: str) -> set[str]:
        return {row["name"] for row in await rows_of(replay, "servers", *arguments, **variables)}

    both_keys = ("--hotkey-file", str(hotkey_file(tmp_path)))
    assert await names() == await names(*both_keys, "--hotkey", HOTKEY) == SERVERS
    of_healthy = await names(*both_keys, "--hotkey", HEALTHY)
    assert all(name.startswith("rack") for name in of_healthy)
    # Without the flag, the variable adds miners to that of the key.
    variables = {"CHUTES_EXPORTER_HOTKEY": HEALTHY}
    assert await names(**variables) == SERVERS
    seats = await rows_of(replay, "metagraph", **variables)
    assert {row["hotkey"] for row in seats} == {HOTKEY, HEALTHY}
    status, output, errors = await run(replay, "query", "servers", *both_keys)
    assert (status, output) == (2, "")
    assert "servers is about one miner: choose it with --hotkey, and add its hotkey file" in errors
    _, _, errors = await run(replay, "query", "servers", "--hotkey", HEALTHY)
    assert "add its hotkey file with --hotkey-file" in errors


async def test_one_chute_server_or_history_can_be_asked_for(replay: Replay, clock: Clock) -> None:
    # The maintenance of freya is pending at the end of the day.
    clock.now += 2 * HOUR
    (chute, *_) = replay.day.answer("chutes", replay.moment()) or [{}]
    chute_id = chute["chute_id"]
    (row,) = await rows_of(replay, "chute", chute_id, chute["version"])
    assert row["name"] == chute["name"]
    freya = "eedd9cc9-72e6-4a3b-a398-d033c24a0cc5"
    assert len(await rows_of(replay, "server_maintenance", freya)) == 1
    assert len(await rows_of(replay, "unique_chute_history", HOTKEY)) > 1
    status, _, errors = await run(replay, "query", "chute", chute_id, "x")
    assert status == 1
    assert "404 Not Found" in errors
    # Advice follows an arrow.
    assert "→" in errors


async def test_rows_have_shares_and_are_those_of_the_hotkeys(replay: Replay) -> None:
    seats = replay.day.answer("metagraph", replay.moment()) or ()
    rows = await rows_of(replay, "metagraph", *(f"--hotkey={seat['hotkey']}" for seat in seats))
    assert sum(row["incentive_ratio"] for row in rows) == pytest.approx(1)
    for name in ("stats", "scores", "metagraph", "active_instances", "held_gpus"):
        column = "miner_hotkey" if name in ("stats", "active_instances") else "hotkey"
        for flags in ((), (f"--hotkey={HEALTHY}", f"--hotkey={UNKNOWN}")):
            rows = await rows_of(replay, name, *flags)
            assert {row[column] for row in rows} == {HEALTHY if flags else HOTKEY}


async def test_a_column_that_there_is_not_is_refused_with_those_that_there_are(
    replay: Replay,
) -> None:
    status, table, errors = await run(replay, "query", "servers", "--columns", "name,nonsense")
    assert (status, table) == (2, "")
    assert "there is no column nonsense: the columns are server_id, name, " in errors
    _, table, _ = await run(replay, "query", "servers", "--columns", "version,name")
    assert table.split()[:2] == ["version", "name"]


async def test_unreadable_records_are_reported(replay: Replay) -> None:
    # The first id is no text.
    replay.faults["metrics"] = Fault(
        body=b'data: {"chute_id": 1}\n\ndata: {"chute_id": "a\\u001b", "utilization": 0, '
        b'"per_second_price_usd": 2}\n\n'
    )
    status, table, errors = await run(replay, "query", "metrics")
    assert status == 0
    assert "1 records could not be read and are left out" in errors
    assert "\x1b" not in table
    (row,) = await rows_of(replay, "metrics")
    assert row["per_second_price_usd"] == 2
