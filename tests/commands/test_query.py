from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.commands.query import _ENDPOINTS
from chutes_exporter.demo.replay import Fault, Replay
from chutes_exporter.duration import HOUR
from tests.commands.support import MINE, Target, hotkey_file, run
from tests.support import HOTKEY, Clock, recorded_day

if TYPE_CHECKING:
    from pathlib import Path

ABOUT_ONE = {"chute", "server_maintenance"}
"""Endpoints that need the id of a chute or a server."""


def at_22(name: str, hotkey: str = HOTKEY) -> Any:
    """Return the JSON of an answer to a miner at 22:00."""
    return recorded_day().answer(name, 22 * HOUR, hotkey)


def servers(hotkey: str = HOTKEY) -> list[dict[str, Any]]:
    """Return the servers of a miner."""
    found: list[dict[str, Any]] = at_22("servers", hotkey)["servers"]
    return found


async def rows_of(
    target: Replay | Target, *arguments: str, **variables: str
) -> list[dict[str, Any]]:
    """Return the rows of an endpoint, as JSON has them."""
    status, text, errors = await run(
        target, "query", *arguments, "--json", variables=MINE | variables
    )
    assert status == 0, errors
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def test_every_endpoint_that_changes_nothing_can_be_queried() -> None:
    assert {*_ENDPOINTS} == {endpoint.name for endpoint in ENDPOINTS} - {
        "release_job",
        "audit_report",
    }


@pytest.mark.parametrize("name", sorted({*_ENDPOINTS} - ABOUT_ONE))
async def test_every_endpoint_prints_a_table_and_json_of_the_same_rows(
    replay: Replay, name: str
) -> None:
    _, table, note = await run(replay, "query", name)
    rows = await rows_of(replay, name)
    if not rows:
        # Without rows, such as of thrash_cooldowns, there is no table.
        assert note.endswith("0 rows\n")
        assert table == ""
        return
    head, *lines = table.splitlines()
    if len(rows) == 1:
        assert note.endswith("1 row\n")
        assert head.split() == ["field", "value"]
        assert [line.split()[0] for line in lines] == [*rows[0]]
        return
    assert note.endswith(f"{len(rows)} rows\n")
    assert len(lines) == len(rows)
    columns: set[str] = set().union(*rows)
    assert {*head.split()} <= columns


async def test_private_data_is_that_of_the_selected_miner(replay: Replay, tmp_path: Path) -> None:
    path = hotkey_file(tmp_path)
    other = recorded_day().miners["healthy"].address

    async def ids(*arguments: str, **variables: str) -> set[str]:
        rows = await rows_of(replay, "servers", *arguments, **variables)
        return {row["server_id"] for row in rows}

    both_keys = ("--hotkey-file", str(path))
    of_first = {server["server_id"] for server in servers()}
    of_second = {server["server_id"] for server in servers(other)}
    assert await ids() == of_first
    assert await ids(*both_keys, "--hotkey", HOTKEY) == of_first
    assert await ids(*both_keys, "--hotkey", other) == of_second
    # Without the flag, the variable adds miners to that of the key.
    variables = {"CHUTES_EXPORTER_HOTKEY": other}
    assert await ids(**variables) == of_first
    seats = await rows_of(replay, "metagraph", **variables)
    assert {row["hotkey"] for row in seats} == {HOTKEY, other}
    status, output, errors = await run(replay, "query", "servers", *both_keys)
    assert (status, output) == (2, "")
    assert "servers is about one miner: choose it with --hotkey, and add its hotkey file" in errors
    _, _, errors = await run(replay, "query", "servers", "--hotkey", other)
    assert f"add its hotkey file with --hotkey-file. There are keys of {HOTKEY}" in errors


async def test_each_tee_server_has_the_window_and_without_any_the_window_stands_alone(
    replay: Replay,
) -> None:
    rows = await rows_of(replay, "maintenance")
    tee = [server["server_id"] for server in servers() if server["is_tee"]]
    assert {row["server_id"] for row in rows} == {*tee}
    for row in rows:
        assert {"target_measurement_version", "upgrade_window_end", "window_open"} <= row.keys()
    replay.faults["maintenance"] = Fault(
        body=b'{"active_window": null, "window_open": false, "current_slots": 0, "servers": []}'
    )
    assert await rows_of(replay, "maintenance") == [{"window_open": False, "current_slots": 0}]


async def test_a_table_fits_the_terminal_with_whole_ids(replay: Replay) -> None:
    rows = await rows_of(replay, "instances")
    _, table, errors = await run(replay, "query", "instances", variables={**MINE, "COLUMNS": "80"})
    lines = table.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[-len(rows) :]] == [row["chute_id"] for row in rows]
    assert "Columns that do not fit: instance_id, created_at, " in errors


