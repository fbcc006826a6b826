"""The maintenance of TEE servers: the next step of each server, decided here and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

from chutes_exporter.rules.maintenance import UPGRADE_SECONDS

if TYPE_CHECKING:
    from typing import Self

    from chutes_exporter.fleet.answers import Phase, Window
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.fleet.servers import Server

Step = Literal[
    "cannot_return",  # It certainly does not boot with the target. Ask the operators.
    "boot",  # Nothing runs on it any more: boot it with the target.
    "await_drain",  # Something may run on it, and would lose its score.
    "request",  # A slot is free for its maintenance.
    "wait",  # It needs the upgrade, but no slot is free for it yet.
    "not known",
    "nothing",
]
"""What to do with a server. The reason of the step says what "until" and "wait" mean."""
STEPS: Final[tuple[Step, ...]] = get_args(Step)
_NOT_LISTED: Final = "The service lists the target version for no host with its GPUs."


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The step of a TEE server, with its upgrade if it waits for one.

    Attributes:
        reason: Why this is the step, as a sentence.
        position: Its position among those that wait, from 1. None if it does not wait, or must not
            be upgraded, or while the order is unknown.
        slots: None if they are unknown, or no window is open or announced.
    """

    server: Server
    step: Step
    reason: str
    position: int | None
    slots: Slots | None

    @property
    def done_at(self) -> float | None:
        """Unix time at which it is done at the latest, None if that is unknown or never.

        A server that already holds a slot is counted as if its upgrade began with the first of the
        others, so no time is too early. Without slots, it is never done.
        """
        if self.position is None or self.slots is None or self.slots.number < 1:
            return None
        rounds = math.ceil((self.slots.used + self.position) / self.slots.number)
        return self.slots.begins_at + rounds * UPGRADE_SECONDS

    @property
    def is_late(self) -> bool | None:
        """Whether it is done after the end of the window or never, None if that is unknown."""
        if self.position is None or self.slots is None or self.slots.ends_at is None:
            return None
        return self.done_at is None or self.done_at > self.slots.ends_at

    @property
    def urgency(self) -> tuple[int, int, str]:
        """What sorts steps: what needs most care first."""
        return STEPS.index(self.step), self.position or 0, self.server.name or ""


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """The maintenance of a miner's servers at a time.

    Attributes:
        phase: None if it is unknown whether there is a window to plan for.
        servers: Each server that may have TEE, with its step: what needs most care first.
        slots: None if they are unknown, or no window is open or announced.
        order_is_known: Whether it is known which servers wait, and in which order.
    """

    phase: Phase | None
    servers: tuple[Upgrade, ...]
    slots: Slots | None
    order_is_known: bool

    @property
    def late(self) -> int | None:
        """How many servers that may come back will not make it, None while that is unknown."""
        are_late = [upgrade.is_late for upgrade in self.servers if upgrade.position is not None]
        if not self.order_is_known or None in are_late:
            return None
        return are_late.count(True)


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots of a window in which upgrades can begin at a time."""

    number: float
    used: float
    begins_at: float
    ends_at: float | None

    @classmethod
    def of(cls, window: Window, now: float) -> Self | None:
        """Return the slots of a window that is open or announced, None if they are unknown."""
        begins_at = {"open": now, "announced": window.starts_at}.get(window.phase(now) or "")
        if begins_at is None or window.slots is None or window.used_slots is None:
            return None
        return cls(window.slots, window.used_slots, begins_at, window.ends_at)

    @property
    def free(self) -> int:
        """Servers whose maintenance can be requested now."""
        return max(0, math.floor(self.number - self.used))


def plan_upgrades(fleet: Fleet, now: float) -> UpgradePlan:
    """Return the maintenance of a miner's servers at a Unix time, as far as it is known."""
    phase, slots = fleet.window.phase(now), Slots.of(fleet.window, now)
    order = [] if phase in ("none", "over") else _order(fleet)
    positions = {server_id: position for position, server_id in enumerate(order or (), 1)}
    upgrades = []
    for server in fleet.servers:
        if server.tee is not False:
            position = positions.get(server.server_id)
            step, reason = _step(server, phase, position, slots)
            upgrades.append(Upgrade(server, step, reason, position, slots))
    upgrades.sort(key=lambda upgrade: upgrade.urgency)
    return UpgradePlan(phase, tuple(upgrades), slots, order is not None)


def _order(fleet: Fleet) -> list[str] | None:
    """Return the ids of the servers that wait for their upgrade and may come back, in the order in
    which to upgrade them, None while that is unknown.

    Those whose maintenance waits for the fewest instances come first. Of equal ones, those with the
    most unused GPUs, because their upgrade interrupts the least.
    """
    waiting = []
    for server in fleet.servers:
        if server.waits_for_upgrade is False or server.cannot_come_back:
            continue
        last_instances, unused_gpus = server.last_instances, server.unused_gpus
        facts = (server.waits_for_upgrade, server.measured, last_instances)
        if None in facts or unused_gpus is None:
            return None
        waiting.append((last_instances, -unused_gpus, server.name, server.server_id))
    if not fleet.known.get("servers"):
        return None
    return [server_id for *_, server_id in sorted(waiting)]


def _step(
    server: Server, phase: Phase | None, position: int | None, slots: Slots | None
) -> tuple[Step, str]:
    """Return the step of a TEE server, and why.

    ``position`` is that in the order, None if it has none. Only "boot" and "request" tell to do
    something that cannot be undone, so they need all that proves it safe.
    """
    if server.holds_slot:
        return _step_in_slot(server)
    if server.cannot_come_back and (server.boots is False or phase in ("announced", "open")):
        return "cannot_return", _NOT_LISTED
    if server.boots is False:
        reason = "The service refuses its version: maintenance must end its instances first."
        return "await_drain", reason
    if server.holds_slot is None:
        return "not known", "The answers do not say whether it holds a slot."
    if server.needs_upgrade is False or phase in ("none", "over"):
        return "nothing", "No window is open or announced in which it needs an upgrade."
    return _step_outside_slot(server, phase, position, slots)


def _step_outside_slot(
    server: Server, phase: Phase | None, position: int | None, slots: Slots | None
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
    if slots is None or position is None:
        return "not known", "The answers do not say whether a slot is free for it now."
    if position <= slots.free:
        return "request", "A slot is free for its maintenance."
    return "wait", "No slot is free for it yet."


def _step_in_slot(server: Server) -> tuple[Step, str]:
    """Return the step of a server that holds a slot, and why."""
    if server.cannot_come_back:
        refused = " It refuses the boot until its operators list it." if server.is_down else ""
        return "cannot_return", f"{_NOT_LISTED}{refused}"
    if server.maintenance is None:
        return "not known", "The answers do not say whether something still runs there."
    if not server.is_down:
        reason = "Wait until its status is maintenance, and nothing runs there: at most 3 hours."
        return "await_drain", reason
    if server.measured != "measured":
        return "not known", "The answers do not say whether it can come back with the target."
    return "boot", "Nothing runs there any more. Boot it with the target version."
