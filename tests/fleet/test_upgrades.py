"""The order of the upgrades in a maintenance window, what they cost, and when they are done."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.fleet.answers import Window
from chutes_exporter.fleet.upgrades import (
    Upgrade,
    UpgradePlan,
    plan_upgrades,
)
from tests.fleet.support import make_fleet, make_gpus, make_instance, make_server

if TYPE_CHECKING:
    from chutes_exporter.fleet.servers import Server

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


def plan(*servers: Server, window: Window = OPEN, **changes: Any) -> UpgradePlan:
    """Return the plan for servers, in a window with other values."""
    return plan_upgrades(make_fleet(*servers, window=replace(window, **changes)), NOW)


def names(found: UpgradePlan) -> str:
    """Return the ids of the servers to upgrade, in their order."""
    return " ".join(one.server.server_id for one in ordered(found))


def ordered(found: UpgradePlan) -> list[Upgrade]:
    """Return the servers to upgrade, in their order."""
    return sorted((one for one in found.servers if one.position), key=lambda one: one.position or 0)


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
        assert [one.position for one in ordered(found)] == [1, 2, 3, 4, 5]


def test_a_server_that_cannot_come_back_is_in_no_order_and_not_late() -> None:
    # Upgrades take 4 hours. In the only slot, the 3 servers that are being upgraded now need all 12
    # hours of the window, so each server in the order is late.
    found = plan(waits("a"), waits("b", measured="not_measured"), used_slots=3)
    assert [one.server.server_id for one in found.servers if one.position is None] == ["b"]
    assert (names(found), found.late) == ("a", 1)
    # A server of which no answer decides whether it comes back stays in the order.
    assert names(plan(waits("a", measured="undecided"))) == "a"


@pytest.mark.parametrize("slots", [0, 1, 3])
@pytest.mark.parametrize("used", [0, 1, 4])
@pytest.mark.parametrize("hours", [-1, 3.9, 4, 12])
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


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        # 2 units a second since its creation, but at most those of a day.
        ({"private": True, "created_at": NOW - 3 * HOUR}, 2 * 3 * HOUR),
        ({"private": True, "created_at": NOW - 3 * DAY}, 2 * DAY),
        # A public one keeps its score an hour after its activation.
        ({"deadlines": {"secured": NOW - 1}}, 0),
        ({"deadlines": {"secured": NOW + 1}, "created_at": NOW - HOUR}, 2 * HOUR),
        ({"deadlines": {}}, None),
        # It has no score yet.
        ({"state": "starting", "private": None}, 0),
        ({"private": None}, None),
        ({"state": None}, None),
    ],
)
def test_a_reboot_now_loses_what_an_end_without_maintenance_loses(
    fields: dict[str, Any], lost: float | None
) -> None:
    state_of_gpus = fields.get("state", "earning")
    server = make_server("s1", *make_gpus(state_of_gpus, 2), instances=(make_instance(**fields),))
    assert server.lost_by_reboot(NOW) == lost


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ({"needs_upgrade": True, "measured": "undecided"}, None),
        ({"needs_upgrade": None, "measured": None}, None),
        ({"boots": False}, None),
        # These come back.
        ({"needs_upgrade": True, "measured": "measured"}, 0),
        ({"needs_upgrade": False, "measured": None}, 0),
    ],
)
def test_what_a_reboot_loses_is_unknown_of_a_server_that_may_not_come_back(
    fields: dict[str, Any], lost: float | None
) -> None:
    # Its end would cost nothing.
    instance = make_instance(deadlines={"secured": NOW - 1})
    server = make_server("s1", *make_gpus("earning", 2), instances=(instance,), **fields)
    assert server.lost_by_reboot(NOW) == lost


DOWN: dict[str, Any] = {"holds_slot": True, "maintenance": "maintenance"}


@pytest.mark.parametrize(
    ("step", "server", "window"),
    [
        ("nothing", make_server("s"), OPEN),
        ("nothing", waits("s"), replace(OPEN, is_open=False, ends_at=NOW - 1)),
        ("wait", waits("s"), ANNOUNCED),
        ("wait", waits("s"), replace(OPEN, used_slots=1)),
        ("request", waits("s"), OPEN),
        ("await_drain", waits("s", holds_slot=True, maintenance="pending"), OPEN),
        ("await_drain", make_server("s", *make_gpus(None, 2), **DOWN), OPEN),
        ("await_drain", waits("s", boots=False), OPEN),
        ("boot", waits("s", idle=2, **DOWN), Window()),
        ("cannot_return", waits("s", measured="not_measured"), OPEN),
        ("cannot_return", waits("s", measured="not_measured", **DOWN), Window()),
        ("not known", waits("s", measured=None, **DOWN), OPEN),
        ("not known", waits("s", measured="undecided"), OPEN),
        ("not known", waits("s", holds_slot=None, maintenance=None), OPEN),
        ("not known", make_server("s", needs_upgrade=None), OPEN),
        ("not known", waits("s"), Window()),
        ("not known", waits("s"), replace(OPEN, is_open=None)),
        ("not known", waits("s"), replace(OPEN, used_slots=None)),
        # The order is not known. A GPU may be missing, or an instance may be the last active one.
        ("not known", waits("s", is_complete=False), OPEN),
        (
            "not known",
            make_server(
                "s",
                *make_gpus("earning", 2),
                instances=(make_instance(has_replacement=None),),
                needs_upgrade=True,
            ),
            OPEN,
        ),
    ],
)
def test_each_server_has_one_step(step: str, server: Server, window: Window) -> None:
    (found,) = plan(server, window=window).servers
    assert found.step == step
    assert found.reason