async def test_a_narrow_table_shows_whether_an_upgrade_slot_is_free(replay: Replay) -> None:
    (row, *_) = await rows_of(replay, "maintenance")
    _, _, errors = await run(replay, "query", "maintenance", variables={**MINE, "COLUMNS": "80"})
    left_out = re.search("do not fit: (.*?)\\.", errors)
    assert left_out is not None
    slots = {"current_slots", "max_concurrent_per_miner", "window_open", "maintenance_status"}
    assert slots <= row.keys() - {*left_out[1].split(", ")}


async def test_an_instance_has_its_chute_its_server_and_its_age_by_the_clock_of_the_api(
    replay: Replay, clock: Clock
) -> None:
    # The API's clock is 5 minutes ahead of the command's.
    target = Target(replay.url, lambda: clock.now - 300)
    rows, gpus = await rows_of(target, "instances"), await rows_of(target, "miner_gpus")
    chute_names = {chute["chute_id"]: chute["name"] for chute in at_22("chutes")}
    server_names = {server["server_id"]: server["name"] for server in servers()}
    server_of_instance = {gpu["instance_id"]: gpu["server_id"] for gpu in gpus}
    for row in rows:
        assert row["chute_name"] == chute_names[row["chute_id"]]
        assert row["server_id"] == server_of_instance[row["instance_id"]]
        assert row["server_name"] == server_names[row["server_id"]]
        created = datetime.fromisoformat(row["created_at"]).timestamp()
        assert row["age_minutes"] == pytest.approx((clock.now - created) / 60, abs=1)
        if row["state"] == "active" and row["secured_at"]:
            activated = datetime.fromisoformat(row["activated_at"])
            secured = datetime.fromisoformat(row["secured_at"])
            assert (secured - activated).total_seconds() == 3600
            assert row["purged_at"] is None
    assert any(row["secured_at"] for row in rows)


async def test_a_column_whose_values_cannot_be_requested_is_left_out_with_the_reason(
    replay: Replay,
) -> None:
    names = {server["server_id"]: server["name"] for server in servers()}
    for row in await rows_of(replay, "nodes"):
        assert row["server_name"] == names[row["server_id"]]
    replay.faults["servers"] = Fault(status=503)
    status, text, errors = await run(replay, "query", "nodes", "--json")
    assert (status, "server_name" in json.loads(text)[0]) == (0, False)
    assert "server_name is unknown: servers: 503" in errors


async def test_a_seat_has_its_share_of_the_incentive(replay: Replay) -> None:
    everybody = [f"--hotkey={seat['hotkey']}" for seat in at_22("metagraph")]
    rows = await rows_of(replay, "metagraph", *everybody)
    assert sum(row["incentive_ratio"] for row in rows) == pytest.approx(1)
    assert not any("incentive" in row for row in rows)


async def test_columns_can_be_chosen(replay: Replay) -> None:
    rows = await rows_of(replay, "utilization", "--columns", "name, scale_allowance")
    assert [*rows[0]] == ["name", "scale_allowance"]
    # A list is only counted.
    _, table, _ = await run(replay, "query", "servers", "--columns", "gpus")
    counts = [str(len(server["gpus"])) for server in servers()]
    assert table.split() == ["gpus", *counts]
    # Chosen columns are all shown, even if the table is wider than the terminal.
    _, table, _ = await run(
        replay, "query", "nodes", "--columns", "uuid,server_id,gpu_identifier,name,verified_at"
    )
    assert max(map(len, table.splitlines())) > 80
    status, output, errors = await run(replay, "query", "scores", "--columns", "hotkey,x")
    assert (status, output) == (2, "")
    assert "there is no column 'x': the columns are hotkey, share" in errors


async def test_one_chute_or_server_can_be_asked_for(replay: Replay) -> None:
    (chute, *_) = at_22("chutes")
    # Only a server that was pending has an answer.
    (server,) = (server for server in servers() if server["name"] == "hugin")
    (row,) = await rows_of(replay, "chute", chute["chute_id"], chute["version"])
    assert row["name"] == chute["name"]
    assert len(await rows_of(replay, "server_maintenance", server["server_id"])) == 1
    status, _, errors = await run(replay, "query", "chute", chute["chute_id"], "x")
    assert status == 1
    assert "404 Not Found" in errors
    # Advice follows an arrow.
    assert "→" in errors


