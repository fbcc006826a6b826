from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.commands.query import _ENDPOINTS
from chutes_exporter.simulator import Fault, Simulator, World
from tests.commands.support import MINE, another_key, run, world_of_today
from tests.support import HOTKEY, Clock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def small_world() -> World:
    return world_of_today()


@pytest.fixture
def clock() -> Clock:
    """The time at which the test began: the command's own clock is near, and all commands of a test see one world."""
    return Clock(time.time())


def test_every_endpoint_that_changes_nothing_can_be_queried() -> None:
    assert set(_ENDPOINTS) == {endpoint.name for endpoint in ENDPOINTS} - {
        *("release_job", "audit_report", "server_maintenance", "server_slot")
    }


@pytest.mark.parametrize("name", sorted(set(_ENDPOINTS) - {"chute"}))
async def test_every_endpoint_prints_a_table_and_json_of_the_same_rows(simulator: Simulator, name: str) -> None:
    _, table, note = await run(simulator, "query", name)
    _, text, _ = await run(simulator, "query", name, "--json")
    rows = json.loads(text)
    assert note.endswith(f"{len(rows)} {'row' if len(rows) == 1 else 'rows'}\n")
    assert all(line == line.rstrip() for line in table.splitlines())
    assert len(table.splitlines()) == len(rows) + bool(rows)
    if rows:
        assert set(table.splitlines()[0].split()) <= rows[0].keys()
    else:
        assert table == ""


async def test_private_data_is_that_of_the_selected_miner(simulator: Simulator, tmp_path: Path) -> None:
    path = tmp_path / "hotkey"
    other = another_key(path, simulator)
    servers = [{server.server_id for server in miner.servers} for miner in simulator.world.miners[:2]]

    async def ids(*arguments: str) -> set[str]:
        status, text, errors = await run(simulator, "query", "servers", "--json", *arguments)
        assert status == 0, errors
        return {row["server_id"] for row in json.loads(text)}

    assert await ids() == servers[0]
    both = ("--hotkey-file", str(path))
    assert await ids(*both, "--hotkey", other) == servers[1]
    assert await ids(*both, "--hotkey", HOTKEY) == servers[0]
    status, output, errors = await run(simulator, "query", "servers", *both)
    assert (status, output) == (2, "")
    assert "servers is about one miner: choose it with --hotkey, and add its hotkey file" in errors
    status, output, errors = await run(simulator, "query", "servers", "--hotkey", other)
    assert (status, output) == (2, "")
    assert f"add its hotkey file with --hotkey-file. There are keys of {HOTKEY}" in errors


async def test_an_empty_list_prints_no_table(simulator: Simulator) -> None:
    simulator.faults["jobs"] = Fault(body=b"")
    assert await run(simulator, "query", "jobs") == (0, "", "0 rows\n")
    assert await run(simulator, "query", "jobs", "--json") == (0, "[]\n", "")


async def test_characters_that_end_a_line_elsewhere_do_not_break_json(simulator: Simulator) -> None:
    name = "a\u2028b\u2029c\x85d\x0be\x1cf"
    simulator.faults["scores"] = Fault(body=json.dumps({"raw_values": {}, "final_scores": {name: 1.0}}).encode())
    _, text, _ = await run(simulator, "query", "scores", "--json", variables={})
    assert [row["hotkey"] for row in json.loads(text)] == [name]


async def test_codes_and_constants_become_plain_values(simulator: Simulator) -> None:
    _, text, _ = await run(simulator, "query", "utilization", "--json", variables={})
    for row in json.loads(text):
        if row["scale_allowance"]:
            assert row["target_instances"] == row["active_instance_count"] + row["scale_allowance"]
        assert "target_count" not in row
    _, text, _ = await run(simulator, "query", "stats", "--per-chute", "--json", "--hotkey", HOTKEY)
    assert {row["window"] for row in json.loads(text)} == {"1h", "1d", "7d"}
    assert all(row["chute_id"] for row in json.loads(text))
    _, text, _ = await run(simulator, "query", "maintenance", "--json")
    tee = [server for server in simulator.world.miners[0].servers if server.is_tee]
    assert [row["server_id"] for row in json.loads(text)] == [server.server_id for server in tee]
    simulator.faults["maintenance"] = Fault(
        body=b'{"active_window": null, "window_open": false, "current_slots": 0, "servers": []}'
    )
    _, text, _ = await run(simulator, "query", "maintenance", "--json")
    assert json.loads(text) == [{"window_open": False, "current_slots": 0}]


