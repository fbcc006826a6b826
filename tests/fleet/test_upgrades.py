"""The order of the upgrades in a maintenance window, what they cost, and when they are done."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.fleet.model import Server, Window
from chutes_exporter.fleet.upgrades import UpgradePlan, find_waiting, lost_by_reboot, plan_upgrades
from tests.fleet.support import make_fleet, make_gpus, make_instance, make_server

NOW = 1_800_000_000.0
OPEN = Window(
    is_open=True,
    starts_at=NOW - DAY,
    ends_at=NOW + 12 * HOUR,
    target="1.7.0",
    slots=1,
    used_slots=0,
)
ANNOUNCED = replace(OPEN, is_open=False, starts_at=NOW + DAY, ends_at=NOW + DAY + 12 * HOUR)


def waits(name: str, last: int = 0, idle: int = 0, **fields: Any) -> Server:
    """Return a server that waits for its upgrade, with some last instances and idle GPUs."""
    instances = tuple(
        make_instance(f"{name}-{number}", server_id=name, has_replacement=False)
        for number in range(last)
    )
    gpus = (*make_gpus("earning", 2 * last, server=name), *make_gpus("idle", idle, server=name))
    return make_server(name, *gpus, instances=instances, needs_upgrade=True, name=name, **fields)


def plan(*servers: Server, window: Window | None = OPEN, **changes: Any) -> UpgradePlan:
    """Return the plan for servers, in a window with other values."""
    changed = None if window is None else replace(window, **changes)
    return plan_upgrades(make_fleet(*servers, window=changed), NOW)


def names(found: UpgradePlan) -> str:
    return " ".join(one.server.server_id for one in found.upgrades or ())


def test_the_fewest_last_instances_come_first_and_then_the_most_idle_gpus() -> None:
    servers = (waits("a", 2, 8), waits("b", 1), waits("c", 1, 4), waits("d"), waits("e"))
    for order in itertools.permutations(servers):
        found = plan(*order)
        assert names(found) == "d e c b a"
        assert [one.place for one in found.upgrades or ()] == [1, 2, 3, 4, 5]


def test_a_server_that_holds_a_slot_or_has_the_target_version_does_not_wait() -> None:
    found = plan(
        waits("a"),
        waits("b", holds_slot=True, maintenance="pending"),
        make_server("c", needs_upgrade=False),
    )
    assert names(found) == "a"


def test_a_server_that_cannot_come_back_is_in_no_order_and_not_late() -> None:
    # The servers in the slots leave no time for any other, so each one that waits is late.
    found = plan(waits("a"), waits("b", measured="not_measured"), used_slots=3)
    assert found.waiting is not None
    assert [server.server_id for server in found.waiting.unmeasured or ()] == ["b"]
    assert (names(found), found.late) == ("a", 1)
    # A server of which no answer decides whether it comes back stays in the order.
    assert names(plan(waits("a", measured="undecided"))) == "a"


def test_each_upgrade_takes_4_hours_in_the_slots_and_so_do_those_that_hold_one() -> None:
    servers = [waits(name) for name in "abcd"]
    found = plan(*servers, slots=2, used_slots=1, ends_at=NOW + 8 * HOUR)
    hours = [((one.done_at or 0) - NOW) / HOUR for one in found.upgrades or ()]
    assert hours == [4, 8, 8, 12]
    assert [one.is_late for one in found.upgrades or ()] == [False, False, False, True]
    assert (found.late, found.last_done_at, found.free_slots) == (1, NOW + 12 * HOUR, 1)


@pytest.mark.parametrize("slots", [0, 1, 2, 3, 10])
@pytest.mark.parametrize("used", [0, 1, 4])
@pytest.mark.parametrize("hours", [-1, 0, 3.9, 4, 4.1, 12, 51.9, 52])
def test_the_late_ones_are_those_for_which_no_slot_is_free_in_time(
    slots: int, used: int, hours: float
) -> None:
    for count in (0, 1, 2, 13):
        servers = [waits(str(number)) for number in range(count)]
        found = plan(*servers, slots=slots, used_slots=used, ends_at=NOW + hours * HOUR)
        # In each 4 hours, each slot has room for one, but for those that are used now.
        room = max(0, hours // 4 * slots - used)
        assert found.late == max(0, count - room)


def test_an_announced_window_begins_later() -> None:
    found = plan(waits("a"), waits("b"), window=ANNOUNCED)
    assert (found.phase, found.last_done_at) == ("announced", NOW + DAY + 8 * HOUR)
    assert found.late == 0


@pytest.mark.parametrize(
    ("window", "phase", "unknown"),
    [
        (None, None, 1),
        (Window(is_open=False, exists=False), "none", 0),
        (replace(OPEN, is_open=None), None, 1),
        (replace(ANNOUNCED, starts_at=None), None, 1),
        (replace(OPEN, is_open=False, ends_at=NOW - 1), "over", 0),
        (replace(OPEN, starts_at=None), "open", 0),
    ],
)
def test_no_window_is_not_an_unknown_window(
    window: Window | None, phase: str | None, unknown: int
) -> None:
    found = plan(waits("a"), window=window)
    assert (found.phase, len(found.unknown)) == (phase, unknown)
    assert (found.upgrades is not None) == (phase == "open")


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (waits("b", holds_slot=None), "which servers wait for their upgrade"),
        (make_server("b", needs_upgrade=None), "which servers wait for their upgrade"),
        (waits("b", measured=None), "which servers can come back with the target version"),
        (waits("b", is_whole=False), "in which order to upgrade the servers"),
        (
            make_server("b", *make_gpus(None, 2), needs_upgrade=True),
            "in which order to upgrade the servers",
        ),
        (
            make_server(
                "b",
                *make_gpus("earning", 2),
                instances=(make_instance(has_replacement=None),),
                needs_upgrade=True,
            ),
            "in which order to upgrade the servers",
        ),
        # The instance of an earning GPU is not known.
        (
            make_server("b", *make_gpus("earning", 2), needs_upgrade=True),
            "in which order to upgrade the servers",
        ),
    ],
)
def test_what_is_unknown_of_one_server_leaves_no_order(server: Server, reason: str) -> None:
    found = plan(waits("a"), server)
    assert found.unknown == (reason,)
    assert found.upgrades is None


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("ends_at", "when the window ends"),
        ("slots", "how many slots are free"),
        ("used_slots", "how many slots are free"),
        ("target", "to which version the servers are upgraded"),
    ],
)
def test_what_is_unknown_of_the_window_is_named(field: str, reason: str) -> None:
    found = plan(waits("a"), **{field: None})
    assert found.unknown == (reason,)
    assert (found.late is None) == (field != "target")
    assert (found.free_slots is None) == ("slots" in field)


def test_without_the_list_of_servers_nobody_waits_for_certain() -> None:
    fleet = make_fleet(waits("a"), window=OPEN, known={"servers": False})
    assert find_waiting(fleet) is None
    assert plan_upgrades(fleet, NOW).late is None


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        # 2 units a second since its creation.
        ({"private": True, "created_at": NOW - 3 * HOUR}, 6 * HOUR),
        ({"private": True, "created_at": NOW - 3 * DAY}, 2 * DAY),
        ({"private": True, "state": "disabled", "created_at": NOW - HOUR}, 2 * HOUR),
        # A public one keeps its score an hour after its activation.
        ({"deadlines": {"secured": NOW - 1}}, 0),
        ({"deadlines": {"secured": NOW + 1}, "created_at": NOW - HOUR}, 2 * HOUR),
        ({"deadlines": {}}, None),
        ({"state": "starting", "private": True}, 0),
        ({"private": None}, None),
        ({"state": None}, None),
        ({"private": True, "created_at": None}, None),
        ({"private": True, "units_per_second": None}, None),
    ],
)
def test_a_reboot_now_loses_what_an_end_without_maintenance_loses(
    fields: dict[str, Any], lost: float | None
) -> None:
    state = fields.get("state", "active")
    gpu_state = {"active": "earning", None: None}.get(state, state)
    server = make_server("s1", *make_gpus(gpu_state, 2), instances=(make_instance(**fields),))
    assert lost_by_reboot(server, NOW) == lost


def test_what_a_reboot_loses_is_not_known_while_an_instance_has_no_known_place() -> None:
    assert lost_by_reboot(make_server("s1", *make_gpus("earning", 2)), NOW) is None
    assert lost_by_reboot(make_server("s1", *make_gpus("idle", 2)), NOW) == 0
