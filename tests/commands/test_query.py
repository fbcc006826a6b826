from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.commands.query import _ENDPOINTS
from chutes_exporter.simulator import Fault, Simulator, World
from tests.commands.support import MINE, Target, another_key, run, world_of_today
from tests.support import HOTKEY, Clock

if TYPE_CHECKING:
    from pathlib import Path

ABOUT_ONE = {"chute", "server_maintenance"}
"""Endpoints that need the id of a chute or a server."""


@pytest.fixture(scope="module")
def small_world() -> World:
    return world_of_today()


@pytest.fixture
def clock() -> Clock:
    """The time at which the test began: the command's own clock is near, and all commands of a test
    see one world.
    """
    return Clock(time.time())


async def rows_of(simulator: Simulator, *arguments: str, **variables: str) -> list[dict[str, Any]]:
    """Return the rows of an endpoint, as JSON has them."""
    status, text, errors = await run(
        simulator, "query", *arguments, "--json", variables=MINE | variables
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
    simulator: Simulator, name: str
) -> None:
    _, table, note = await run(simulator, "query", name)
    rows = await rows_of(simulator, name)
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


async def test_private_data_is_that_of_the_selected_miner(
    simulator: Simulator, tmp_path: Path
) -> None:
    path = tmp_path / "hotkey"
    other = another_key(path, simulator)
    first, second = simulator.world.miners[:2]

    async def ids(*arguments: str, **variables: str) -> set[str]:
        rows = await rows_of(simulator, "servers", *arguments, **variables)
        return {row["server_id"] for row in rows}

    both_keys = ("--hotkey-file", str(path))
    of_first = {server.server_id for server in first.servers}
    of_second = {server.server_id for server in second.servers}
    assert await ids() == of_first
    assert await ids(*both_keys, "--hotkey", HOTKEY) == of_first
    assert await ids(*both_keys, "--hotkey", other) == of_second
    # Without the flag, the variable adds miners to that of the key.
    variables = {"CHUTES_EXPORTER_HOTKEY": other}
    assert await ids(**variables) == of_first
    seats = await rows_of(simulator, "metagraph", **variables)
    assert {row["hotkey"] for row in seats} == {HOTKEY, other}
    status, output, errors = await run(simulator, "query", "servers", *both_keys)
    assert (status, output) == (2, "")
    assert "servers is about one miner: choose it with --hotkey, and add its hotkey file" in errors
    _, _, errors = await run(simulator, "query", "servers", "--hotkey", other)
    assert f"add its hotkey file with --hotkey-file. There are keys of {HOTKEY}" in errors


async def test_each_tee_server_has_the_window_and_without_any_the_window_stands_alone(
    simulator: Simulator,
) -> None:
    rows = await rows_of(simulator, "maintenance")
    tee = [server.server_id for server in simulator.world.miners[0].servers if server.is_tee]
    assert [row["server_id"] for row in rows] == tee
    for row in rows:
        assert {"target_measurement_version", "upgrade_window_end", "window_open"} <= row.keys()
    simulator.faults["maintenance"] = Fault(
        body=b'{"active_window": null, "window_open": false, "current_slots": 0, "servers": []}'
    )
    assert await rows_of(simulator, "maintenance") == [{"window_open": False, "current_slots": 0}]


async def test_a_table_fits_the_terminal_with_whole_ids(simulator: Simulator) -> None:
    rows = await rows_of(simulator, "instances")
    _, table, errors = await run(
        simulator, "query", "instances", variables={**MINE, "COLUMNS": "80"}
    )
    lines = table.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[-len(rows) :]] == [row["chute_id"] for row in rows]
    assert "Columns that do not fit: state, instance_id, created_at, " in errors


async def test_a_narrow_table_shows_whether_an_upgrade_slot_is_free(simulator: Simulator) -> None:
    (row, *_) = await rows_of(simulator, "maintenance")
    _, _, errors = await run(simulator, "query", "maintenance", variables={**MINE, "COLUMNS": "80"})
    left_out = re.search("do not fit: (.*?)\\.", errors)
    assert left_out is not None
    slots = {"current_slots", "max_concurrent_per_miner", "window_open", "maintenance_status"}
    assert slots <= row.keys() - {*left_out[1].split(", ")}


