"""The order of the upgrades in a maintenance window, what they cost, and when they are done."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.fleet.model import Server, Window
from chutes_exporter.fleet.upgrades import (
    Upgrade,
    UpgradePlan,
    find_waiting,
    lost_by_reboot,
    plan_upgrades,
)
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
"""A window with one slot, which ends in 12 hours."""
ANNOUNCED = replace(OPEN, is_open=False, starts_at=NOW + DAY, ends_at=NOW + DAY + 12 * HOUR)


def waits(name: str, last: int = 0, idle: int = 0, **fields: Any) -> Server:
    """Return a server that waits for its upgrade.

    It has some instances that are the last active ones of their chutes, on two GPUs each, and some
    idle GPUs.
    """
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
    """Return the ids of the servers to upgrade, in their order."""
    return " ".join(one.server.server_id for one in ordered(found))


def ordered(found: UpgradePlan) -> list[Upgrade]:
    """Return the servers to upgrade, in their order."""
    return sorted((one for one in found.servers if one.place), key=lambda one: one.place or 0)


def test_the_fewest_last_instances_come_first_and_then_the_most_idle_gpus() -> None:
    servers = (
        waits("a", last=2, idle=8),
        waits("b", last=1),
        waits("c", last=1, idle=4),
        # Nothing tells these apart but their names.
        waits("d"),
        waits("e"),
    )
    for order in itertools.permutations(servers):
        found = plan(*order)
        assert names(found) == "d e c b a"
        assert [one.place for one in ordered(found)] == [1, 2, 3, 4, 5]


def test_a_server_that_holds_a_slot_or_has_the_target_version_does_not_wait() -> None:
    found = plan(
        waits("a"),
        waits("b", holds_slot=True, maintenance="pending"),
        make_server("c", needs_upgrade=False),
    )
    assert names(found) == "a"


def test_a_server_that_cannot_come_back_is_in_no_order_and_not_late() -> None:
    # Upgrades take 4 hours. In the only slot, the 3 servers that are being upgraded now need all 12
    # hours of the window, so each server in the order is late.
    found = plan(waits("a"), waits("b", measured="not_measured"), used_slots=3)
    assert [one.server.server_id for one in found.servers if one.place is None] == ["b"]
    assert (names(found), found.late) == ("a", 1)
    # A server of which no answer decides whether it comes back stays in the order.
    assert names(plan(waits("a", measured="undecided"))) == "a"


def test_each_upgrade_takes_4_hours_in_the_slots_and_so_do_those_that_hold_one() -> None:
    # In the first 4 hours, one of the 2 slots is still taken.
    servers = [waits(name) for name in "abcd"]
    found = plan(*servers, slots=2, used_slots=1, ends_at=NOW + 8 * HOUR)
    hours = [((one.done_at or 0) - NOW) / HOUR for one in ordered(found)]
    assert hours == [4, 8, 8, 12]
    assert [one.is_late for one in ordered(found)] == [False, False, False, True]
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
        # Each slot has time for an upgrade in every 4 hours, and those that hold one now need one
        # of these times, too.
        room = max(0, hours // 4 * slots - used)
        assert found.late == max(0, count - room)


def test_an_announced_window_begins_later() -> None:
    found = plan(waits("a"), waits("b"), window=ANNOUNCED)
    assert (found.phase, found.last_done_at) == ("announced", NOW + DAY + 8 * HOUR)
    assert found.late == 0


@pytest.mark.parametrize(
    "window",
    [
        None,
        replace(OPEN, is_open=None),
        # It is announced or over.
        replace(ANNOUNCED, starts_at=None),
    ],
)
def test_of_an_unknown_window_only_that_is_said(window: Window | None) -> None:
    found = plan(waits("a"), window=window)
    assert found.unknown == ("whether a maintenance window is open or announced",)
    assert (found.phase, names(found)) == (None, "")


@pytest.mark.parametrize(
    ("window", "phase"),
    [
        (Window(is_open=False, exists=False), "none"),
        (replace(OPEN, is_open=False, ends_at=NOW - 1), "over"),
    ],
)
def test_without_a_window_nothing_is_planned_and_nothing_unknown(
    window: Window, phase: str
) -> None:
    found = plan(waits("a"), window=window)
    assert (found.phase, names(found), found.unknown) == (phase, "", ())


def test_of_an_open_window_the_start_does_not_matter() -> None:
    found = plan(waits("a"), window=replace(OPEN, starts_at=None))
    assert (found.phase, names(found), found.unknown) == ("open", "a", ())


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (waits("b", holds_slot=None), "which servers wait for their upgrade"),
        (make_server("b", needs_upgrade=None), "which servers wait for their upgrade"),
        (waits("b", measured=None), "which servers can come back with the target version"),
        # A GPU may be missing.
        (waits("b", is_whole=False), "in which order to upgrade the servers"),
        # The GPUs may be idle.
        (
            make_server("b", *make_gpus(None, 2), needs_upgrade=True),
            "in which order to upgrade the servers",
        ),
        # The instance may be the last active one of its chute.
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
    assert names(found) == ""


@pytest.mark.parametrize(
    ("field", "reason", "late", "free_slots"),
    [
        # With all fields, no server is late (0), and the only slot is free (1).
        ("ends_at", "when the window ends", None, 1),
        ("slots", "how many slots are free", None, None),
        ("used_slots", "how many slots are free", None, None),
        ("target", "to which version the servers are upgraded", 0, 1),
    ],
)
def test_what_is_unknown_of_the_window_is_named(
    field: str, reason: str, late: int | None, free_slots: int | None
) -> None:
    found = plan(waits("a"), **{field: None})
    assert found.unknown == (reason,)
    assert (found.late, found.free_slots) == (late, free_slots)


def test_without_the_list_of_servers_it_is_unknown_which_ones_wait() -> None:
    fleet = make_fleet(waits("a"), window=OPEN, known={"servers": False})
    assert find_waiting(fleet) is None
    assert plan_upgrades(fleet, NOW).late is None


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        # 2 units a second since its creation, but at most those of a day.
        ({"private": True, "created_at": NOW - 3 * HOUR}, 2 * 3 * HOUR),
        ({"private": True, "created_at": NOW - 3 * DAY}, 2 * DAY),
        ({"private": True, "state": "disabled", "created_at": NOW - HOUR}, 2 * HOUR),
        # A public one keeps its score an hour after its activation.
        ({"deadlines": {"secured": NOW - 1}}, 0),
        ({"deadlines": {"secured": NOW + 1}, "created_at": NOW - HOUR}, 2 * HOUR),
        ({"deadlines": {}}, None),
        # It has no score yet.
        ({"state": "starting", "private": True}, 0),
        ({"state": "starting", "private": None}, 0),
        ({"private": None}, None),
        ({"state": None}, None),
        ({"private": True, "created_at": None}, None),
        ({"private": True, "units_per_second": None}, None),
    ],
)
def test_a_reboot_now_loses_what_an_end_without_maintenance_loses(
    fields: dict[str, Any], lost: float | None
) -> None:
    state_of_gpus = fields.get("state", "earning")
    server = make_server("s1", *make_gpus(state_of_gpus, 2), instances=(make_instance(**fields),))
    assert lost_by_reboot(server, NOW) == lost


def test_what_a_reboot_loses_is_unknown_while_the_instance_of_a_gpu_is() -> None:
    assert lost_by_reboot(make_server("s1", *make_gpus("earning", 2)), NOW) is None


def test_a_reboot_of_a_server_without_instances_loses_nothing() -> None:
    assert lost_by_reboot(make_server("s1", *make_gpus("idle", 2)), NOW) == 0


DOWN: dict[str, Any] = {"holds_slot": True, "maintenance": "maintenance"}


@pytest.mark.parametrize(
    ("step", "server", "window"),
    [
        ("nothing", make_server("s"), OPEN),
        ("nothing", waits("s"), Window(is_open=False, exists=False)),
        ("nothing", waits("s"), replace(OPEN, is_open=False, ends_at=NOW - 1)),
        ("wait", waits("s"), ANNOUNCED),
        ("wait", waits("s"), replace(OPEN, used_slots=1)),
        ("request now", waits("s"), OPEN),
        ("do not reboot until", waits("s", holds_slot=True, maintenance="pending"), OPEN),
        (
            "do not reboot until",
            make_server("s", needs_upgrade=True, instances=(make_instance(),), **DOWN),
            OPEN,
        ),
        ("do not reboot until", make_server("s", *make_gpus(None, 2), **DOWN), OPEN),
        ("do not reboot until", waits("s", boots=False), OPEN),
        ("boot", waits("s", idle=2, **DOWN), OPEN),
        ("boot", waits("s", idle=2, **DOWN), None),
        ("cannot come back", waits("s", measured="not_measured"), OPEN),
        ("cannot come back", waits("s", measured="not_measured"), ANNOUNCED),
        ("cannot come back", waits("s", measured="not_measured", **DOWN), None),
        ("cannot come back", waits("s", measured="not_measured", boots=False), None),
        ("not known", waits("s", measured=None, **DOWN), OPEN),
        ("not known", waits("s", measured="undecided"), OPEN),
        ("not known", waits("s", holds_slot=None, maintenance=None), OPEN),
        ("not known", make_server("s", holds_slot=None, maintenance=None), None),
        ("not known", make_server("s", needs_upgrade=None), OPEN),
        ("not known", waits("s"), None),
        ("not known", waits("s"), replace(OPEN, used_slots=None)),
        ("not known", waits("s", is_whole=False), OPEN),
    ],
)
def test_each_server_has_one_step(step: str, server: Server, window: Window | None) -> None:
    (found,) = plan(server, window=window).servers
    assert found.step == step
    assert found.reason


def test_a_server_without_tee_has_no_step() -> None:
    assert plan(make_server("s", tee=False)).servers == ()
