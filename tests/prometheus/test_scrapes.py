"""Failures between Prometheus and exporters: what they set off, and that they silence and restart nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.simulator import Simulator
from tests.prometheus.farm import Farm, Machine
from tests.prometheus.history import LEAN, Firing, Scrape, Target, check, input_series, play
from tests.support import HOTKEY, NOON, Clock, watching

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BEGINS = 10
END = 47
FIRST = "10.42.0.7:10064"
SECOND = "10.42.0.8:10064"
SHORT = f"{HOTKEY[:5]}…"


async def _watch(server_dies: bool) -> list[Scrape]:  # noqa: FBT001 - see the fixtures
    clock = Clock()
    farm = Farm(NOON, [(Machine("l40s", 4), Machine("h200", 4))])
    miner = farm.miners[0]

    def die() -> None:
        if server_dies:
            farm.end(farm.on(miner, 0, clock.now), clock.now)

    async with Simulator(farm, clock=clock) as simulator:
        return await play(watching(simulator.url, collectors=LEAN), clock, END + 1, {BEGINS: die})


@pytest.fixture(scope="session")
def well() -> list[Scrape]:
    """An hour in which nothing happens."""
    return asyncio.run(_watch(server_dies=False))


@pytest.fixture(scope="session")
def dead() -> list[Scrape]:
    """An hour in which a server with 4 of 8 GPUs dies after a quarter of an hour, and stays listed."""
    return asyncio.run(_watch(server_dies=True))


IDLE = ("ChutesGpusIdle", "warning")


def some_fail(count: int) -> Firing:
    return Firing(
        "ChutesExporterDown",
        "warning",
        {"job": "chutes"},
        f"Chutes exporter: scrapes fail (job chutes, exporters: {count})",
        f"More than 30 % of the scrapes of the past 15 minutes have failed. Affected exporters of job chutes: {count}. "
        "Alerts are late, or depend on the remaining exporters. First: `kubectl --context CONTROL -n chutes get pods "
        "-l app.kubernetes.io/name=chutes-exporter`.",
    )


UNWATCHED = Firing(
    "ChutesMinerUnwatched",
    "critical",
    {"hotkey": HOTKEY},
    f"{SHORT}: no exporter watches it",
    f"No exporter has reported about {HOTKEY} for 10 minutes. Prometheus cannot scrape the exporter that watches it, "
    "so all other alerts about this miner are silent. First: `kubectl --context CONTROL -n chutes get pods -l "
    "app.kubernetes.io/name=chutes-exporter`.",
)


def test_a_healthy_pair_of_exporters_sets_off_nothing(well: list[Scrape], tmp_path: Path) -> None:
    pair = [Target(dict(enumerate(well)), FIRST), Target(dict(enumerate(well)), SECOND)]
    check(tmp_path, input_series(pair, END), END, firing={}, ever=[])


def test_one_exporter_of_a_pair_that_is_down_is_a_warning(well: list[Scrape], tmp_path: Path) -> None:
    failing = {minute: scrape if minute < BEGINS else None for minute, scrape in enumerate(well)}
    pair = [Target(failing, FIRST), Target(dict(enumerate(well)), SECOND)]
    check(
        tmp_path,
        input_series(pair, END),
        END,
        quiet=[BEGINS],
        firing={BEGINS + 15: [some_fail(1)]},
        ever=[("ChutesExporterDown", "warning")],
    )


def test_a_miner_that_no_exporter_watches_is_critical(well: list[Scrape], tmp_path: Path) -> None:
    failing = {minute: scrape if minute < BEGINS else None for minute, scrape in enumerate(well)}
    check(
        tmp_path,
        input_series([Target(failing, FIRST), Target(failing, SECOND)], END),
        END,
        quiet=[BEGINS],
        firing={BEGINS + 15: [some_fail(2), UNWATCHED]},
        ever=[("ChutesExporterDown", "warning"), ("ChutesMinerUnwatched", "critical")],
    )


def test_an_exporter_that_leaves_the_targets_is_critical(well: list[Scrape], tmp_path: Path) -> None:
    gone = dict(enumerate(well[:BEGINS]))
    check(
        tmp_path,
        input_series([Target(gone)], END),
        END,
        quiet=[BEGINS],
        firing={BEGINS + 15: [UNWATCHED]},
        ever=[("ChutesMinerUnwatched", "critical")],
    )


def test_a_hotkey_that_is_taken_out_of_the_configuration_is_info(well: list[Scrape], tmp_path: Path) -> None:
    without = [{key: value for key, value in scrape.items() if HOTKEY not in key} for scrape in well]
    target = Target({minute: well[minute] if minute < 2 else without[minute] for minute in range(END + 1)})
    info = Firing(
        "ChutesMinerUnwatched",
        "info",
        {"hotkey": HOTKEY},
        f"{SHORT}: no exporter watches it any more",
        f"An exporter watched {HOTKEY} in the past 7 days, but no exporter watches it now. The hotkey was removed from "
        "the configuration, or its exporter has been down for more than a day. First: `kubectl --context CONTROL -n "
        "chutes get pods -l app.kubernetes.io/name=chutes-exporter`.",
    )
    check(
        tmp_path,
        input_series([target], END),
        END,
        firing={END: [info]},
        ever=[("ChutesMinerUnwatched", "info")],
    )


def test_two_of_three_scrapes_that_fail_are_a_warning_within_30_minutes_and_silence_nothing(
    dead: list[Scrape], tmp_path: Path
) -> None:
    flapping = {minute: None if minute % 3 else scrape for minute, scrape in enumerate(dead)}
    check(
        tmp_path,
        input_series([Target(flapping)], END),
        END,
        firing={30: [some_fail(1)], BEGINS + 35: [server_dead()]},
        ever=[("ChutesExporterDown", "warning"), IDLE],
    )


def server_dead() -> Firing:
    ids = {server.name: server.server_id for server in Farm(NOON, [(Machine("l40s", 4),)]).miners[0].servers}
    return Firing(
        *IDLE,
        {"hotkey": HOTKEY, "server": "l40s-0", "server_id": ids["l40s-0"], "gpu": "l40s"},
        f"{SHORT}: 4 l40s of server l40s-0 idle",
        f"On server l40s-0 of {HOTKEY}, 4 l40s are verified, but no instance has used them for 25 minutes. If all GPUs "
        "of the server are idle, the server may be dead. The API does not report that. First: `kubectl --context "
        "l40s-0 get nodes`.",
    )


@pytest.mark.parametrize(
    "targets",
    [
        lambda pages: [Target(pages)],
        lambda pages: [
            Target({minute: None if minute in (15, 22, 34, 36) else page for minute, page in pages.items()})
        ],
        lambda pages: [
            Target({minute: page for minute, page in pages.items() if minute <= 31}, FIRST, {"pod": "exporter-a"}),
            Target({minute: page for minute, page in pages.items() if minute > 31}, SECOND, {"pod": "exporter-b"}),
        ],
        # Prometheus still scrapes the old Pod for a few minutes after the new one has started.
        lambda pages: [
            Target({minute: page for minute, page in pages.items() if minute <= 33}, FIRST, {"pod": "exporter-a"}),
            Target({minute: page for minute, page in pages.items() if minute > 30}, SECOND, {"pod": "exporter-b"}),
        ],
    ],
    ids=["steady", "missed scrapes", "a new Pod", "a rolling update"],
)
def test_a_new_pod_or_a_missed_scrape_restarts_no_timer(
    dead: list[Scrape], tmp_path: Path, targets: Callable[[dict[int, Scrape]], list[Target]]
) -> None:
    check(
        tmp_path,
        input_series(targets(dict(enumerate(dead))), END),
        END,
        quiet=[BEGINS],
        # The earliest minute at which each fires, if nothing is missed.
        firing={BEGINS + 29: [server_dead()]},
        ever=[IDLE],
    )


def test_the_newest_answer_of_two_exporters_decides(dead: list[Scrape], tmp_path: Path) -> None:
    # One exporter has got no answer since the server died, and still reports the last one.
    old = {minute: dead[min(minute, BEGINS - 1)] for minute in range(END + 1)}
    pair = [Target(old, FIRST), Target(dict(enumerate(dead)), SECOND)]
    check(
        tmp_path,
        input_series(pair, END),
        END,
        quiet=[BEGINS],
        firing={BEGINS + 29: [server_dead()]},
        ever=[IDLE],
    )


def test_each_miner_is_judged_by_an_exporter_that_watches_it(well: list[Scrape], tmp_path: Path) -> None:
    # Two exporters watch a miner each, and the second always has the newer answers about the platform.
    other = "5Other"
    newer = [
        {
            name.replace(HOTKEY, other): f"{float(value) + 30:f}" if "last_success" in name else value
            for name, value in scrape.items()
        }
        for scrape in well
    ]
    seatless = {f'chutes_miner_registered{{hotkey="{HOTKEY}"}}': "0.000000"}
    assert seatless.keys() <= well[BEGINS].keys()
    first = {minute: {**scrape, **seatless} if minute >= BEGINS else scrape for minute, scrape in enumerate(well)}
    deregistered = Firing(
        "ChutesMinerDeregistered",
        "critical",
        {"hotkey": HOTKEY},
        f"{SHORT}: it has no seat",
        f"{HOTKEY} is not registered on subnet 64. It has no score, and the API refuses its requests. Its instances "
        "earn nothing. First: `btcli subnet register --netuid 64 --wallet.name COLDKEY --wallet.hotkey HOTKEY`.",
    )
    check(
        tmp_path,
        input_series([Target(first, FIRST), Target(dict(enumerate(newer)), SECOND)], 30),
        30,
        quiet=[BEGINS],
        firing={BEGINS + 4: [deregistered]},
        ever=[("ChutesMinerDeregistered", "critical")],
    )


def test_a_configuration_that_cannot_be_read_is_a_warning(well: list[Scrape], tmp_path: Path) -> None:
    bad = {"chutes_exporter_config_last_reload_successful{}": "0"}
    target = Target({minute: {**scrape, **bad} if minute >= BEGINS else scrape for minute, scrape in enumerate(well)})
    old = Firing(
        "ChutesReloadFailed",
        "warning",
        {"job": "chutes"},
        "Chutes exporter: the reload failed, the old configuration is in use (job chutes)",
        "An exporter of job chutes could not read its changed configuration. It still uses the old one, including old "
        "certificates and passwords. First: `kubectl --context CONTROL -n chutes logs deployment/chutes-exporter "
        "--since=1h`.",
    )
    check(
        tmp_path,
        input_series([target], 30),
        30,
        quiet=[BEGINS],
        firing={BEGINS + 10: [old]},
        ever=[("ChutesReloadFailed", "warning")],
    )


def test_the_watchdog_fires_always(tmp_path: Path) -> None:
    watchdog = Firing(
        "Watchdog",
        "none",
        {},
        "Prometheus and Alertmanager work",
        "This alert always fires. Send it to a dead man's switch, a service that calls you when it stops arriving. "
        "Then Prometheus, Alertmanager or the network is down.",
    )
    check(tmp_path, [{"series": "nothing", "values": "_"}], 10, firing={0: [watchdog], 10: [watchdog]}, ever=[])
