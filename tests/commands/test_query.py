from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.endpoints import ENDPOINTS
from chutes_exporter.commands.query import _ENDPOINTS
from chutes_exporter.demo.replay import Fault, Replay
from chutes_exporter.duration import HOUR
from tests.commands.support import MINE, Target, hotkey_file, run
from tests.support import AT_22, HOTKEY, Clock, recorded_day

if TYPE_CHECKING:
    from pathlib import Path

HEALTHY = recorded_day().miners["healthy"].address
SERVERS = {"hugin", "munin", "freya", "idun", "balder", "loki", "tyr", "hel"}
ABOUT_ONE = {"chute", "server_maintenance"}
"""Endpoints that need the id of a chute or a server."""


async def rows_of(replay: Replay, *arguments: str, **variables: str) -> list[dict[str, Any]]:
    """Return the rows of an endpoint, as JSON has them."""
    status, text, errors = await run(
        replay, "query", *arguments, "--json", variables=MINE | variables
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
    assert f"add its hotkey file with --hotkey-file. There are keys of {HOTKEY}" in errors


async def test_each_tee_server_has_the_window_and_without_any_the_window_stands_alone(
    replay: Replay,
) -> None:
    rows = await rows_of(replay, "maintenance")
    assert {row["name"] for row in rows} == SERVERS - {"hel"}
    for row in rows:
        assert {"target_measurement_version", "upgrade_window_end", "window_open"} <= row.keys()
    replay.faults["maintenance"] = Fault(
        body=b'{"active_window": null, "window_open": false, "current_slots": 0, "servers": []}'
    )
    assert await rows_of(replay, "maintenance") == [{"window_open": False, "current_slots": 0}]


async def test_an_instance_has_its_chute_its_server_and_its_age_by_the_clock_of_the_api(
    replay: Replay,
) -> None:
    # The API's clock is 5 minutes ahead of the command's.
    status, text, _ = await run(
        Target(replay.url, Clock(AT_22 - 300)), "query", "instances", "--json"
    )
    assert status == 0
    rows = {row["instance_id"]: row for row in json.loads(text)}
    one = rows["db281be4-a8c8-4c9d-8857-f2d3690e7397"]
    assert (one["chute_name"], one["server_name"]) == ("northwind/llama-3.3-70b-sft", "freya")
    for row in rows.values():
        age = (AT_22 - datetime.fromisoformat(row["created_at"]).timestamp()) / 60
        assert row["age_minutes"] == pytest.approx(age, abs=1)
        if row["secured_at"]:
            activated = datetime.fromisoformat(row["activated_at"])
            secured = datetime.fromisoformat(row["secured_at"])
            assert (secured - activated).total_seconds() == 3600
    assert any(row["secured_at"] for row in rows.values())


async def test_a_column_whose_values_cannot_be_requested_is_left_out_with_the_reason(
    replay: Replay,
) -> None:
    assert {row["server_name"] for row in await rows_of(replay, "nodes")} == SERVERS
    replay.faults["servers"] = Fault(status=503)
    status, text, errors = await run(replay, "query", "nodes", "--json")
    assert (status, "server_name" in json.loads(text)[0]) == (0, False)
    assert "server_name is unknown: servers: 503" in errors


async def test_a_seat_has_its_share_of_the_incentive(replay: Replay) -> None:
    seats = replay.day.answer("metagraph", replay.moment()) or ()
    rows = await rows_of(replay, "metagraph", *(f"--hotkey={seat['hotkey']}" for seat in seats))
    assert sum(row["incentive_ratio"] for row in rows) == pytest.approx(1)
    assert not any("incentive" in row for row in rows)


async def test_columns_can_be_chosen(replay: Replay) -> None:
    rows = await rows_of(replay, "utilization", "--columns", "name, scale_allowance")
    assert [*rows[0]] == ["name", "scale_allowance"]
    # A list is only counted.
    _, table, _ = await run(replay, "query", "servers", "--columns", "gpus")
    assert table.split() == ["gpus", *"22244888"]
    status, output, errors = await run(replay, "query", "scores", "--columns", "hotkey,x")
    assert (status, output) == (2, "")
    assert "there is no column 'x': the columns are hotkey, share" in errors


async def test_one_chute_or_server_can_be_asked_for(replay: Replay, clock: Clock) -> None:
    # The maintenance of freya is pending at the end of the day.
    clock.now += 2 * HOUR
    (chute, *_) = replay.day.answer("chutes", replay.moment()) or [{}]
    chute_id = chute["chute_id"]
    (row,) = await rows_of(replay, "chute", chute_id, chute["version"])
    assert row["name"] == chute["name"]
    freya = "eedd9cc9-72e6-4a3b-a398-d033c24a0cc5"
    assert len(await rows_of(replay, "server_maintenance", freya)) == 1
    status, _, errors = await run(replay, "query", "chute", chute_id, "x")
    assert status == 1
    assert "404 Not Found" in errors
    # Advice follows an arrow.
    assert "→" in errors


@pytest.mark.parametrize("name", ["stats", "scores", "metagraph", "active_instances", "held_gpus"])
async def test_hotkeys_or_a_key_select_the_rows_and_one_without_a_row_is_named(
    replay: Replay, name: str
) -> None:
    column = "miner_hotkey" if name in ("stats", "active_instances") else "hotkey"
    first = HEALTHY
    held_gpus = replay.day.answer("held_gpus", replay.moment()) or {}
    second = next(hotkey for hotkey in held_gpus if hotkey not in (HOTKEY, HEALTHY))
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
    other = HEALTHY
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
    assert all(row["chute_id"] for row in rows)
    await rows_of(replay, "instances")
    assert asked(replay, "instances") == [{"explicit_null": "true"}]
    await rows_of(replay, "instances", "--param", "explicit_null=false")
    assert asked(replay, "instances") == [{"explicit_null": "false"}]


@pytest.mark.parametrize(
    ("flag", "ending"),
    [("--param=explicit_null=true", (0, "[]\n")), ("--param=explicit_null=false", (1, ""))],
)
async def test_without_explicit_null_no_instances_and_a_failure_look_the_same(
    replay: Replay, flag: str, ending: tuple[int, str]
) -> None:
    replay.edits["instances"] = lambda _: []
    status, output, errors = await run(replay, "query", "instances", "--json", flag)
    assert (status, output) == ending
    assert ("instances: the answer is empty" in errors) is (status == 1)


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
