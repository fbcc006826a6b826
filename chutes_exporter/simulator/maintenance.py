"""Maintenance windows of TEE servers, and when each server takes its upgrade slot.

A window opens every ten days, the first one some hours before the world's start. The servers of a miner take its slot
one after another, and boot with the target version a few hours later. Some miss a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chutes_exporter.simulator.naming import make_random
from chutes_exporter.simulator.times import DAY, HOUR

SLOTS: Final = 1
"""Servers of a miner that may be upgraded at once."""
_PERIOD: Final = 10 * DAY
_LENGTH: Final = 4 * DAY
_OPEN_AT_START: Final = 15 * HOUR
_TURN: Final = 12 * HOUR
_MISSING: Final = 0.25


@dataclass(frozen=True)
class Window:
    """A time in which TEE servers are upgraded.

    Attributes:
        number: Counts the windows of a world, from 0.
        opens_at: Unix time.
    """

    number: int
    opens_at: float

    @property
    def closes_at(self) -> float:
        """Unix time at which it is over."""
        return self.opens_at + _LENGTH

    @property
    def target(self) -> str:
        """The version that servers are upgraded to."""
        return f"0.{3 + self.number}.0"


def latest_window(start: float, now: float) -> Window | None:
    """Return the newest window of a world that has opened, whether it is still open or not; None before the first.

    Args:
        start: The world's start.
        now: Unix time.
    """
    first = start - _OPEN_AT_START
    number = int((now - first) // _PERIOD)
    return Window(number, first + number * _PERIOD) if number >= 0 else None


def is_older(version: str, other: str) -> bool:
    """Tell whether a version is older than another."""
    return tuple(map(int, version.split("."))) < tuple(map(int, other.split(".")))


@dataclass(frozen=True)
class Upgrade:
    """The time that a server spends on its upgrade.

    Attributes:
        window: The window of the upgrade.
        begins_at: When it takes the slot, which deletes its instances.
        ends_at: When it boots with the target version.
    """

    window: Window
    begins_at: float
    ends_at: float


@dataclass(frozen=True)
class Upgrades:
    """All upgrades of a TEE server.

    Attributes:
        start: The world's start.
        seed: Seed of the upgrades, which is the miner's.
        number: The server's place among the miner's TEE servers.
        version: The version before the first upgrade.
    """

    start: float
    seed: str
    number: int
    version: str

    def until(self, now: float) -> list[Upgrade]:
        """Return the upgrades that have begun, oldest first."""
        newest = latest_window(self.start, now)
        found: list[Upgrade] = []
        for number in range(0 if newest is None else newest.number + 1):
            upgrade = self._in(Window(number, self.start - _OPEN_AT_START + number * _PERIOD))
            version = found[-1].window.target if found else self.version
            if upgrade is not None and upgrade.begins_at <= now and is_older(version, upgrade.window.target):
                found.append(upgrade)
        return found

    def _in(self, window: Window) -> Upgrade | None:
        """Return the upgrade in a window, None where the server misses the window."""
        draw = make_random(self.seed, window.number, self.number)
        turn = self.number + make_random(self.seed, window.number).randrange(2)
        begins = window.opens_at + turn * _TURN + draw.uniform(0, HOUR)
        ends = begins + draw.uniform(3, 10) * HOUR
        missed = draw.random() < _MISSING or ends > window.closes_at
        return None if missed else Upgrade(window, begins, ends)

    def version_at(self, now: float) -> str:
        """Return the version that the server has booted with."""
        done = [upgrade for upgrade in self.until(now) if upgrade.ends_at <= now]
        return done[-1].window.target if done else self.version

    def under_way(self, now: float) -> bool:
        """Tell whether the server holds a slot."""
        return any(now < upgrade.ends_at for upgrade in self.until(now))
