"""The collector ``launch`` with incomplete answers. tests/test_launch.py has its decisions in a
recorded world.
"""

from __future__ import annotations

from typing import Any

from chutes_exporter.collectors.launch import COLLECTOR
from chutes_exporter.feeds.table import (
    ACTIVE_INSTANCES,
    BOUNTIES,
    CHUTES,
    HELD_GPUS,
    INVENTORY,
    MAINTENANCE,
    METAGRAPH,
    SERVERS,
    SUPPORTED_GPUS,
    UTILIZATION,
)
from tests.collectors.support import NOON_TEXT, collected

CHUTE = {
    "chute_id": "c",
    "tee": True,
    "disabled": False,
    "node_selector": {"gpu_count": 2, "supported_gpus": ["h200"]},
    "effective_compute_multiplier": 3.0,
    "compute_multiplier_factors": {"private_tee": 1.3},
}
ROOM = {
    "chute_id": "c",
    "timestamp": NOON_TEXT,
    "active_instance_count": 1,
    "total_instance_count": 1,
    "scale_allowance": 1,
    "target_count": 2,
}
GPUS = [
    {"uuid": f"g{number}", "gpu_identifier": "h200", "verified_at": NOON_TEXT}
    for number in range(3)
]
SERVER = {
    "server_id": "s",
    "is_tee": True,
    "version": "1.4.0",
    "maintenance_pending": False,
    "gpus": GPUS,
}
OFFER = {
    "chutes_launch_units_per_gpu_second{hotkey=me,gpu=h200,chute_id=c}": 1.5,
    "chutes_launch_room_instances{hotkey=me,gpu=h200,chute_id=c}": 1,
}
ANSWERS: dict[Any, Any] = {
    CHUTES: [CHUTE],
    UTILIZATION: [ROOM],
    BOUNTIES: [],
    ACTIVE_INSTANCES: [{"instance_id": "i", "miner_hotkey": "me", "chute_id": "c"}],
    METAGRAPH: [{"hotkey": "me", "blacklist_reason": None}],
    SERVERS: {"servers": [SERVER]},
    INVENTORY: [{"gpu_id": "g0"}],
    HELD_GPUS: {"me": {"provisioned": []}},
    MAINTENANCE: {"active_window": None, "servers": []},
    SUPPORTED_GPUS: {"h200": {"hourly_rate": 2.0}},
}


def run(changes: dict[Any, Any], **options: Any) -> dict[str, float]:
    """Return the samples that are not zero."""
    return {
        key: value
        for key, value in collected(COLLECTOR, ANSWERS | changes, **options).items()
        if value
    }


def refused(reason: str) -> dict[str, float]:
    return {f"chutes_launch_refused_chutes{{hotkey=me,gpu=h200,reason={reason}}}": 1}


def test_a_chute_that_fits_on_the_free_gpus_of_a_server_has_its_pay_per_gpu() -> None:
    assert run({}) == OFFER


def test_a_private_chute_without_tee_is_certain_only_for_a_miner_that_runs_tee() -> None:
    chute = CHUTE | {"tee": False, "compute_multiplier_factors": {"private": 1.3}}
    servers = {SERVERS: {"servers": [SERVER | {"is_tee": False}]}}
    with_tee = CHUTE | {"chute_id": "t", "node_selector": None}
    assert run({CHUTES: [chute, with_tee], **servers}) == refused("unknown")
    running = [
        *ANSWERS[ACTIVE_INSTANCES],
        {"instance_id": "j", "miner_hotkey": "me", "chute_id": "t"},
    ]
    assert run({CHUTES: [chute, with_tee], ACTIVE_INSTANCES: running, **servers}) == OFFER


def test_free_gpus_of_two_servers_are_not_added_up() -> None:
    servers = [SERVER | {"server_id": f"s{number}", "gpus": [GPUS[number]]} for number in (1, 2)]
    assert run({SERVERS: {"servers": servers}}) == refused("too_many_gpus")


def test_the_reason_is_that_of_the_server_that_is_nearest_to_holding_the_chute() -> None:
    other = SERVER | {"server_id": "other", "is_tee": False}
    assert run({SERVERS: {"servers": [other, SERVER | {"maintenance_pending": True}]}}) == refused(
        "in_maintenance"
    )


def test_a_server_that_only_the_maintenance_policy_knows_as_pending_takes_no_instance() -> None:
    for status, found in {
        "none": OFFER,
        "pending": refused("in_maintenance"),
        "a word of tomorrow": refused("unknown"),
    }.items():
        policy = {
            "active_window": None,
            "servers": [{"server_id": "s", "maintenance_status": status}],
        }
        assert run({MAINTENANCE: policy}) == found


def test_unverified_gpus_and_those_in_instances_are_not_free() -> None:
    gpus = [GPUS[0], GPUS[1] | {"verified_at": None}, GPUS[2] | {"gpu_identifier": None}]
    assert (
        run(
            {
                SERVERS: {
                    "servers": [SERVER | {"gpus": gpus}, SERVER | {"server_id": "t", "gpus": None}]
                }
            }
        )
        == {}
    )


def test_a_chute_for_other_models_is_not_counted() -> None:
    for selector in (
        None,
        {"gpu_count": 1, "supported_gpus": ["b200"]},
        {"gpu_count": 1, "supported_gpus": None},
    ):
        assert run({CHUTES: [CHUTE | {"node_selector": selector}]}) == {}


def test_without_the_rate_of_a_model_the_pay_of_a_chute_for_several_is_unknown() -> None:
    rates = {
        "h200": {"hourly_rate": 2.0},
        "b200": {"hourly_rate": 4.0},
        "free": {"hourly_rate": 0},
        "new": {},
    }
    for other, found in (
        ("b200", OFFER),
        ("free", refused("unknown")),
        ("new", refused("unknown")),
    ):
        selector = {"gpu_count": 2, "supported_gpus": ["h200", other]}
        assert run({CHUTES: [CHUTE | {"node_selector": selector}], SUPPORTED_GPUS: rates}) == found