async def test_a_table_fits_the_terminal_with_whole_ids(simulator: Simulator) -> None:
    _, text, _ = await run(simulator, "query", "instances", "--json")
    _, table, errors = await run(simulator, "query", "instances", variables={**MINE, "COLUMNS": "80"})
    rows, lines = json.loads(text), table.splitlines()
    assert max(map(len, lines)) <= 80
    for row, line in zip(rows, lines[-len(rows) :], strict=True):
        assert line.split()[0] == row["chute_id"]
    assert (
        "Columns that do not fit: state, instance_id, created_at, activated_at, secured_at, purged_at, serv" in errors
    )


async def test_an_instance_has_its_chute_its_server_and_its_age(simulator: Simulator) -> None:
    before = time.time()
    _, text, _ = await run(simulator, "query", "instances", "--json")
    names = {chute.chute_id: chute.name for chute in simulator.world.chutes}
    miner = simulator.world.miners[0]
    servers = {server.server_id: server.name for server in miner.servers}
    _, gpus, _ = await run(simulator, "query", "miner_gpus", "--json")
    places = {gpu["instance_id"]: gpu["server_id"] for gpu in json.loads(gpus)}
    for row in json.loads(text):
        assert row["chute_name"] == names[row["chute_id"]]
        assert row["server_id"] == places[row["instance_id"]]
        assert row["server_name"] == servers[row["server_id"]]
        created = datetime.fromisoformat(row["created_at"]).timestamp()
        assert round((before - created) / 60) <= row["age_minutes"] <= round((time.time() - created) / 60)


async def test_a_column_from_another_endpoint_is_left_out_if_that_fails(simulator: Simulator) -> None:
    _, text, _ = await run(simulator, "query", "nodes", "--json")
    servers = {server.server_id: server.name for server in simulator.world.miners[0].servers}
    assert all(row["server_name"] == servers[row["server_id"]] for row in json.loads(text))
    # No row has a chute.
    _, text, _ = await run(simulator, "query", "stats", "--json")
    assert "chute_name" not in json.loads(text)[0]
    simulator.faults["servers"] = Fault(status=503)
    status, text, errors = await run(simulator, "query", "nodes", "--json")
    assert (status, "server_name" in json.loads(text)[0]) == (0, False)
    assert "server_name is unknown: servers: 503" in errors


async def test_columns_can_be_chosen(simulator: Simulator) -> None:
    _, text, _ = await run(simulator, "query", "utilization", "--columns", "name, scale_allowance", "--json")
    assert [*json.loads(text)[0]] == ["name", "scale_allowance"]
    _, table, _ = await run(simulator, "query", "nodes", "--columns", "uuid,server_id,gpu_identifier,name,verified_at")
    assert max(map(len, table.splitlines())) > 80
    status, output, errors = await run(simulator, "query", "scores", "--columns", "hotkey,x")
    assert (status, output) == (2, "")
    assert "there is no column 'x': the columns are rank, hotkey, share" in errors


