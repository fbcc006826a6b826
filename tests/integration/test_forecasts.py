"""The forecasts of score and pay, tested on weeks that the simulator lives through."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Final

import pytest

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.duration import DAY, HOUR
from chutes_exporter.simulator import Simulator, Size, World
from tests.grafana.timeline import RECORDINGS, Timeline
from tests.support import NOON, Clock, Prometheus, get, patient, served_exporter, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support import Labels

LOG: Final = logging.getLogger(__name__)
"""Gets the figures: `pytest -m soak -p no:xdist -o log_cli=true` prints them."""
SEEDS: Final = (1, 2, 64)
DAYS: Final = 20
"""Bounds need 15 days of history, and a day to become true."""
START: Final = NOON - 4 * DAY
"""The instances of a world begin 8 days before noon, and a score looks back a day."""
SIZE: Final = Size(miners=64, active_miners=20, chutes=150, other_servers=4)
COLLECTORS_NEEDED: Final = ("metagraph", "scores", "score_heading", "chain", "earnings")
SCORE: Final = "hotkey:chutes_miner_score_ratio:in24h"
PAY: Final = "hotkey:chutes_miner_estimated_usd:next24h"
BOUNDS: Final = "hotkey_bound:chutes_miner_score_ratio:in24h"
RULES: Final = [
    rule
    for rule in RECORDINGS
    if "score_heading_ratio" in rule["record"] or "24h" in rule["record"]
]
"""The committed recordings that forecasts are made of."""
QUERIES: Final = {
    "score": "max by (hotkey) (chutes_miner_score_ratio)",
    "heading": "hotkey:chutes_miner_score_heading_ratio:max",
    "score in 24 h": SCORE,
    # As a share of the pay of all miners, which the simulator does not change.
    "pay of 24 h": f"{PAY} / on () group_left () "
    "(max(chutes_subnet_emission_alpha_per_day) * on () max(chutes_alpha_price_usd))",
    "pay": "max by (hotkey) (chutes_miner_incentive_ratio)",
    "lower": f'sum without (bound) ({BOUNDS}{{bound="lower"}})',
    "upper": f'sum without (bound) ({BOUNDS}{{bound="upper"}})',
}

Values = dict[str, float]
"""By hotkey."""


@dataclass
class History:
    """What Prometheus answered to `QUERIES` in each hour, by the query's name."""

    hours: list[dict[str, Values]] = field(default_factory=list)

    def pairs(self, name: str, day: int) -> Iterator[tuple[int, str]]:
        """Yield the hours of a day with the miners that have a value."""
        for hour in range(24 * day, 24 * day + 24):
            for hotkey in sorted(self.hours[hour][name]):
                yield hour, hotkey

    def pay_of_next_day(self, hour: int, hotkey: str) -> float | None:
        """Return the mean share of all pay in the next 24 hours, None if an hour is unknown."""
        shares = [self.hours[later]["pay"].get(hotkey) for later in range(hour + 1, hour + 25)]
        known = [share for share in shares if share is not None]
        return fmean(known) if len(known) == len(shares) else None

    def score_of_next_day(self, hour: int, hotkey: str) -> float | None:
        """Return the score share 24 hours later, None without one."""
        return self.hours[hour + 24]["score"].get(hotkey)


@dataclass(frozen=True)
class Errors:
    """Mean absolute errors of three forecasts of a score share or of the pay: the one of the
    rules, "it stays the present score share", and "it becomes the heading".
    """

    forecast: float
    as_now: float
    heading: float

    def __str__(self) -> str:
        forecast, heading = self.forecast / self.as_now, self.heading / self.as_now
        return f"A {self.as_now:.6f}; forecast {forecast:.3f} and heading {heading:.3f} of it"


def of_hotkeys(found: Mapping[Labels, float]) -> Values:
    return {dict(labels)["hotkey"]: number for labels, number in found.items()}