@pytest.mark.parametrize("name", ["stats", "scores", "metagraph", "active_instances", "held_gpus"])
async def test_hotkeys_or_a_key_select_the_rows_and_one_without_a_row_is_named(
    replay: Replay, name: str
) -> None:
    column = "miner_hotkey" if name in ("stats", "active_instances") else "hotkey"
    # The miner of the key is the first one, so these are two others.
    first, second = [one for one in at_22("held_gpus") if one != HOTKEY][:2]
    unknown = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
    flags = [f"--hotkey={hotkey}" for hotkey in (first, second, unknown)]

    async def hotkeys(*arguments: str) -> set[str]:
        return {row[column] for row in await rows_of(replay, name, *arguments)}

    assert await hotkeys() == {HOTKEY}
    assert await hotkeys(flags[0]) == {first}
    assert await hotkeys(*flags) == {first, second}
    _, _, errors = await run(replay, "query", name, *flags)
    assert f"{unknown} has no row." in errors
    assert errors.count("has no row.") == 1


def asked(replay: Replay, endpoint: str) -> list[dict[str, str]]:
    """Return the query parameters of the requests to an endpoint, and forget all requests."""
    queries = [request.query for request in replay.requests if request.endpoint == endpoint]
    replay.requests.clear()
    return queries


@pytest.mark.parametrize(("name", "parameter"), [("scores", "hotkey"), ("stats", "miner_hotkey")])
async def test_the_scores_and_stats_of_one_miner_are_asked_of_the_api_alone(
    replay: Replay, name: str, parameter: str
) -> None:
    other = recorded_day().miners["healthy"].address
    whole = await rows_of(replay, name, f"--hotkey={HOTKEY}", f"--hotkey={other}")
    assert asked(replay, name) == [{}]
    for hotkey, arguments in (
        (HOTKEY, ()),
        (other, (f"--hotkey={other}",)),
        (other, (f"--param={parameter}={other}",)),
    ):
        rows = await rows_of(replay, name, *arguments)
        assert asked(replay, name) == [{parameter: hotkey}]
        assert rows == [row for row in whole if hotkey in row.values()] != []


async def test_a_parameter_of_the_reference_is_sent(replay: Replay) -> None:
    rows = await rows_of(replay, "stats", "--param", "per_chute=true")
    assert asked(replay, "stats") == [{"miner_hotkey": HOTKEY, "per_chute": "true"}]
    chutes = {chute["chute_id"] for chute in at_22("chutes")}
    assert {row["chute_id"] for row in rows} <= chutes
    assert rows
    await rows_of(replay, "instances")
    assert asked(replay, "instances") == [{"explicit_null": "true"}]
    await rows_of(replay, "instances", "--param", "explicit_null=false")
    assert asked(replay, "instances") == [{"explicit_null": "false"}]


async def test_without_explicit_null_no_instances_and_a_failure_look_the_same(
    replay: Replay, tmp_path: Path
) -> None:
    replay.edits["instances"] = lambda _: []
    arguments = ("query", "instances", f"--hotkey-file={hotkey_file(tmp_path)}", "--json")
    assert (await run(replay, *arguments, variables={}))[:2] == (0, "[]\n")
    status, output, errors = await run(
        replay, *arguments, "--param=explicit_null=false", variables={}
    )
    assert (status, output) == (1, "")
    assert "instances: the answer is empty" in errors


async def test_a_miner_without_a_score_has_no_row(replay: Replay) -> None:
    unscored = next(
        seat["hotkey"]
        for seat in at_22("metagraph")
        if seat["hotkey"] not in at_22("scores")["final_scores"]
    )
    for name in ("scores", "stats"):
        status, output, errors = await run(replay, "query", name, "--json", f"--hotkey={unscored}")
        assert (status, json.loads(output)) == (0, [])
        assert f"{unscored} has no row." in errors


async def test_unreadable_records_are_reported_and_what_was_not_measured_is_unknown(
    replay: Replay,
) -> None:
    # The first id is no text. The service sends a utilization of 0 where it has not measured any.
    replay.faults["metrics"] = Fault(
        body=b'data: {"chute_id": 1}\n\ndata: {"chute_id": "a\\u001b", "utilization": 0, '
        b'"per_second_price_usd": 2}\n\n'
    )
    status, table, errors = await run(replay, "query", "metrics")
    assert status == 0
    assert "1 records could not be read and are left out" in errors
    assert "\x1b" not in table
    (row,) = await rows_of(replay, "metrics")
    assert (row["utilization"], row["per_second_price_usd"]) == (None, 2)


@pytest.mark.parametrize("value", ["bar", "true"])
async def test_an_unknown_parameter_is_refused_with_the_ones_that_there_are(value: str) -> None:
    nowhere = Target("http://127.0.0.1:9")
    status, _, errors = await run(nowhere, "query", "stats", "--param", f"foo={value}")
    assert status == 2
    assert "stats has no parameter foo, but miner_hotkey and per_chute" in errors
