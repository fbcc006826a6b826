"""The day with more servers and miners."""

from __future__ import annotations

from collections import Counter

import pytest

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.demo.replay import Replay
from chutes_exporter.page.exporter import Exporter
from tests.fleets import LargeDay
from tests.support import AT_22, Clock, page_of, patient, read_reports


@pytest.mark.parametrize(("gpus", "miners", "keys"), [(104, 24, 2), (996, 250, 4)])
async def test_the_answers_of_a_large_day_agree_with_each_other(
    gpus: int, miners: int, keys: int
) -> None:
    day, clock = LargeDay(gpus, miners, keys), Clock(AT_22)
    async with Replay(day, clock=clock) as replay:
        settings = patient(
            replay.url,
            chain_url=replay.chain_url,
            keys=tuple(day.miners.values()),
            collectors={collector.name: True for collector in COLLECTORS},
            miners="all",
            max_series=10**6,
        )
        async with Exporter(settings, clock=clock) as exporter:
            await exporter.feeds.read_all(exporter.plan.feeds, 300)
            await read_reports(exporter)
            page = await page_of(exporter)
    fleets: Counter[str] = Counter()
    for (name, labels), value in page.items():
        if name in ("chutes_feed_up", "chutes_fleet_known", "chutes_scrape_collector_success"):
            assert value == 1, (name, labels)
        if name in ("chutes_feed_doubted", "chutes_feed_rejected_records"):
            assert value == 0, (name, labels)
        if name == "chutes_fleet_gpus":
            fleets[dict(labels)["hotkey"]] += int(value)
    copies = dict.fromkeys((key.address for key in day.miners.values()), 38)
    recorded = dict.fromkeys((day.miners[name].address for name in ("troubled", "healthy")), gpus)
    assert fleets == copies | recorded
    assert len(day.answer("scores", 22 * 3600)["raw_values"]) == miners
