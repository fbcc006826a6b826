"""A healthy day, and troubles that take a day."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator import Fault, Simulator
from chutes_exporter.simulator.instances import End
from chutes_exporter.simulator.times import HOUR, MINUTE
from tests.prometheus.farm import FULL, L40S, Farm, Machine
from tests.prometheus.history import LEAN, Firing, Scrape, Target, check, input_series, play
from tests.support import NOON, Clock, endpoint_names, watching

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = 24 * 60
"""Minutes."""
SMALL = (Machine("l40s", 4), Machine("h200", 4))
FEW = {**LEAN, "chutes": False, "jobs": False}
BEGINS = 10
FALLS = 6 * 60
LONG = DAY + 120
FALLING, FORGOTTEN, NEWCOMER, RISING, LAST, BANNED, EVICTED = range(7)
"""Miners by UID, each named by its trouble. The first two are watched with their keys."""


class LongTroubles(Farm):
    """A world in which nobody does anything about the troubles of the first minutes."""

    def __init__(self) -> None:
        forgotten = (Machine("l40s", 2), Machine("h200", 2), Machine("4090", 2))
        some = (Machine("l40s", 2),)
        super().__init__(
            NOON,
            [(Machine("l40s", 7), Machine("l40s", 3)), forgotten, (), (Machine("l40s", 2, idle=2),), (), some, some],
            FULL,
        )
        self.miners[NEWCOMER].registered_at = NOON - 12 * HOUR
        self.miners[RISING].registered_at = NOON - 30 * HOUR
        for gpu in self.miners[RISING].gpus:
            self.launch(self.miners[RISING], [gpu], L40S, NOON - HOUR)
        self.hotkeys = [miner.hotkey for miner in self.miners]
        self.server_ids = [server.server_id for server in self.miners[FORGOTTEN].servers]

    def begin(self) -> None:
        """Let everything go wrong."""
        now = NOON + BEGINS * MINUTE - 30
        forgotten = self.miners[FORGOTTEN]
        self.end(self.instances(now, forgotten.hotkey), now)
        self.unverify(forgotten.servers[1].gpus)
        self.upgrade(forgotten, 2, now)
        self.miners[BANNED].blacklist_reason = 'spoofed "GPUs"'
        self.deregister(self.miners[EVICTED])

    def fall(self) -> None:
        """End 3 of 10 instances, so that a score falls by 30 % within a day."""
        now = NOON + FALLS * MINUTE - 30
        self.end(self.on(self.miners[FALLING], 1, now), now)


@pytest.fixture(scope="session")
def troubled() -> LongTroubles:
    return LongTroubles()


@pytest.fixture(scope="session")
def long(troubled: LongTroubles) -> list[Scrape]:
    """A day and two hours of these miners."""

    async def watch() -> list[Scrape]:
        clock = Clock()
        async with Simulator(troubled, clock=clock) as simulator:
            settings = watching(
                simulator.url,
                *(miner.key for miner in troubled.miners[:NEWCOMER]),
                hotkeys=troubled.hotkeys[NEWCOMER : EVICTED + 1],
                collectors=FEW,
            )
            return await play(settings, clock, LONG + 1, {BEGINS: troubled.begin, FALLS: troubled.fall}, every=10)

    return asyncio.run(watch())


@pytest.fixture(scope="session")
def healthy() -> list[Scrape]:
    """A day as it usually is, in which nothing is wrong."""
    clock = Clock()
    farm = Farm(NOON, [SMALL])
    miner = farm.miners[0]
    happens: dict[int, Callable[[], None]] = {}

    def relaunch(gpu: int, minute: int, end: End, pause: int) -> None:
        """End an instance, and launch another one some minutes later."""
        gpus = miner.gpus[gpu : gpu + 1]
        (old,) = (one for one in farm.instances(NOON, miner.hotkey) if gpus[0] in one.gpus)
        chute = farm.chutes.index(old.chute)
        happens[minute] = lambda: farm.end([old], clock.now, end)
        farm.launch(miner, gpus, chute, NOON + (minute + pause) * MINUTE)

    async def watch() -> list[Scrape]:
        async with Simulator(farm, clock=clock) as simulator:
            # Chutes need fewer instances, or have a new version. The miner launches others.
            relaunch(0, 2 * 60, End.SCALED_DOWN, 12)
            relaunch(1, 6 * 60, End.UPDATED, 3)
            relaunch(2, 10 * 60, End.SCALED_DOWN, 20)
            relaunch(5, 15 * 60, End.UPDATED, 8)
            # A server is upgraded within half an hour.
            happens[18 * 60] = lambda: farm.upgrade(miner, 0, clock.now)
            happens[18 * 60 + 30] = lambda: farm.upgraded(miner, 0)
            for gpu in miner.servers[0].gpus:
                farm.launch(miner, (gpu,), L40S, NOON + (18 * 60 + 35) * MINUTE)
            # The API is down for 8 minutes, and sends a short list once.
            happens[12 * 60] = lambda: simulator.faults.update(dict.fromkeys(endpoint_names(), Fault(status=502)))
            happens[12 * 60 + 8] = simulator.faults.clear
            happens[13 * 60] = lambda: simulator.faults.update(nodes=Fault(records=3, times=1))
            return await play(watching(simulator.url, collectors=FEW), clock, DAY + 1, happens, every=5)

    return asyncio.run(watch())


def test_a_healthy_day_sets_off_nothing(healthy: list[Scrape], tmp_path: Path) -> None:
    scraped = {minute: None if minute % 97 == 96 else scrape for minute, scrape in enumerate(healthy)}
    check(tmp_path, input_series([Target(scraped)], DAY), DAY, firing={}, ever=[], every=2)


def of(troubled: LongTroubles, long: list[Scrape], uid: int) -> list[dict[str, str]]:
    """Return what Prometheus has of a miner and the platform."""
    return input_series([Target(dict(enumerate(long)))], LONG, troubled.hotkeys[uid])


def test_a_score_that_falls_by_30_percent_over_a_day_is_a_warning_within_80_minutes(
    troubled: LongTroubles, long: list[Scrape], tmp_path: Path
) -> None:
    hotkey = troubled.hotkeys[FALLING]
    falling = Firing(
        "ChutesScoreHeadingDown",
        "warning",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: the score share is heading for 0.0826%",
        f"The score share of {hotkey} is heading for 0.0826%. Over the past day, it was heading for 0.1121% on "
        "average. If nothing changes, the score share reaches the new value within a day. First: `chutes-exporter "
        "query instances`, for instances that have ended.",
    )
    check(
        tmp_path,
        of(troubled, long, FALLING),
        LONG,
        quiet=[FALLS],
        firing={FALLS + 80: [falling]},
        ever=[
            ("ChutesScoreHeadingDown", "warning"),
            ("ChutesGpusIdle", "warning"),
            ("ChutesGpuHoursLost", "info"),
        ],
        every=10,
    )


def test_a_condition_that_lasts_for_a_day_becomes_info(
    troubled: LongTroubles, long: list[Scrape], tmp_path: Path
) -> None:
    hotkey = troubled.hotkeys[FORGOTTEN]
    l40s, h200, rtx4090 = troubled.server_ids

    def on(server: str, server_id: str, gpu: str) -> dict[str, str]:
        return {"hotkey": hotkey, "server": server, "server_id": server_id, "gpu": gpu}

    idle = Firing(
        "ChutesGpusIdle",
        "info",
        on("l40s-0", l40s, "l40s"),
        f"{hotkey[:5]}…: 2 l40s of server l40s-0 idle for a day",
        f"On server l40s-0 of {hotkey}, 2 l40s have not been used by an instance for a day. First: `chutes-miner "
        "local-inventory`.",
    )
    upgraded = Firing(
        "ChutesGpusIdle",
        "info",
        on("4090-2", rtx4090, "4090"),
        f"{hotkey[:5]}…: 2 4090 of server 4090-2 idle for a day",
        f"On server 4090-2 of {hotkey}, 2 4090 have not been used by an instance for a day. First: `chutes-miner "
        "local-inventory`.",
    )
    unverified = Firing(
        "ChutesGpusUnverified",
        "info",
        on("h200-1", h200, "h200"),
        f"{hotkey[:5]}…: 2 h200 of server h200-1 unverified for a day",
        f"On server h200-1 of {hotkey}, 2 h200 have not been verified for a day. First: `chutes-miner "
        "remote-inventory`.",
    )
    nothing = Firing(
        "ChutesMinerEarnsNothing",
        "info",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: the miner has earned nothing for a day",
        f"{hotkey} has had no earning instance for a day, but had one in the past 7 days. First: `chutes-miner "
        "local-inventory`.",
    )
    hours = Firing(
        "ChutesGpuHoursLost",
        "info",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: 144 GPU-hours lost in a day",
        f"In the past day, no instance used the GPUs of {hotkey} for 144 GPU-hours. This is more than 10 % of all "
        "GPU-hours of the fleet. First: find the servers on the Fleet board.",
    )
    maintenance = Firing(
        "ChutesServerInMaintenance",
        "warning",
        {"hotkey": hotkey, "server": "4090-2", "server_id": rtx4090},
        f"{hotkey[:5]}…: server 4090-2 has been in maintenance for 3 hours",
        f"Server 4090-2 of {hotkey} has held an upgrade slot for 3 hours. Its instances were deleted. It gets new ones "
        "after it boots with the target version. First: `chutes-miner tee maintenance-status`.",
    )
    check(
        tmp_path,
        of(troubled, long, FORGOTTEN),
        LONG,
        firing={230: [maintenance], LONG: [idle, upgraded, unverified, nothing, hours]},
        ever=[
            *((one.name, "info") for one in (idle, unverified, nothing, hours)),
            *((one.name, "warning") for one in (idle, unverified, maintenance)),
            (nothing.name, "critical"),
        ],
        every=10,
    )


def test_a_seat_with_nobody_behind_it_is_critical_once_it_is_a_day_old(
    troubled: LongTroubles, long: list[Scrape], tmp_path: Path
) -> None:
    # The seat is 12 hours old at noon.
    hotkey = troubled.hotkeys[NEWCOMER]
    check(
        tmp_path,
        of(troubled, long, NEWCOMER),
        LONG,
        quiet=[DAY // 2 - 10],
        firing={DAY // 2 + 90: [seat_at_risk(hotkey)]},
        ever=[("ChutesMinerSeatAtRisk", "critical")],
        every=10,
    )


def seat_at_risk(hotkey: str) -> Firing:
    return Firing(
        "ChutesMinerSeatAtRisk",
        "critical",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: the seat is at risk, seats with a lower incentive: 0",
        f"All seats of the subnet are taken, and 0 of them have a lower incentive than {hotkey}. Newcomers take the "
        "seats with the lowest incentive. Its score share is not about to recover. First: `chutes-miner "
        "remote-inventory`, for GPUs that earn nothing.",
    )


def test_an_old_seat_with_nobody_behind_it_is_critical(
    troubled: LongTroubles, long: list[Scrape], tmp_path: Path
) -> None:
    check(
        tmp_path,
        of(troubled, long, LAST),
        LONG,
        quiet=[50],
        firing={90: [seat_at_risk(troubled.hotkeys[LAST])]},
        ever=[("ChutesMinerSeatAtRisk", "critical")],
        every=10,
    )


def test_a_seat_whose_score_heads_up_is_silent(troubled: LongTroubles, long: list[Scrape], tmp_path: Path) -> None:
    # Its instances are an hour old, so it has no incentive yet.
    behind = f'chutes_miner_seats_behind{{hotkey="{troubled.hotkeys[RISING]}"}}'
    assert float(long[0][behind]) == 0
    assert float(long[LONG][behind]) > 200
    check(tmp_path, of(troubled, long, RISING), LONG, firing={}, ever=[], every=10)


def test_a_blacklisted_miner_is_critical_and_info_after_a_day(
    troubled: LongTroubles, long: list[Scrape], tmp_path: Path
) -> None:
    hotkey = troubled.hotkeys[BANNED]
    banned = Firing(
        "ChutesMinerBlacklisted",
        "critical",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: it is blacklisted",
        f'{hotkey} is blacklisted: it has no score, and its launches are refused. Reason: spoofed "GPUs". First: '
        "ask the operators of the subnet.",
    )
    still = Firing(
        "ChutesMinerBlacklisted",
        "info",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: it has been blacklisted for a day",
        f'{hotkey} has been blacklisted for a day. Reason: spoofed "GPUs". First: ask the operators of the subnet.',
    )
    check(
        tmp_path,
        of(troubled, long, BANNED),
        LONG,
        firing={30: [banned], LONG: [still]},
        ever=[("ChutesMinerBlacklisted", "critical"), ("ChutesMinerBlacklisted", "info")],
        every=10,
    )


def test_a_seat_that_has_been_lost_for_a_day_is_info(
    troubled: LongTroubles, long: list[Scrape], tmp_path: Path
) -> None:
    hotkey = troubled.hotkeys[EVICTED]
    lost = Firing(
        "ChutesMinerDeregistered",
        "info",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: it has had no seat for a day",
        f"{hotkey} has not been registered on subnet 64 for a day. First: register it again, or remove it from the "
        "exporter's configuration.",
    )
    check(
        tmp_path,
        of(troubled, long, EVICTED),
        LONG,
        firing={LONG: [lost]},
        ever=[("ChutesMinerDeregistered", "critical"), ("ChutesMinerDeregistered", "info")],
        every=10,
    )