async def test_an_instance_has_its_chute_its_server_and_its_age_by_the_clock_of_the_api(
    simulator: Simulator, clock: Clock
) -> None:
    # The API's clock is now 5 minutes ahead of the command's.
    clock.now += 300
    rows, gpus = await rows_of(simulator, "instances"), await rows_of(simulator, "miner_gpus")
    chute_names = {chute.chute_id: chute.name for chute in simulator.world.chutes}
    server_names = {server.server_id: server.name for server in simulator.world.miners[0].servers}
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
    simulator: Simulator,
) -> None:
    names = {server.server_id: server.name for server in simulator.world.miners[0].servers}
    for row in await rows_of(simulator, "nodes"):
        assert row["server_name"] == names[row["server_id"]]
    simulator.faults["servers"] = Fault(status=503)
    status, text, errors = await run(simulator, "query", "nodes", "--json")
    assert (status, "server_name" in json.loads(text)[0]) == (0, False)
    assert "server_name is unknown: servers: 503" in errors


async def test_a_seat_has_its_share_of_the_incentive(simulator: Simulator) -> None:
    everybody = [f"--hotkey={miner.hotkey}" for miner in simulator.world.miners]
    rows = await rows_of(simulator, "metagraph", *everybody)
    assert sum(row["incentive_ratio"] for row in rows) == pytest.approx(1)
    assert not any("incentive" in row for row in rows)


async def test_columns_can_be_chosen(simulator: Simulator) -> None:
    rows = await rows_of(simulator, "utilization", "--columns", "name, scale_allowance")
    assert [*rows[0]] == ["name", "scale_allowance"]
    # A list is only counted.
    _, table, _ = await run(simulator, "query", "servers", "--columns", "gpus")
    counts = [str(len(server.gpus)) for server in simulator.world.miners[0].servers]
    assert table.split() == ["gpus", *counts]
    # Chosen columns are all shown, even if the table is wider than the terminal.
    _, table, _ = await run(
        simulator, "query", "nodes", "--columns", "uuid,server_id,gpu_identifier,name,verified_at"
    )
    assert max(map(len, table.splitlines())) > 80
    status, output, errors = await run(simulator, "query", "scores", "--columns", "hotkey,x")
    assert (status, output) == (2, "")
    assert "there is no column 'x': the columns are hotkey, share" in errors


async def test_one_chute_or_server_can_be_asked_for(simulator: Simulator) -> None:
    chute, server = simulator.world.chutes[3], simulator.world.miners[0].servers[0]
    (row,) = await rows_of(simulator, "chute", chute.chute_id, chute.version(simulator.clock()))
    assert row["name"] == chute.name
    assert len(await rows_of(simulator, "server_maintenance", server.server_id)) == 1
    status, _, errors = await run(simulator, "query", "chute", chute.chute_id, "x")
    assert status == 1
    assert f"404 chute_id='{chute.chute_id}' not found" in errors
    # Advice follows an arrow.
    assert "→" in errors


@pytest.mark.parametrize("name", ["stats", "scores", "metagraph", "active_instances", "held_gpus"])
async def test_hotkeys_or_a_key_select_the_rows_and_one_without_a_row_is_named(
    simulator: Simulator, name: str
) -> None:
    column = "miner_hotkey" if name in ("stats", "active_instances") else "hotkey"
    # The miner of the key is the first one, so these are two others.
    first, second = [miner.hotkey for miner in simulator.world.miners if miner.servers][1:3]
    unknown = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
    flags = [f"--hotkey={hotkey}" for hotkey in (first, second, unknown)]

    async def hotkeys(*arguments: str) -> set[str]:
        return {row[column] for row in await rows_of(simulator, name, *arguments)}

    assert await hotkeys() == {HOTKEY}
    assert await hotkeys(flags[0]) == {first}
    assert await hotkeys(*flags) == {first, second}
    _, _, errors = await run(simulator, "query", name, *flags)
    assert f"{unknown} has no row." in errors
    assert errors.count("has no row.") == 1


