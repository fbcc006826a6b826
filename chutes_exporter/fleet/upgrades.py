"""The maintenance of TEE servers: the next step of each server, decided here and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, get_args

from chutes_exporter.duration import DAY
from chutes_exporter.rules.maintenance import UPGRADE_SECONDS
from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chutes_exporter.fleet.model import Fleet, Instance, Server, Window

Phase = Literal["none", "announced", "open", "over"]
"""What the newest window is at a time."""
Step = Literal[
    "cannot come back",  # It certainly does not boot with the target. Do not touch it.
    "boot",  # Nothing runs on it any more: boot it with the target.
    "do not reboot until",  # Something may run on it, and would lose its score.
    "request now",  # A slot is free for its maintenance.
    "wait",  # It needs the upgrade, but no slot is free for it yet.
    "not known",
    "nothing",
]
"""What to do with a server. The reason of the step says what "until" and "wait" mean."""
STEPS: Final[tuple[Step, ...]] = get_args(Step)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The step of a TEE server, with its upgrade if it waits for one.

    Attributes:
        reason: Why this is the step, as a sentence.
        place: Its place in the order of those that wait, from 1. None if it does not wait, or must
            not be upgraded, or while the order is unknown.
        lost_units: Compute units of the past day that the score would lose if the server was
            rebooted now. After maintenance has ended its instances, it loses none.
        done_at: Unix time at which it is done at the latest, None if that is unknown or never.
        is_late: Whether that is after the end of the window.
    """

    server: Server
    step: Step
    reason: str
    place: int | None = None
    lost_units: float | None = None
    done_at: float | None = None
    is_late: bool | None = None


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


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """The maintenance of a miner's servers at a time.

    Attributes:
        phase: None if it is unknown whether there is a window to plan for.
        window: The newest window, None if it is unknown.
        servers: Each server that may have TEE, with its step: what needs most care first.
        free_slots: Servers whose maintenance can be requested now.
        late: How many servers that may come back will not make it.
        last_done_at: When the last one is done at the latest, None if that is unknown, or if none
            waits.
        unknown: What is not known of all this, as texts.
    """

    phase: Phase | None
    window: Window | None
    servers: tuple[Upgrade, ...]
    free_slots: int | None = None
    late: int | None = None
    last_done_at: float | None = None
    unknown: tuple[str, ...] = ()


def find_waiting(fleet: Fleet) -> Waiting | None:
    """Return the servers that wait for their upgrade, None while that is unknown of one."""
    if not fleet.known.get("servers"):
        return None
    if any(server.waits_for_upgrade is None for server in fleet.servers):
        return None
    servers = tuple(server for server in fleet.servers if server.waits_for_upgrade)
    if any(server.measured is None for server in servers):
        return Waiting(servers, unmeasured=None, ordered=None)
    unmeasured = tuple(server for server in servers if server.cannot_come_back)
    others = [server for server in servers if not server.cannot_come_back]
    if any(None in (server.last_instances, server.idle_gpus) for server in others):
        return Waiting(servers, unmeasured, ordered=None)
    return Waiting(servers, unmeasured, tuple(sorted(others, key=upgrade_order)))


def upgrade_order(server: Server) -> tuple[int, int, str, str]:
    """Return the key of the order in which to upgrade servers.

    Those whose maintenance waits for the fewest instances come first. Of equal ones, those with the
    most idle GPUs, because their upgrade interrupts the least. An unknown number counts as 0.
    """
    last_instances, idle_gpus = server.last_instances or 0, server.idle_gpus or 0
    return last_instances, -idle_gpus, server.name or "", server.server_id


