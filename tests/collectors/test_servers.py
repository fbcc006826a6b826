from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.servers import COLLECTOR
from chutes_exporter.feeds.table import SERVERS
from tests.collectors.support import ELEVEN_TEXT, HOUR, NOON, NOON_TEXT, UNREADABLE, Collected, collected


def server(number: int, **fields: Any) -> dict[str, Any]:
    return {"server_id": f"s{number}", "name": f"name {number}", "ip": f"192.0.2.{number}", "gpus": []} | fields


def run(*servers: dict[str, Any], **options: Any) -> Collected:
    return collected(COLLECTOR, {SERVERS: {"servers": list(servers)}}, **options)


def test_a_server_has_its_name_its_gpus_and_its_times() -> None:
    tee = server(
        1,
        is_tee=True,
        version="1.2.0",
        maintenance_pending=True,
        created_at=ELEVEN_TEXT,
        updated_at=NOON_TEXT,
        gpus=[{"uuid": "g1"}, {"uuid": "g2"}],
    )
    assert run(tee).samples == {
        "chutes_server_info{hotkey=me,server_id=s1,name=name 1,ip=192.0.2.1,tee=true,version=1.2.0}": 1,
        "chutes_server_gpus{hotkey=me,server_id=s1}": 2,
        "chutes_server_maintenance_pending{hotkey=me,server_id=s1}": 1,
        "chutes_server_launches_refused{hotkey=me,server_id=s1}": 0,
        "chutes_server_created_timestamp_seconds{hotkey=me,server_id=s1}": NOON - HOUR,
        "chutes_server_updated_timestamp_seconds{hotkey=me,server_id=s1}": NOON,
        "chutes_fleet_servers{hotkey=me}": 1,
        "chutes_fleet_servers_without_gpus{hotkey=me}": 0,
        "chutes_fleet_duplicate_server_ips{hotkey=me}": 0,
        "chutes_fleet_duplicate_server_names{hotkey=me}": 0,
    }


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"is_tee": True, "version": None}, 1),
        ({"is_tee": True, "version": "0.2.0"}, 1),
        ({"is_tee": True, "version": "newest"}, 1),
        ({"is_tee": True, "version": "0.2.1-rc1"}, 0),
        ({"is_tee": True, "version": "0.10.0"}, 0),
        ({"is_tee": True}, None),
        ({"is_tee": False, "version": None}, None),
        ({"version": "0.1.0"}, None),
    ],
)
def test_a_tee_server_below_0_2_1_stops_launches(fields: dict[str, Any], refused: int | None) -> None:
    name = "chutes_server_launches_refused{hotkey=me,server_id=s1}"
    assert run(server(1, **fields)).samples.get(name) == refused


def test_a_miner_without_servers_has_zeros() -> None:
    assert run().samples == {
        "chutes_fleet_servers{hotkey=me}": 0,
        "chutes_fleet_servers_without_gpus{hotkey=me}": 0,
        "chutes_fleet_duplicate_server_ips{hotkey=me}": 0,
        "chutes_fleet_duplicate_server_names{hotkey=me}": 0,
    }


def test_an_unknown_field_makes_no_sample() -> None:
    assert run({"server_id": "s"}).samples == {
        "chutes_server_info{hotkey=me,server_id=s}": 1,
        "chutes_fleet_servers{hotkey=me}": 1,
    }


def test_servers_without_gpus_are_counted_unless_one_lists_none() -> None:
    busy = server(3, gpus=[{"uuid": "g"}])
    assert run(server(1), server(2), busy).samples["chutes_fleet_servers_without_gpus{hotkey=me}"] == 2
    made = run(server(1), server(2, gpus=None), busy)
    assert made.of("chutes_fleet_servers_without_gpus") == {}
    assert made.of("chutes_server_gpus") == {
        "chutes_server_gpus{hotkey=me,server_id=s1}": 0,
        "chutes_server_gpus{hotkey=me,server_id=s3}": 1,
    }


def test_a_gpu_that_is_listed_twice_counts_once() -> None:
    made = run(server(1, gpus=[{"uuid": "g"}, {"uuid": "g"}]))
    assert made.of("chutes_server_gpus") == {"chutes_server_gpus{hotkey=me,server_id=s1}": 1}


@pytest.mark.parametrize(("field", "metric"), [("ip", "ips"), ("name", "names")])
def test_values_that_several_servers_have_are_counted_each_once(field: str, metric: str) -> None:
    values = ("a", "a", "a", "b", "b", "c")
    made = run(*(server(number, **{field: value}) for number, value in enumerate(values)))
    assert made.samples[f"chutes_fleet_duplicate_server_{metric}{{hotkey=me}}"] == 2
    made = run(server(1, **{field: None}), server(2))
    assert made.of(f"chutes_fleet_duplicate_server_{metric}") == {}


def test_a_server_that_is_listed_twice_counts_once() -> None:
    made = run(server(1), server(1))
    assert made.samples["chutes_fleet_servers{hotkey=me}"] == 1
    assert made.samples["chutes_fleet_duplicate_server_ips{hotkey=me}"] == 0
    assert made.duplicates == 1


def test_an_incomplete_answer_shows_its_servers_and_counts_nothing() -> None:
    assert run(server(1), UNREADABLE).samples == {
        "chutes_server_info{hotkey=me,server_id=s1,name=name 1,ip=192.0.2.1}": 1
    }


def test_an_answer_that_is_doubted_shows_its_servers_and_counts_nothing() -> None:
    made = run(server(1), doubted=[SERVERS])
    assert made.samples == {"chutes_server_info{hotkey=me,server_id=s1,name=name 1,ip=192.0.2.1}": 1}
