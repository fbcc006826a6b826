"""What can be launched, from a few answers. tests/test_worlds.py compares worlds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.fleet.model import join_fleet
from tests.collectors.support import NOON_TEXT
from tests.fleet import test_join
from tests.fleet.support import sent
from tests.fleet.test_join import chute, gpu
from tests.support import NOON

if TYPE_CHECKING:
    from chutes_exporter.fleet.model import Fleet

Row = dict[str, Any]

OVER_AN_HOUR_AGO = "2026-11-24T10:59:00+00:00"
"""The answers are from noon."""
CHUTE = chute("c", "llama", node_selector={"gpu_count": 2, "supported_gpus": ["h200"]})
RECORD = test_join.RECORD | {"chute_id": "c", "total_instance_count": 1, "target_count": 2}
GPUS = [gpu(number) for number in range(3)]
SERVER = test_join.ANSWERS["servers"]["servers"][0] | {"server_id": "s", "gpus": GPUS}
STARTING = test_join.STARTING | {
    "instance_id": "i",
    "chute_id": "c",
    "created_at": OVER_AN_HOUR_AGO,
}
ANSWERS: dict[str, Any] = test_join.ANSWERS | {
    "servers": {"servers": [SERVER]},
    "nodes": [],
    "inventory": [],
    "instances": [],
    "maintenance": {"active_window": None, "servers": []},
    "chutes": [CHUTE],
    "active_instances": [],
    "utilization": [RECORD],
    "held_gpus": {"me": {"provisioned": []}},
    "supported_gpus": {"h200": {"hourly_rate": 2.0}},
}
"""A server with three idle GPUs, and a chute that has room for another instance."""
del ANSWERS["tee_measurements"]


def fleet_of(**changes: Any) -> Fleet:
    return join_fleet(sent(ANSWERS | changes))


def servers(*changes: Row) -> Row:
    """Return the answer with a server for each of these changes. Each has GPUs of its own."""
    rows = []
    for number, change in enumerate(changes):
        row: Row = SERVER | {"server_id": f"s{number}"} | change
        gpus = [gpu | {"uuid": f"{number}{gpu['uuid']}"} for gpu in row["gpus"]]
        rows.append(row | {"gpus": gpus})
    return {"servers": rows}


IN_MAINTENANCE = {"in_maintenance": 1}
UNKNOWN = {"unknown": 1}
SEVERAL = {"gpu_count": 2, "supported_gpus": ["h200", "free"]}
ON_OTHERS = {"gpu_count": 1, "supported_gpus": ["b200"]}


def chutes(**fields: Any) -> dict[str, Any]:
    """Return the answer about chutes, of which one has other values in these fields."""
    return {"chutes": [CHUTE | fields]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Free GPUs of two servers are not added up.
        ({"servers": servers({"gpus": GPUS[:1]}, {"gpus": GPUS[:1]})}, {"too_many_gpus": 1}),
        # The check of TEE comes before that of the maintenance, so the second server is nearer.
        ({"servers": servers({"is_tee": False}, {"maintenance_pending": True})}, IN_MAINTENANCE),
        ({"servers": servers({"is_tee": None})}, UNKNOWN),
        # A chute for other models is not counted. One whose models are unknown may run on each,
        # unless it is refused on every model.
        (chutes(node_selector=ON_OTHERS), {}),
        (chutes(node_selector=None), UNKNOWN),
        (chutes(node_selector=None, disabled=True), {}),
        # What decides or pays is unknown.
        (chutes(compute_multiplier_factors={"bounty_boost": 0}), UNKNOWN),
        # A rate of 0 is as unknown as a missing one.
        (chutes(node_selector=SEVERAL), UNKNOWN),
        (chutes(node_selector=SEVERAL) | {"supported_gpus": {"free": {"hourly_rate": 0}}}, UNKNOWN),
        # The sums of such a pay would not be finite.
        (chutes(effective_compute_multiplier=1e300), UNKNOWN),
    ],
)
def test_a_chute_that_cannot_be_launched_is_counted_by_its_reason(
    changes: dict[str, Any], expected: dict[str, int]
) -> None:
    fleet = fleet_of(**changes)
    (market,) = fleet.markets or ()
    assert (market.offers, dict(market.refused)) == ((), expected)
    # Where something may be possible, the pay is not known to be 0.
    unknown = expected == UNKNOWN
    assert {plan.first_day_units for plan in fleet.plans} <= {None if unknown else 0}


def test_an_instance_that_starts_since_an_unknown_time_may_hang() -> None:
    (market,) = fleet_of(instances=[STARTING | {"created_at": None}]).markets or ()
    assert [offer.hanging for offer in market.offers] == [1]


UNVERIFIED = [gpu | {"verified_at": None} for gpu in GPUS]
HELD = [{"gpu_id": "0g0", "chute_id": "c", "active": False}]


@pytest.mark.parametrize(
    ("changes", "pays", "of_all"),
    [
        # The chute has room for one instance, which earns 3 units a second.
        ({"servers": servers({}, {})}, [3, 0], 3),
        ({"servers": servers({"gpus": UNVERIFIED})}, [None], None),
        # Unverified GPUs do not hide the pay of those that are idle.
        ({"servers": servers({}, {"gpus": UNVERIFIED})}, [3, None], 3),
        ({"servers": servers({}, {"maintenance_pending": None})}, [3, None], None),
        # The server of an idle GPU is not listed.
        (
            {
                "servers": servers({}),
                "nodes": [GPUS[0] | {"uuid": "new", "server_id": "unlisted"}],
            },
            [3],
            None,
        ),
    ],
)
def test_what_idle_gpus_could_earn_is_unknown_only_with_what_it_needs(
    changes: dict[str, Any], pays: list[float | None], of_all: float | None
) -> None:
    fleet = fleet_of(**changes)
    found = [fleet.idle_units_per_second(server) for server in fleet.servers]
    assert found == pays
    assert fleet.idle_units_of_all == of_all


# Servers on which the plan launches nothing

WAITING = {"server_id": "s", "name": "box", "needs_upgrade": True, "maintenance_status": "none"}


def policy(opens: float, closes: float, **server: Any) -> Row:
    """Return the policy in which the server waits for its upgrade. Times are hours from noon."""
    start, end = (
        datetime.fromtimestamp(NOON + hours * 3600, UTC).isoformat() for hours in (opens, closes)
    )
    window = {
        "target_measurement_version": "1.5.0",
        "upgrade_window_start": start,
        "upgrade_window_end": end,
    }
    is_open = opens <= 0 <= closes
    return {"active_window": window, "window_open": is_open, "servers": [WAITING | server]}


def started(created_at: str | None, **fields: Any) -> dict[str, Any]:
    """Return the answers in which an instance starts on a GPU of the server."""
    instance = STARTING | {"created_at": created_at} | fields
    held = {"gpu_id": "g0", "chute_id": "c", "active": instance["active"]}
    return {"instances": [instance], "inventory": [held]}


LISTED = [{"version": "1.5.0", "expected_gpus": ["h200"], "gpu_count": None}]
UNMEASURED = [{"version": "1.5.0", "expected_gpus": ["b200"], "gpu_count": None}]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        # In the last 12 hours of a window, a server that waits for its upgrade is left out.
        ({"maintenance": policy(-1, 10), "tee_measurements": LISTED}, "upgrade_due"),
        ({"maintenance": policy(-1, 13)}, None),
        ({"maintenance": policy(-10, -1)}, None),
        ({"maintenance": policy(-1, 10, needs_upgrade=False)}, None),
        ({"maintenance": policy(-1, 10, maintenance_status="pending")}, "upgrade_slot"),
        # It cannot come back from the upgrade.
        ({"maintenance": policy(-1, 10), "tee_measurements": UNMEASURED}, None),
        # The only instance on it has been starting for over an hour.
        (started(OVER_AN_HOUR_AGO), "starts_hang"),
        (started(NOON_TEXT), None),
        (started(OVER_AN_HOUR_AGO, active=True, activated_at=OVER_AN_HOUR_AGO), None),
        ({"servers": servers({"is_tee": None})}, "use_not_known"),
        # Whether it must be upgraded soon, or whether the start hangs, is unknown.
        (
            {"maintenance": policy(-1, 10, needs_upgrade=None), "tee_measurements": LISTED},
            "use_not_known",
        ),
        ({"maintenance": policy(-1, 13, needs_upgrade=None)}, None),
        ({"maintenance": policy(-1, 10)}, "use_not_known"),
        (started(None), "use_not_known"),
    ],
)
def test_the_plan_leaves_out_servers_that_fail_or_must_be_upgraded_and_says_why(
    changes: dict[str, Any], reason: str | None
) -> None:
    fleet = fleet_of(**changes)
    (server,) = fleet.servers
    assert fleet.left_out.get(server.server_id) == reason
    assert bool(fleet.plans) == (reason is None)
    if reason in ("upgrade_due", "starts_hang"):
        assert fleet.idle_units_per_second(server) == 0