async def live(seed: int, directory: Path) -> History:
    """Scrape an exporter in each hour of some weeks, evaluate the recordings, and return the
    answers to `QUERIES`.

    The seed makes the world. The directory is for the files of Prometheus.
    """
    world, clock, history = World(seed=seed, start=NOON, size=SIZE), Clock(START), History()
    watched = [miner.hotkey for miner in world.miners[: SIZE.active_miners]]
    async with contextlib.AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(world, clock=clock))
        settings = patient(
            simulator.url,
            chain_url=simulator.chain_url,
            keys=[world.miners[0].key],
            hotkeys=watched,
            collectors={one.name: one.name in COLLECTORS_NEEDED for one in COLLECTORS},
        )
        url, exporter = await stack.enter_async_context(
            served_exporter(settings, clock, monotonic=clock)
        )
        prometheus = stack.enter_context(Prometheus(directory))
        timeline = stack.enter_context(
            contextlib.closing(Timeline(f"{prometheus.url}/api/v1/write"))
        )
        for hour in range(24 * DAYS):
            clock.now = START + hour * HOUR
            await get(f"{url}/metrics")
            # The chain is read in the background of a page.
            await until(lambda: not any(one.flight for one in exporter.feeds.states().values()))
            page = (await get(f"{url}/metrics")).text
            timeline.scrape(clock(), "chutes", "exporter-1:9109", page)
            timeline.record(RULES, clock())
            prometheus.at = clock()
            answers = {}
            for name, query in QUERIES.items():
                answers[name] = of_hotkeys(await asyncio.to_thread(prometheus.query, query))
            history.hours.append(answers)
    return history


def errors_of_day(history: History, day: int, name: str) -> Errors:
    """Return the mean errors of the forecasts that are made on a day, of all miners.

    ``name`` is the query of the forecast: "score in 24 h" or "pay of 24 h".
    """
    forecasts, as_now, headings = [], [], []
    outcome_of = history.pay_of_next_day if name == "pay of 24 h" else history.score_of_next_day
    for hour, hotkey in history.pairs(name, day):
        real, answers = outcome_of(hour, hotkey), history.hours[hour]
        if real is None:
            continue
        forecasts.append(abs(answers[name][hotkey] - real))
        as_now.append(abs(answers["score"][hotkey] - real))
        headings.append(abs(answers["heading"][hotkey] - real))
    return Errors(fmean(forecasts), fmean(as_now), fmean(headings))


def mean_of(days: list[Errors]) -> Errors:
    return Errors(
        fmean(day.forecast for day in days),
        fmean(day.as_now for day in days),
        fmean(day.heading for day in days),
    )


def held_bounds(history: History) -> list[bool]:
    """Return whether scores are within the bounds that were forecast a day before, for each score
    that had such bounds.
    """
    found = []
    # What the forecasts of the last day become is not known.
    for day in range(DAYS - 1):
        for hour, hotkey in history.pairs("lower", day):
            real, answers = history.score_of_next_day(hour, hotkey), history.hours[hour]
            if real is not None:
                found.append(answers["lower"][hotkey] <= real <= answers["upper"][hotkey])
    return found


@pytest.mark.soak
@pytest.mark.parametrize("seed", SEEDS)
async def test_forecasts_are_better_than_the_score_and_than_the_heading(
    seed: int, tmp_path: Path
) -> None:
    history = await live(seed, tmp_path)
    for name in ("score in 24 h", "pay of 24 h"):
        days = [errors_of_day(history, day, name) for day in range(DAYS - 1)]
        for day, errors in enumerate(days):
            LOG.warning("seed %d, day %d, %s: %s", seed, day, name, errors)
        errors = mean_of(days)
        LOG.warning("seed %d, all days, %s: %s", seed, name, errors)
        assert errors.forecast < errors.as_now, name
        assert errors.forecast < errors.heading, name
    held = held_bounds(history)
    LOG.warning("seed %d: %.3f of %d scores are within bounds", seed, fmean(held), len(held))
    # The bounds of the days 15 to 18 are compared. Each miner must have them on more than 3 days.
    assert len(held) > 24 * (DAYS - 17) * SIZE.active_miners
    # The rules make the bounds so that they hold about 5 times out of 6.
    assert math.isclose(fmean(held), 5 / 6, abs_tol=0.1)