def asked(simulator: Simulator, endpoint: str) -> list[dict[str, str]]:
    """Return the query parameters of the requests to an endpoint, and forget all requests."""
    queries = [request.query for request in simulator.requests if request.endpoint == endpoint]
    simulator.requests.clear()
    return queries


@pytest.mark.parametrize(("name", "parameter"), [("scores", "hotkey"), ("stats", "miner_hotkey")])
async def test_the_scores_and_stats_of_one_miner_are_asked_of_the_api_alone(
    simulator: Simulator, name: str, parameter: str
) -> None:
    other = simulator.world.miners[1].hotkey
    whole = await rows_of(simulator, name, f"--hotkey={HOTKEY}", f"--hotkey={other}")
    assert asked(simulator, name) == [{}]
    for hotkey, arguments in (
        (HOTKEY, ()),
        (other, (f"--hotkey={other}",)),
        (other, (f"--param={parameter}={other}",)),
    ):
        rows = await rows_of(simulator, name, *arguments)
        assert asked(simulator, name) == [{parameter: hotkey}]
        assert rows == [row for row in whole if hotkey in row.values()] != []


async def test_a_parameter_of_the_reference_is_sent(simulator: Simulator) -> None:
    rows = await rows_of(simulator, "stats", "--param", "per_chute=true")
    assert asked(simulator, "stats") == [{"miner_hotkey": HOTKEY, "per_chute": "true"}]
    chutes = {chute.chute_id for chute in simulator.world.chutes}
    assert {row["chute_id"] for row in rows} <= chutes
    assert rows
    await rows_of(simulator, "instances")
    assert asked(simulator, "instances") == [{"explicit_null": "true"}]
    await rows_of(simulator, "instances", "--param", "explicit_null=false")
    assert asked(simulator, "instances") == [{"explicit_null": "false"}]


async def test_without_explicit_null_no_instances_and_a_failure_look_the_same(
    simulator: Simulator, tmp_path: Path
) -> None:
    idle = next(miner for miner in simulator.world.miners if not miner.servers)
    path = tmp_path / "hotkey"
    another_key(path, simulator, idle.uid)
    arguments = ("query", "instances", "--hotkey-file", str(path), "--json")
    assert (await run(simulator, *arguments, variables={}))[:2] == (0, "[]\n")
    status, output, errors = await run(
        simulator, *arguments, "--param=explicit_null=false", variables={}
    )
    assert (status, output) == (1, "")
    assert "instances: the answer is empty" in errors


async def test_a_miner_without_a_score_has_no_row(simulator: Simulator) -> None:
    unscored = simulator.world.miners[-1].hotkey
    for name in ("scores", "stats"):
        status, output, errors = await run(
            simulator, "query", name, "--json", f"--hotkey={unscored}"
        )
        assert (status, json.loads(output)) == (0, [])
        assert f"{unscored} has no row." in errors


async def test_unreadable_records_are_reported_and_what_was_not_measured_is_unknown(
    simulator: Simulator,
) -> None:
    # The first id is no text. The service sends a utilization of 0 where it has not measured any.
    simulator.faults["metrics"] = Fault(
        body=b'data: {"chute_id": 1}\n\ndata: {"chute_id": "a\\u001b", "utilization": 0, '
        b'"per_second_price_usd": 2}\n\n'
    )
    status, table, errors = await run(simulator, "query", "metrics")
    assert status == 0
    assert "1 records could not be read and are left out" in errors
    assert "\x1b" not in table
    (row,) = await rows_of(simulator, "metrics")
    assert (row["utilization"], row["per_second_price_usd"]) == (None, 2)


@pytest.mark.parametrize("value", ["bar", "true"])
async def test_an_unknown_parameter_is_refused_with_the_ones_that_there_are(value: str) -> None:
    nowhere = Target("http://127.0.0.1:9")
    status, _, errors = await run(nowhere, "query", "stats", "--param", f"foo={value}")
    assert status == 2
    assert "stats has no parameter foo, but miner_hotkey and per_chute" in errors
