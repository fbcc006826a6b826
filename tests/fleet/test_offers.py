"""What can be launched, from a few answers. tests/test_worlds.py compares worlds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.fleet.join import join_fleet
from chutes_exporter.fleet.model import NO_PAY, IdlePay
from tests.collectors.support import NOON_TEXT
from tests.fleet.support import sent
from tests.support import NOON

if TYPE_CHECKING:
    from chutes_exporter.fleet.model import Fleet, Market, Offer

Row = dict[str, Any]

OVER_AN_HOUR_AGO = "2026-11-24T10:59:00+00:00"
"""The answers are from noon."""
CHUTE = {
    "chute_id": "c",
    "name": "llama",
    "public": True,
    "tee": True,
    "disabled": False,
    "node_selector": {"gpu_count": 2, "supported_gpus": ["h200"]},
    "effective_compute_multiplier": 3.0,
    "compute_multiplier_factors": {"tee": 1.2},
}
RECORD = {
    "chute_id": "c",
    "timestamp": NOON_TEXT,
    "active_instance_count": 1,
    "total_instance_count": 1,
    "scale_allowance": 1,
    "target_count": 2,
    "instance_count": 1,
    "utilization_15m": 0.5,
    "rate_limit_ratio_15m": 0.25,
}
GPUS = [
    {"uuid": f"g{number}", "gpu_identifier": "h200", "verified_at": NOON_TEXT}
    for number in range(3)
]
SERVER = {
    "server_id": "s",
    "name": "box",
    "is_tee": True,
    "version": "1.4.0",
    "maintenance_pending": False,
    "gpus": GPUS,
}
STARTING = {
    "instance_id": "i",
    "chute_id": "c",
    "active": False,
    "verified": False,
    "activated_at": None,
    "created_at": OVER_AN_HOUR_AGO,
    "billed_to": None,
}
ANSWERS: dict[str, Any] = {
    "servers": {"servers": [SERVER]},
    "nodes": [],
    "inventory": [],
    "instances": [],
    "maintenance": {"active_window": None, "servers": []},
    "metagraph": [{"hotkey": "me", "blacklist_reason": None}],
    "chutes": [CHUTE],
    "active_instances": [],
    "utilization": [RECORD],
    "bounties": [],
    "held_gpus": {"me": {"provisioned": []}},
    "supported_gpus": {"h200": {"hourly_rate": 2.0}},
}
"""A server with three idle GPUs, and a chute that has room for another instance."""


def fleet_of(**changes: Any) -> Fleet:
    return join_fleet(sent(ANSWERS | changes))


def market_of(**changes: Any) -> Market:
    """Return what can be launched on the idle GPUs, which are of one model."""
    (market,) = fleet_of(**changes).markets or ()
    return market


def offer_of(**fields: Any) -> Offer:
    """Return the offer of a chute with other fields."""
    (offer,) = market_of(chutes=[CHUTE | fields]).offers
    return offer


def refused(**changes: Any) -> dict[str, int]:
    """Return how many chutes are refused for which reason, in answers in which none is offered."""
    market = market_of(**changes)
    assert market.offers == ()
    return {str(reason): count for reason, count in market.refused.items()}


def servers(*changes: Row) -> Row:
    """Return the answer with a server for each of these changes. Each has GPUs of its own."""
    rows = []
    for number, change in enumerate(changes):
        row: Row = SERVER | {"server_id": f"s{number}"} | change
        gpus = [gpu | {"uuid": f"{number}{gpu['uuid']}"} for gpu in row["gpus"]]
        rows.append(row | {"gpus": gpus})
    return {"servers": rows}


def test_an_offer_has_what_the_answers_say_of_its_chute() -> None:
    offer = offer_of()
    assert (offer.chute_id, offer.chute, offer.private, offer.tee) == ("c", "llama", False, True)
    assert (offer.model, offer.size, offer.room_now, offer.room_after_starting, offer.starting) == (
        "h200",
        2,
        1,
        1,
        0,
    )
    assert (offer.first_day_units, offer.later_units_per_second) == (3 * 86400, 3)
    assert (offer.load, offer.rate_limited) == (0.5, 0.25)
    assert (offer.bounty_boost, offer.bounty_expires_at, offer.hanging) == (None, None, 0)


def test_the_best_use_of_three_idle_gpus_is_an_instance_on_two_of_them() -> None:
    (use,) = fleet_of().plans
    assert [(one.offer.chute_id, one.instances) for one in use.launches] == [("c", 1)]
    assert (use.free, use.used, use.first_day_units) == (3, 2, 3 * 86400)


def test_an_offer_has_the_present_boost_and_the_end_of_the_bounty_of_its_chute() -> None:
    bounty = {"chute_id": "c", "created_at": 1000.0, "seconds_elapsed": 0, "time_remaining": 500}
    # The factor of the chute, 1.5, is from before this bounty. A new bounty has a boost of 1.1.
    chute = CHUTE | {"compute_multiplier_factors": {"tee": 1.2, "bounty_boost": 1.5}}
    (offer,) = market_of(chutes=[chute], bounties=[bounty]).offers
    assert offer.bounty_boost == pytest.approx(1.1)
    assert offer.bounty_expires_at == 1500


def test_a_bounty_raises_the_first_pay_and_is_gone_after_8_hours() -> None:
    offer = offer_of(compute_multiplier_factors={"tee": 1.2, "bounty_boost": 1.5})
    # Without the factor of the bounty, 3 units a second are 2.
    assert offer.later_units_per_second == 2
    # For 2 hours, the whole unit is paid, and until the first run after them. Each run, every 15
    # minutes, takes away the square of a sixth of the hours since then, of what is left.
    left, paid_hours = 1.0, 2.25
    for run in range(1, 24):
        left -= left * (run / 4 / 6) ** 2
        paid_hours += left / 4
    assert offer.first_day_units == pytest.approx(2 * 86400 + paid_hours * 3600, rel=1e-3)


def test_the_pay_of_a_gpu_is_its_part_of_an_instance_on_average_of_the_first_day() -> None:
    offer = offer_of(compute_multiplier_factors={"tee": 1.2, "bounty_boost": 1.5})
    assert offer.size == 2
    assert offer.first_day_units_per_gpu_second == offer.first_day_units / 86400 / 2


def test_free_gpus_of_two_servers_are_not_added_up() -> None:
    one_gpu = {"gpus": GPUS[:1]}
    assert refused(servers=servers(one_gpu, one_gpu)) == {"too_many_gpus": 1}


def test_the_reason_is_that_of_the_server_that_is_nearest_to_holding_the_chute() -> None:
    # The check of TEE comes before that of the maintenance, so the second server is nearer.
    both = servers({"is_tee": False}, {"maintenance_pending": True})
    assert refused(servers=both) == {"in_maintenance": 1}


@pytest.mark.parametrize("status", ["pending", "maintenance"])
def test_a_server_that_only_the_maintenance_policy_knows_to_hold_a_slot_takes_no_instance(
    status: str,
) -> None:
    server_of_policy = {"server_id": "s", "maintenance_status": status}
    policy = {"active_window": None, "servers": [server_of_policy]}
    assert refused(maintenance=policy) == {"in_maintenance": 1}
    assert fleet_of(maintenance=policy).plans == ()


def test_a_server_in_an_unknown_step_of_its_maintenance_may_refuse_launches() -> None:
    server_of_policy = {"server_id": "s", "maintenance_status": "a word of tomorrow"}
    policy = {"active_window": None, "servers": [server_of_policy]}
    assert refused(maintenance=policy) == {"unknown": 1}


def test_a_server_of_which_tee_is_unknown_takes_no_instance() -> None:
    changes = {"servers": servers({"is_tee": None})}
    assert refused(**changes) == {"unknown": 1}
    assert fleet_of(**changes).plans == ()


def test_gpus_that_are_unverified_held_or_of_an_unknown_model_are_not_free() -> None:
    gpus = [GPUS[0] | {"verified_at": None}, GPUS[1], GPUS[2] | {"gpu_identifier": None}]
    held = {"gpu_id": "g1", "chute_id": "c", "active": False}
    changes = {"servers": {"servers": [SERVER | {"gpus": gpus}]}, "inventory": [held]}
    assert fleet_of(**changes, instances=[STARTING]).markets == ()


def test_a_chute_for_other_models_is_not_counted() -> None:
    selector = {"gpu_count": 1, "supported_gpus": ["b200"]}
    assert refused(chutes=[CHUTE | {"node_selector": selector}]) == {}


@pytest.mark.parametrize("selector", [None, {"gpu_count": 1}])
def test_a_chute_whose_models_are_unknown_may_run_on_each(selector: Row | None) -> None:
    assert refused(chutes=[CHUTE | {"node_selector": selector}]) == {"unknown": 1}
    # A disabled one is refused on every model, so it is not counted as unknown.
    assert refused(chutes=[CHUTE | {"node_selector": selector, "disabled": True}]) == {}


@pytest.mark.parametrize(("other", "is_known"), [("b200", True), ("free", False), ("new", False)])
def test_without_the_rate_of_a_model_the_pay_of_a_chute_for_several_is_unknown(
    other: str,
    is_known: bool,  # noqa: FBT001 - a parameter
) -> None:
    # A rate of 0 makes no sense, so it is as unknown as a missing one.
    rates = {
        "h200": {"hourly_rate": 2.0},
        "b200": {"hourly_rate": 4.0},
        "free": {"hourly_rate": 0},
        "new": {},
    }
    selector = {"gpu_count": 2, "supported_gpus": ["h200", other]}
    changes = {"chutes": [CHUTE | {"node_selector": selector}], "supported_gpus": rates}
    assert bool(market_of(**changes).offers) == is_known
    if not is_known:
        assert refused(**changes) == {"unknown": 1}


def test_a_public_instance_approaches_the_pay_of_the_cheapest_gpu_and_a_private_one_keeps_its() -> (
    None
):
    rates = {"h200": {"hourly_rate": 2.0}, "l40s": {"hourly_rate": 0.5}}
    chute = CHUTE | {"node_selector": {"gpu_count": 2, "supported_gpus": ["h200", "l40s"]}}
    # The chute pays 3 units a second on an l40s, and 3 * 2.0 / 0.5 on an h200.
    for public, later in ((True, 3), (False, 12)):
        changes = {"chutes": [chute | {"public": public}], "supported_gpus": rates}
        (offer,) = market_of(**changes).offers
        assert offer.later_units_per_second == later
        # The first pay counts for 4.6 hours.
        assert offer.first_day_units == later * 86400 + (12 - later) * 4.6 * 3600


@pytest.mark.parametrize("field", ["public", "tee", "disabled", "effective_compute_multiplier"])
def test_a_chute_that_lacks_what_decides_may_be_launched_or_not(field: str) -> None:
    lacking = {key: value for key, value in CHUTE.items() if key != field}
    assert refused(chutes=[lacking]) == {"unknown": 1}
    (use,) = fleet_of(chutes=[lacking]).plans
    # Something may be possible, so the pay is not known to be 0.
    assert (use.may_be_more, use.first_day_units) == (True, None)


def test_beside_a_chute_that_may_be_launched_the_pay_of_a_sure_one_is_certain() -> None:
    lacking = {key: value for key, value in CHUTE.items() if key != "tee"}
    known = CHUTE | {"chute_id": "known"}
    records = [RECORD, RECORD | {"chute_id": "known"}]
    (use,) = fleet_of(chutes=[lacking, known], utilization=records).plans
    units_per_second = 3.0
    assert known["effective_compute_multiplier"] == units_per_second
    assert (use.may_be_more, use.first_day_units) == (True, units_per_second * 86400)


def test_a_chute_whose_bounty_has_no_valid_factor_has_an_unknown_pay() -> None:
    for boost in (None, 0):
        factors = {"compute_multiplier_factors": {"bounty_boost": boost}}
        assert refused(chutes=[CHUTE | factors]) == {"unknown": 1}


# With 1e308, the units of a day are infinite, and with 1e300 those of a million instances.
@pytest.mark.parametrize("pay", [1e300, 1e308])
def test_a_pay_whose_sums_would_not_be_finite_is_unknown(pay: float) -> None:
    assert refused(chutes=[CHUTE | {"effective_compute_multiplier": pay}]) == {"unknown": 1}


def test_a_pay_that_would_not_be_finite_without_its_bounty_is_unknown() -> None:
    # 1e10 / 1e-300 is more than a float can hold.
    factors = {"compute_multiplier_factors": {"bounty_boost": 1e-300}}
    high = CHUTE | {"effective_compute_multiplier": 1e10} | factors
    assert refused(chutes=[high]) == {"unknown": 1}


def test_a_private_chute_without_tee_is_certain_only_for_a_miner_that_runs_tee() -> None:
    # The service lets a miner with an active instance of a chute with TEE launch private chutes
    # without TEE. For others, their past decides, which no endpoint shows completely.
    private = CHUTE | {"tee": False, "public": False, "compute_multiplier_factors": {"private": 1}}
    # The miner will have an active instance of this chute. The chute cannot be launched on a server
    # without TEE, and is not counted as refused, because its models are unknown.
    tee = CHUTE | {"chute_id": "t", "node_selector": None}
    changes = {"chutes": [private, tee], "servers": servers({"is_tee": False})}
    assert refused(**changes) == {"unknown": 1}
    active = [{"instance_id": "j", "miner_hotkey": "me", "chute_id": "t"}]
    (offer,) = market_of(**changes, active_instances=active).offers
    assert (offer.private, offer.tee) == (True, False)


@pytest.mark.parametrize(
    ("created", "hanging"), [(OVER_AN_HOUR_AGO, 1), (None, 1), ("2026-11-24T11:01:00+00:00", 0)]
)
def test_a_chute_that_has_been_starting_here_for_over_an_hour_is_avoided(
    created: str | None, hanging: int
) -> None:
    # If it is not known when the instance was created, it may have been long ago.
    instance = STARTING | {"created_at": created}
    # An old instance that is active does not hang.
    active = STARTING | {"instance_id": "a", "active": True, "activated_at": NOON_TEXT}
    # It pays less than the chute c, which pays 3 units a second.
    other = CHUTE | {"chute_id": "o", "effective_compute_multiplier": 1.0}
    changes = {
        "chutes": [CHUTE, other],
        "instances": [instance, active],
        "utilization": [RECORD, RECORD | {"chute_id": "o"}],
    }
    offers = market_of(**changes).offers
    best_first = [(offer.chute_id, offer.hanging) for offer in offers]
    (use,) = fleet_of(**changes).plans
    launched = [launch.offer.chute_id for launch in use.launches]
    if hanging:
        assert best_first == [("o", 0), ("c", 1)]
        assert launched == ["o"]
    else:
        assert best_first == [("c", 0), ("o", 0)]
        assert launched == ["c"]


def test_launches_that_are_under_way_take_the_room_of_a_chute_that_checks_it_again() -> None:
    provisioned = [
        {
            "gpu": "h200",
            "server_id": "elsewhere",
            "chute": {"chute_id": "c", "instance_id": f"i{number}", "activated_at": None},
        }
        for number in range(2)
    ]
    # One instance is active, 2 more are wanted, and 2 are starting. With TEE, active and starting
    # ones must be fewer than the target of 3 plus 1, so one more may start. The room is not checked
    # again. Without TEE, it is, and those that are starting take all of it.
    record = RECORD | {"total_instance_count": 3, "scale_allowance": 2}
    for tee, left in ((True, 1), (False, 0)):
        fleet = fleet_of(
            chutes=[CHUTE | {"tee": tee}],
            servers=servers({"is_tee": tee}),
            held_gpus={"other": {"provisioned": provisioned}},
            utilization=[record],
        )
        ((offer,),) = (market.offers for market in fleet.markets or ())
        assert (offer.starting, offer.room_after_starting) == (2, left)
        # What has no room left is shown, but launched nowhere.
        (use,) = fleet.plans
        assert sum(launch.instances for launch in use.launches) == left


def test_what_is_left_of_a_room_is_unknown_while_a_start_is() -> None:
    # Neither the list of held GPUs nor the chute's log says how many instances start: the list
    # does not say whether this one was ever active, and the log lacks its number of instances.
    chute = {"chute_id": "c", "instance_id": "i"}
    place = {"gpu": "h200", "server_id": "elsewhere", "chute": chute}
    changes = {
        "chutes": [CHUTE | {"tee": False}],
        "servers": servers({"is_tee": False}),
        "held_gpus": {"other": {"provisioned": [place]}},
        "utilization": [RECORD | {"total_instance_count": None}],
    }
    assert refused(**changes) == {"unknown": 1}


def test_servers_are_filled_with_each_room_once() -> None:
    fleet = fleet_of(servers=servers({}, {}))
    used = sorted(use.used for use in fleet.plans)
    assert used == [0, 2]
    pays = [fleet.idle_pay(server) for server in fleet.servers]
    # The chute has room for one instance, which earns 3 units a second.
    assert pays == [IdlePay(3, 3), NO_PAY]
    assert fleet.idle_pay_of_all == IdlePay(3, 3)


def test_what_unverified_gpus_could_earn_is_unknown() -> None:
    unverified = [GPUS[0] | {"verified_at": None}]
    fleet = fleet_of(servers=servers({"gpus": unverified}))
    assert fleet.idle_pay(fleet.servers[0]) is None
    assert fleet.idle_pay_of_all is None


def test_a_server_without_idle_gpus_could_earn_nothing_more() -> None:
    # The only GPU of the server, by the id that it gets there.
    held = [{"gpu_id": "0g0", "chute_id": "c", "active": False}]
    fleet = fleet_of(servers=servers({"gpus": GPUS[:1]}), inventory=held, instances=[STARTING])
    assert fleet.idle_pay(fleet.servers[0]) == NO_PAY
    assert fleet.idle_pay_of_all == NO_PAY


def test_the_pay_of_all_idle_gpus_is_unknown_while_that_of_a_server_is() -> None:
    fleet = fleet_of(servers=servers({}, {"maintenance_pending": None}))
    first, second = fleet.servers
    assert fleet.idle_pay(first) == IdlePay(3, 3)
    assert fleet.idle_pay(second) is None
    assert fleet.idle_pay_of_all is None


def test_unverified_gpus_do_not_hide_the_pay_of_those_that_are_idle() -> None:
    unverified = [{**gpu, "verified_at": None} for gpu in GPUS]
    fleet = fleet_of(servers=servers({}, {"gpus": unverified}))
    assert fleet.idle_pay_of_all == IdlePay(3, 3)


def test_the_pay_of_all_idle_gpus_is_unknown_while_their_server_is_not_listed() -> None:
    new = GPUS[0] | {"uuid": "new", "server_id": "unlisted"}
    fleet = fleet_of(servers=servers({}), nodes=[new])
    assert fleet.idle_pay(fleet.servers[0]) == IdlePay(3, 3)
    assert fleet.idle_pay_of_all is None


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
        ({"maintenance": policy(-1, 10), "measurements": LISTED}, "upgrade_due"),
        ({"maintenance": policy(-1, 13)}, None),
        ({"maintenance": policy(1, 10)}, None),
        ({"maintenance": policy(-10, -1)}, None),
        ({"maintenance": policy(-1, 10, needs_upgrade=False)}, None),
        ({"maintenance": policy(-1, 10, maintenance_status="pending")}, "upgrade_slot"),
        # It cannot come back from the upgrade.
        ({"maintenance": policy(-1, 10), "measurements": UNMEASURED}, None),
        # The only instance on it has been starting for over an hour.
        (started(OVER_AN_HOUR_AGO), "starts_hang"),
        (started(NOON_TEXT), None),
        (started(OVER_AN_HOUR_AGO, active=True, activated_at=OVER_AN_HOUR_AGO), None),
        ({"servers": servers({"is_tee": None})}, "use_not_known"),
        # Whether it must be upgraded soon, or whether the start hangs, is unknown.
        (
            {"maintenance": policy(-1, 10, needs_upgrade=None), "measurements": LISTED},
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
        assert fleet.idle_pay(server) == NO_PAY
        assert fleet.idle_can_earn(server) is False
