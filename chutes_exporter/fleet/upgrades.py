"""The upgrades of TEE servers in a maintenance window: which is next, and which are late."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chutes_exporter.duration import DAY
from chutes_exporter.rules.maintenance import UPGRADE_SECONDS
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chutes_exporter.fleet.model import Fleet, Instance, Server, Window

Phase = Literal["none", "announced", "open", "over"]
"""What the newest window is at a time."""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The upgrade of a server that waits for it.

    Attributes:
        place: Its place in the order, from 1.
        lost_units: Compute units of the past day that the score would lose if the server was
            rebooted now. After maintenance has ended its instances, it loses none.
        units_per_second: What it earns, and does not earn during the upgrade.
        done_at: Unix time at which it is done at the latest, None if that is unknown or never.
        is_late: Whether that is after the end of the window.
    """

    server: Server
    place: int
    lost_units: float | None
    units_per_second: float | None
    done_at: float | None
    is_late: bool | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The servers that wait for their upgrade.

    Attributes:
        servers: Those that are older than the target of the newest window and hold no slot.
        unmeasured: Those of them that do not boot with the target, so that they must not be
            upgraded. None while that is unknown of one.
        ordered: The others, in the order in which to upgrade them. None while that is unknown.
    """

    servers: tuple[Server, ...]
    unmeasured: tuple[Server, ...] | None
    ordered: tuple[Server, ...] | None

    @property
    def bootable(self) -> int | None:
        """The number of servers that may boot with the target, None while that is unknown."""
        return None if self.unmeasured is None else len(self.servers) - len(self.unmeasured)


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """The upgrades of a miner in the newest window, at a time.

    Attributes:
        phase: None if it is unknown whether there is a window to plan for.
        window: The newest window, None without one.
        free_slots: Servers whose maintenance can be requested now.
        waiting: None while it is unknown which servers wait.
        upgrades: Those that may come back, the next one first. None while the order is unknown.
        late: How many of them will not make it.
        last_done_at: When the last one is done at the latest, None if that is unknown, or if none
            waits.
        unknown: What is not known of all this, as texts.
    """

    phase: Phase | None
    window: Window | None = None
    free_slots: int | None = None
    waiting: Waiting | None = None
    upgrades: tuple[Upgrade, ...] | None = None
    late: int | None = None
    last_done_at: float | None = None
    unknown: tuple[str, ...] = ()

    @property
    def has_window(self) -> bool:
        """Whether there is a window in which servers can still be upgraded."""
        return self.phase in ("announced", "open")


def find_waiting(fleet: Fleet) -> Waiting | None:
    """Return the servers that wait for their upgrade, None while that is unknown of one."""
    servers = _waiting_servers(fleet)
    if servers is None:
        return None
    if any(server.measured is None for server in servers):
        return Waiting(servers, unmeasured=None, ordered=None)
    unmeasured = [server for server in servers if server.cannot_come_back]
    may_come_back = [server for server in servers if not server.cannot_come_back]
    return Waiting(servers, tuple(unmeasured), _ordered(may_come_back))


def _waiting_servers(fleet: Fleet) -> tuple[Server, ...] | None:
    """Return the servers that wait for their upgrade, in any order."""
    if not fleet.known.get("servers"):
        return None
    if any(server.waits_for_upgrade is None for server in fleet.servers):
        return None
    return tuple(server for server in fleet.servers if server.waits_for_upgrade)


def _ordered(servers: Sequence[Server]) -> tuple[Server, ...] | None:
    """Return servers in the order in which to upgrade them, None while that is unknown."""
    if any(None in (server.last_instances, server.idle_gpus) for server in servers):
        return None
    return tuple(sorted(servers, key=upgrade_order))


def upgrade_order(server: Server) -> tuple[int, int, str, str]:
    """Return the key of the order in which to upgrade servers.

    Those whose maintenance waits for the fewest instances come first. Of equal ones, those with the
    most idle GPUs, because their upgrade interrupts the least. An unknown number counts as 0.
    """
    last_instances, idle_gpus = server.last_instances or 0, server.idle_gpus or 0
    return last_instances, -idle_gpus, server.name or "", server.server_id


def plan_upgrades(fleet: Fleet, now: float) -> UpgradePlan:
    """Return the upgrades of a miner at a Unix time, with everything that is known of them."""
    window = fleet.window
    phase = _phase(window, now)
    if window is None or phase is None:
        return UpgradePlan(
            None, window, unknown=("whether a maintenance window is open or announced",)
        )
    if phase in ("none", "over"):
        return UpgradePlan(phase, window)
    waiting = find_waiting(fleet)
    # The number of servers to upgrade. The last one of them has this place in the order.
    count = None if waiting is None else waiting.bootable
    times = _Times(window, begins_at=now if phase == "open" else window.starts_at)
    return UpgradePlan(
        phase=phase,
        window=window,
        free_slots=_free_slots(window),
        waiting=waiting,
        upgrades=_upgrades(waiting, times, now),
        late=None if count is None else times.late(count),
        last_done_at=times.done_at(count) if count else None,
        unknown=tuple(_unknown(window, waiting)),
    )


def _phase(window: Window | None, now: float) -> Phase | None:
    """Return what the newest window is at a Unix time, None if that is unknown."""
    if window is None or window.is_open is None:
        return None
    if not window.exists:
        return "none"
    if window.is_open:
        return "open"
    if window.starts_at is None:
        return None
    return "announced" if window.starts_at > now else "over"


def _free_slots(window: Window) -> int | None:
    if window.slots is None or window.used_slots is None:
        return None
    return max(0, math.floor(window.slots - window.used_slots))


@dataclass(frozen=True, slots=True)
class _Times:
    """When upgrades that begin at a time are done in the slots of a window."""

    window: Window
    begins_at: float | None

    def done_at(self, place: int) -> float | None:
        """Return when the server with a place in the order is done at the latest.

        ``place`` counts from 1. A server that already holds a slot is counted as if its upgrade
        began with the first of the others, so no time is too early. None is unknown, or never,
        because the window has no slots.
        """
        slots, used = self.window.slots, self.window.used_slots
        if self.begins_at is None or slots is None or used is None or slots < 1:
            return None
        rounds = math.ceil((used + place) / slots)
        return self.begins_at + rounds * UPGRADE_SECONDS

    def is_late(self, place: int) -> bool | None:
        """Return whether the server with a place in the order is done after the end of the window.

        In a window without slots, it is never done. None is unknown.
        """
        if self.window.slots is not None and self.window.slots < 1:
            return True
        done_at, ends_at = self.done_at(place), self.window.ends_at
        if done_at is None or ends_at is None:
            return None
        return done_at > ends_at

    def late(self, count: int) -> int | None:
        """Return how many servers of a number will not make it, None while that is unknown."""
        are_late = [self.is_late(place) for place in range(1, count + 1)]
        return None if None in are_late else are_late.count(True)


def _upgrades(waiting: Waiting | None, times: _Times, now: float) -> tuple[Upgrade, ...] | None:
    """Return the upgrades of the servers that wait, None while their order is unknown."""
    if waiting is None or waiting.ordered is None:
        return None
    upgrades = []
    for place, server in enumerate(waiting.ordered, 1):
        upgrade = Upgrade(
            server=server,
            place=place,
            lost_units=lost_by_reboot(server, now),
            units_per_second=server.earned_units_per_second,
            done_at=times.done_at(place),
            is_late=times.is_late(place),
        )
        upgrades.append(upgrade)
    return tuple(upgrades)


def lost_by_reboot(server: Server, now: float) -> float | None:
    """Return about how many compute units of the past day the score would lose if a server was
    rebooted now, None while that is unknown.
    """
    instances = server.known_instances
    if instances is None:
        return None
    return total(_lost_units(instance, now) for instance in instances)


def _lost_units(instance: Instance, now: float) -> float | None:
    """Return the compute units of the past day that an instance loses if it ends without
    maintenance, None if they are unknown.

    This is an estimate, as if the instance had earned its present pay since its creation.
    """
    if instance.earns is None:
        return None
    is_secured = _is_secured(instance, now)
    if not instance.earns or is_secured:
        # A starting instance has no score to lose, and a secured one keeps it.
        return 0.0
    if is_secured is None or instance.created_at is None or instance.units_per_second is None:
        return None
    age = min(max(0.0, now - instance.created_at), DAY)
    return instance.units_per_second * age


def _is_secured(instance: Instance, now: float) -> bool | None:
    """Return whether an instance keeps its score at any end, None if that is unknown.

    A private one never does.
    """
    if instance.private:
        return False
    secured_at = instance.deadlines.get("secured")
    return None if secured_at is None else secured_at <= now


def _unknown(window: Window, waiting: Waiting | None) -> Iterator[str]:
    """Yield what is not known of the upgrades in a window."""
    if window.ends_at is None:
        yield "when the window ends"
    if window.target is None:
        yield "to which version the servers are upgraded"
    if window.slots is None or window.used_slots is None:
        yield "how many slots are free"
    if waiting is None:
        yield "which servers wait for their upgrade"
    elif waiting.unmeasured is None:
        yield "which servers can come back with the target version"
    elif waiting.ordered is None:
        yield "in which order to upgrade the servers"