def plan_upgrades(fleet: Fleet, now: float) -> UpgradePlan:
    """Return the maintenance of a miner's servers at a Unix time, as far as it is known."""
    window = fleet.window
    phase = _phase(window, now)
    waiting, times, free_slots = find_waiting(fleet), None, None
    if window is not None and phase in ("announced", "open"):
        times = _Times(window, begins_at=now if phase == "open" else window.starts_at)
        if window.slots is not None and window.used_slots is not None:
            free_slots = max(0, math.floor(window.slots - window.used_slots))
    ordered = waiting.ordered if waiting is not None and times is not None else ()
    places = {server.server_id: place for place, server in enumerate(ordered or (), 1)}
    upgrades = []
    for server in fleet.servers:
        if server.tee is not False:
            place = places.get(server.server_id)
            step, reason = _step(server, phase, place, free_slots)
            upgrade = Upgrade(server, step, reason, place, lost_by_reboot(server, now))
            upgrades.append(upgrade if times is None else times.timed(upgrade))
    upgrades.sort(key=lambda one: (STEPS.index(one.step), one.place or 0, one.server.name or ""))
    plan = UpgradePlan(phase, window, tuple(upgrades), free_slots)
    if phase is None:
        return replace(plan, unknown=("whether a maintenance window is open or announced",))
    if times is None:
        return plan
    plan = replace(plan, unknown=tuple(_unknown(times.window, waiting)))
    if waiting is None or waiting.unmeasured is None:
        return plan
    # The last one of those that may come back has this place in the order.
    count = len(waiting.servers) - len(waiting.unmeasured)
    last_done_at = times.done_at(count) if count else None
    return replace(plan, late=times.late(count), last_done_at=last_done_at)


def _step(
    server: Server, phase: Phase | None, place: int | None, free_slots: int | None
) -> tuple[Step, str]:
    """Return the step of a TEE server, and why.

    ``place`` is its place in the order, None if it has none. Only "boot" and "request now" tell to
    do something that cannot be undone, so they need all that proves it safe.
    """
    # A server is upgraded while it holds a slot, and must be if its version is refused.
    is_near = phase in ("announced", "open") or server.holds_slot or server.boots is False
    if server.cannot_come_back and is_near:
        return "cannot come back", "The service lists the target version for no host like it."
    if server.holds_slot:
        return _step_in_slot(server)
    if server.boots is False:
        reason = "The service refuses its version: maintenance must end its instances first."
        return "do not reboot until", reason
    if server.holds_slot is None:
        return "not known", "The answers do not say whether it holds a slot."
    if server.needs_upgrade is False or phase in ("none", "over"):
        return "nothing", "No window is open or announced in which it needs an upgrade."
    return _step_outside_slot(server, phase, place, free_slots)


def _step_outside_slot(
    server: Server, phase: Phase | None, place: int | None, free_slots: int | None
) -> tuple[Step, str]:
    """Return the step of a server that holds no slot and may need the upgrade, and why."""
    if server.needs_upgrade is None or phase is None:
        return "not known", "The answers do not say whether it needs the upgrade of a window."
    if phase == "announced":
        return "wait", "The window is not open yet."
    if server.measured != "measured":
        return "not known", (
            "The service lists the target version for no host, the API has no GPUs of it, or the "
            "list cannot be read. So it may not come back."
        )
    if free_slots is None or place is None:
        return "not known", "The answers do not say whether a slot is free for it now."
    if place <= free_slots:
        return "request now", "A slot is free for its maintenance."
    return "wait", "No slot is free for it yet."


def _step_in_slot(server: Server) -> tuple[Step, str]:
    """Return the step of a server that holds a slot and may come back, and why."""
    if server.maintenance is None:
        return "not known", "The answers do not say whether something still runs there."
    if not is_down(server):
        reason = "Wait until its status is maintenance, and nothing runs there: at most 3 hours."
        return "do not reboot until", reason
    if server.measured != "measured":
        return "not known", "The answers do not say whether it can come back with the target."
    return "boot", "Nothing runs there any more. Boot it with the target version."


def is_down(server: Server) -> bool:
    """Return whether a server is in maintenance, and certainly nothing runs there."""
    if server.maintenance != "maintenance":
        return False
    return server.earning_instances == 0 and not server.instances


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

    def timed(self, upgrade: Upgrade) -> Upgrade:
        """Return an upgrade with its times, if it has a place in the order."""
        if upgrade.place is None:
            return upgrade
        done_at, is_late = self.done_at(upgrade.place), self.is_late(upgrade.place)
        return replace(upgrade, done_at=done_at, is_late=is_late)

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
