"""Troubles of single miners, each played through the exporter into the rules.

All miners are well for a quarter of an hour. Then each has its own trouble, and all are watched for 45 minutes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator import Simulator
from chutes_exporter.simulator.instances import End
from chutes_exporter.simulator.times import HOUR, MINUTE
from tests.prometheus.farm import FLEET, L40S, PRIVATE, Farm, Machine
from tests.prometheus.history import LEAN, Firing, Scrape, Target, check, input_series, play
from tests.support import NOON, Clock, watching

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chutes_exporter.simulator.instances import Instance

BEGINS = 15
END = 52
GONE, DEAD, STOPPED, UNVERIFIED, HALVED, DEREGISTERED, LAUNCHING = range(7)
"""Miners by UID, each named by its trouble."""
SMALL = (Machine("l40s", 4), Machine("h200", 4))


class Troubles(Farm):
    """A world in which all troubles begin at one moment."""

    def __init__(self) -> None:
        super().__init__(NOON, [FLEET, FLEET, SMALL, SMALL, SMALL, SMALL, (Machine("l40s", idle=8),)])
        self.miners_at_noon = [miner.hotkey for miner in self.miners]
        self.server_ids = [[server.server_id for server in miner.servers] for miner in self.miners]
        self._launch()

    def _launch(self) -> None:
        """Let a miner launch instances that do not end well."""
        miner = self.miners[LAUNCHING]
        gpus = miner.gpus
        # One never becomes active: it is purged 75 minutes from now.
        self.purged = self.launch(miner, gpus[:1], L40S, NOON + 75 * MINUTE - 3.5 * HOUR, verified=None, activated=None)
        # Two public ones are lost 20 minutes after their activation, a third one after 2 hours.
        self.early = [self.launch(miner, gpus[n : n + 1], L40S, NOON - 15 * MINUTE) for n in (1, 2)]
        self.late = self.launch(miner, gpus[3:4], L40S, NOON - 2 * HOUR)
        # A private one is disabled by its miner.
        self.private = self.launch(miner, gpus[4:5], PRIVATE, NOON - 10 * HOUR)
        self.launch(miner, gpus[5:6], PRIVATE, NOON - 10 * HOUR)
        self.launch(miner, gpus[6:8], L40S, NOON - 30 * HOUR)
        self.stuck = [miner.hotkey]

    def begin(self) -> None:
        """Let everything go wrong."""
        now = NOON + BEGINS * MINUTE - 30
        self.remove(self.miners[GONE], 0, now)
        self.end(self.on(self.miners[DEAD], 0, now), now)
        self.end(self.instances(now, self.miners[STOPPED].hotkey), now)
        self.unverify(self.miners[UNVERIFIED].gpus)
        self.end(self.instances(now, self.miners[UNVERIFIED].hotkey), now)
        self.end(self._half(self.miners[HALVED].hotkey, now), now, End.SCALED_DOWN)
        self.deregister(self.miners[DEREGISTERED])
        self.end([*self.early, self.late], now)
        self.private.disabled_at = now

    def _half(self, hotkey: str, now: float) -> Iterable[Instance]:
        """Return every second instance, of each model."""
        return self.instances(now, hotkey)[::2]


@pytest.fixture(scope="session")
def world() -> Troubles:
    return Troubles()


@pytest.fixture(scope="session")
def scrapes(world: Troubles) -> list[Scrape]:
    """One exporter watches all miners."""

    async def watch() -> list[Scrape]:
        clock = Clock()
        keys = [miner.key for miner in world.miners[: LAUNCHING + 1]]
        async with Simulator(world, clock=clock) as simulator:
            return await play(watching(simulator.url, *keys, collectors=LEAN), clock, END + 1, {BEGINS: world.begin})

    return asyncio.run(watch())


def series(world: Troubles, scrapes: list[Scrape], uid: int) -> list[dict[str, str]]:
    """Return what Prometheus has of a miner and the platform."""
    return input_series([Target(dict(enumerate(scrapes)))], END, world.miners_at_noon[uid])


def test_a_server_that_disappears_is_named_within_15_minutes(
    world: Troubles, scrapes: list[Scrape], tmp_path: Path
) -> None:
    hotkey = world.miners_at_noon[GONE]
    gone = Firing(
        "ChutesGpusGone",
        "warning",
        {"hotkey": hotkey, "server": "l40s-0", "server_id": world.server_ids[GONE][0], "gpu": "l40s"},
        f"{hotkey[:5]}…: server l40s-0 lost 8 l40s",
        f"The API no longer lists 8 l40s of server l40s-0 of {hotkey}. Their instances were deleted with them. First: "
        "`chutes-miner local-inventory`.",
    )
    check(
        tmp_path,
        series(world, scrapes, GONE),
        END,
        quiet=[BEGINS],
        firing={BEGINS + 15: [gone]},
        ever=[("ChutesGpusGone", "warning")],
    )


def test_a_dead_server_whose_gpus_stay_listed_is_named_within_35_minutes(
    world: Troubles, scrapes: list[Scrape], tmp_path: Path
) -> None:
    # Three GPUs of the fleet were idle before, which is too few for an alert.
    hotkey = world.miners_at_noon[DEAD]
    dead = Firing(
        "ChutesGpusIdle",
        "warning",
        {"hotkey": hotkey, "server": "l40s-0", "server_id": world.server_ids[DEAD][0], "gpu": "l40s"},
        f"{hotkey[:5]}…: 8 l40s of server l40s-0 idle",
        f"On server l40s-0 of {hotkey}, 8 l40s are verified, but no instance has used them for 25 minutes. If all GPUs "
        "of the server are idle, the server may be dead. The API does not report that. First: `kubectl --context "
        "l40s-0 get nodes`.",
    )
    check(
        tmp_path,
        series(world, scrapes, DEAD),
        END,
        quiet=[BEGINS, BEGINS + 24],
        firing={BEGINS + 35: [dead]},
        ever=[("ChutesGpusIdle", "warning")],
    )


def test_all_instances_that_end_are_critical_within_15_minutes(
    world: Troubles, scrapes: list[Scrape], tmp_path: Path
) -> None:
    hotkey = world.miners_at_noon[STOPPED]
    nothing = Firing(
        "ChutesMinerEarnsNothing",
        "critical",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: the miner earns nothing",
        f"{hotkey} has no instance that earns. Each hour costs 1/24 of its score. First: `chutes-miner "
        "local-inventory`, then `kubectl --context CONTROL -n chutes logs deployment/gepetto --since=1h`.",
    )
    check(
        tmp_path,
        series(world, scrapes, STOPPED),
        END,
        quiet=[BEGINS],
        firing={BEGINS + 15: [nothing]},
        ever=[("ChutesMinerEarnsNothing", "critical"), ("ChutesGpusIdle", "warning")],
    )


def test_all_gpus_that_become_unverified_are_critical_within_20_minutes(
    world: Troubles, scrapes: list[Scrape], tmp_path: Path
) -> None:
    hotkey = world.miners_at_noon[UNVERIFIED]
    unverified = Firing(
        "ChutesGpusUnverified",
        "critical",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: all GPUs are unverified",
        f"Only 0% of the GPUs of {hotkey} are verified. Launches on the others are refused, so an instance that ends "
        "cannot be replaced. First: `chutes-miner remote-inventory`.",
    )
    check(
        tmp_path,
        series(world, scrapes, UNVERIFIED),
        END,
        quiet=[BEGINS],
        firing={BEGINS + 20: [unverified]},
        ever=[
            ("ChutesGpusUnverified", "critical"),
            ("ChutesMinerEarnsNothing", "critical"),
            ("ChutesGpusUnverified", "warning"),
        ],
    )


def test_half_of_the_instances_that_end_is_a_warning_within_20_minutes(
    world: Troubles, scrapes: list[Scrape], tmp_path: Path
) -> None:
    hotkey = world.miners_at_noon[HALVED]
    halved = Firing(
        "ChutesScoreHeadingDown",
        "warning",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: the score share is heading for 0.0991%",
        f"The score share of {hotkey} is heading for 0.0991%. Over the past day, it was heading for 0.1733% on "
        "average. If nothing changes, the score share reaches the new value within a day. First: `chutes-exporter "
        "query instances`, for instances that have ended.",
    )
    check(
        tmp_path,
        series(world, scrapes, HALVED),
        END,
        quiet=[BEGINS],
        firing={BEGINS + 20: [halved]},
        ever=[("ChutesScoreHeadingDown", "warning"), ("ChutesGpusIdle", "warning")],
    )


def test_a_lost_seat_is_reported_first_and_alone(world: Troubles, scrapes: list[Scrape], tmp_path: Path) -> None:
    # Every signed request is refused from then on, with the reason not_registered.
    hotkey = world.miners_at_noon[DEREGISTERED]
    deregistered = Firing(
        "ChutesMinerDeregistered",
        "critical",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: it has no seat",
        f"{hotkey} is not registered on subnet 64. It has no score, and the API refuses its requests. Its instances "
        "earn nothing. First: `btcli subnet register --netuid 64 --wallet.name COLDKEY --wallet.hotkey HOTKEY`.",
    )
    check(
        tmp_path,
        series(world, scrapes, DEREGISTERED),
        END,
        quiet=[BEGINS],
        firing={BEGINS + 5: [deregistered]},
        ever=[("ChutesMinerDeregistered", "critical")],
    )


def test_launches_that_do_not_end_well_are_named_by_chute(
    world: Troubles, scrapes: list[Scrape], tmp_path: Path
) -> None:
    hotkey = world.miners_at_noon[LAUNCHING]
    public, private = world.chutes[L40S].chute_id, world.chutes[PRIVATE].chute_id
    purged = Firing(
        "ChutesInstancePurgeNear",
        "warning",
        {"hotkey": hotkey, "chute_id": public, "instance_id": world.purged.instance_id},
        f"{hotkey[:5]}…: an instance of l40s-model is about to be purged",
        f"An instance of l40s-model of {hotkey} has not become active. The service purges it in 40m 0s, or up to 30 "
        "minutes later. Its start-up then earns nothing. First: `kubectl --context SERVER -n chutes get pods -l "
        f"chutes/chute-id={public}`.",
    )
    at_risk = Firing(
        "ChutesPrivateInstanceAtRisk",
        "warning",
        {"hotkey": hotkey, "chute_id": private, "instance_id": world.private.instance_id},
        f"{hotkey[:5]}…: a private instance of private-model may lose 14.39k compute units",
        f"A private instance or job of private-model of {hotkey} is disabled, or has passed no probe for an hour. If "
        "it is deleted or fails, it loses all 14.39k compute units that it has scored, no matter how old it is. Do "
        f"not delete it. First: `kubectl --context SERVER -n chutes get pods -l chutes/chute-id={private}`.",
    )
    # A third instance ended at the same time, and was older than an hour.
    lost = Firing(
        "ChutesInstancesLostEarly",
        "warning",
        {"hotkey": hotkey, "chute_id": public},
        f"{hotkey[:5]}…: 2 instances of l40s-model lost within their first hour",
        f"2 instances of l40s-model of {hotkey} ended in the past 6 hours, each within its first hour. They lost all "
        "that they had scored, unless the service replaced them in a rolling update. First: `kubectl --context "
        "CONTROL -n chutes logs deployment/gepetto --since=6h`.",
    )
    stuck = Firing(
        "ChutesJobStuck",
        "info",
        {"hotkey": hotkey},
        f"{hotkey[:5]}…: stuck jobs: 1",
        f"{hotkey} holds unfinished jobs without an instance: 1. No other miner can claim them until this miner "
        "releases them. First: `chutes-exporter release-job`, which lists them.",
    )
    check(
        tmp_path,
        series(world, scrapes, LAUNCHING),
        END,
        firing={BEGINS + 20: [purged, at_risk, lost, stuck]},
        ever=[(one.name, one.severity) for one in (purged, at_risk, lost, stuck)] + [("ChutesGpusIdle", "warning")],
    )