async def test_one_chute_can_be_asked_for(simulator: Simulator) -> None:
    chute = simulator.world.chutes[3]
    ask = ("query", "chute", "--json", "--chute-id", chute.chute_id)
    status, text, _ = await run(simulator, *ask, "--chute-version", chute.version(simulator.clock()))
    assert (status, json.loads(text)[0]["name"]) == (0, chute.name)
    status, table, _ = await run(simulator, *ask[:2], *ask[3:], "--chute-version", chute.version(simulator.clock()))
    assert (status, '"gpu_count"' in table) == (0, True)
    status, _, errors = await run(simulator, *ask, "--chute-version", "x")
    assert status == 1
    assert f"404 chute_id='{chute.chute_id}' not found" in errors
    assert "→" in errors


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("metagraph", "has no seat on the subnet"),
        ("active_instances", "has no active instance"),
        ("stats", "has no stats: it is not registered, or its instances"),
        ("scores", "has no score: it is not registered, or no instance of the past day counts."),
    ],
)
async def test_a_miner_that_a_list_does_not_have_gets_an_explanation(
    simulator: Simulator, name: str, words: str
) -> None:
    unknown = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
    status, text, errors = await run(simulator, "query", name, "--json", "--hotkey", HOTKEY, "--hotkey", unknown)
    assert status == 0
    assert HOTKEY in text
    assert unknown not in text
    assert f"{unknown} {words}" in errors
    assert HOTKEY not in errors


@pytest.mark.parametrize("name", ["stats", "scores", "metagraph", "active_instances"])
async def test_a_key_or_hotkeys_select_their_miners(simulator: Simulator, name: str) -> None:
    column = "miner_hotkey" if name in ("stats", "active_instances") else "hotkey"
    others = [miner.hotkey for miner in simulator.world.miners if miner.servers][1:3]
    for arguments, expected in (
        ((), {HOTKEY}),
        (("--hotkey", others[0]), {others[0]}),
        (("--hotkey", others[0], "--hotkey", others[1]), set(others)),
    ):
        _, text, _ = await run(simulator, "query", name, "--json", *arguments)
        assert {row[column] for row in json.loads(text)} == expected


async def test_the_variable_adds_miners_to_that_of_the_key(simulator: Simulator) -> None:
    other = simulator.world.miners[1].hotkey
    variables = MINE | {"CHUTES_EXPORTER_HOTKEY": other}
    _, text, _ = await run(simulator, "query", "metagraph", "--json", variables=variables)
    assert {row["hotkey"] for row in json.loads(text)} == {HOTKEY, other}
    status, text, errors = await run(simulator, "query", "servers", "--json", variables=variables)
    assert status == 0, errors
    mine = {server.server_id for server in simulator.world.miners[0].servers}
    assert {row["server_id"] for row in json.loads(text)} == mine


async def test_scores_have_the_rank_among_all_miners(simulator: Simulator) -> None:
    _, text, _ = await run(simulator, "query", "scores", "--json", variables={})
    shares = {row["hotkey"]: row["share"] for row in json.loads(text)}
    assert all(row["rank"] == 1 + sum(share > row["share"] for share in shares.values()) for row in json.loads(text))
    lowest = min(shares, key=lambda hotkey: shares[hotkey])
    _, table, _ = await run(simulator, "query", "scores", "--hotkey", lowest)
    head, row = table.splitlines()
    assert dict(zip(head.split(), row.split(), strict=True))["rank"] == str(len(shares))


async def test_an_unknown_share_leaves_the_ranks_empty(simulator: Simulator) -> None:
    simulator.faults["scores"] = Fault(
        body=json.dumps({"raw_values": {}, "final_scores": {HOTKEY: 1.0, "x": None}}).encode()
    )
    _, text, _ = await run(simulator, "query", "scores", "--json")
    assert [row["rank"] for row in json.loads(text)] == [None]


async def test_unreadable_records_are_reported(simulator: Simulator) -> None:
    simulator.faults["metrics"] = Fault(
        body=b'data: {"chute_id": 1}\n\ndata: {"chute_id": "a\x1b"}\n\n'.replace(b"\x1b", b"\\u001b")
    )
    status, table, errors = await run(simulator, "query", "metrics")
    assert status == 0
    assert "1 records could not be read and are left out" in errors
    assert "\x1b" not in table
