from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from chutes_exporter.collectors import COLLECTORS, Collector, servers
from chutes_exporter.feeds.table import METAGRAPH
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator import Fault, Simulator
from tests.support import PATIENCE, Clock, Page, data_of, parse_page, series, successes, watching

if TYPE_CHECKING:
    from chutes_exporter.collectors import Answers, Miners
    from chutes_exporter.collectors.base import Samples

EVERYTHING = {collector.name: True for collector in COLLECTORS}


async def metrics(exporter: Exporter) -> Page:
    return parse_page((await exporter.metrics(Format.TEXT, timeout=PATIENCE)).decode())


def cut_of(page: Page) -> set[str]:
    return {dict(labels)["collector"] for (name, labels), value in page.items() if name.endswith("_cut") and value}


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each collector ran."""
    counts: Counter[str] = Counter()
    run = Collector.run

    def counting(collector: Collector, *arguments: Any) -> Any:
        counts[collector.name] += 1
        return run(collector, *arguments)

    monkeypatch.setattr(Collector, "run", counting)
    return counts


async def test_a_collector_runs_once_in_each_format_while_its_answers_are_the_same(
    simulator: Simulator, clock: Clock, collected: Counter[str]
) -> None:
    settings = watching(simulator.url, chain_url=simulator.chain_url, collectors=EVERYTHING)
    async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
        await exporter.warm_up()
        for _ in range(2):
            await metrics(exporter)
            await exporter.metrics(Format.OPENMETRICS, timeout=PATIENCE)
    assert collected == {collector.name: 2 for collector in COLLECTORS}


async def test_an_answer_that_breaks_a_collector_costs_only_its_miner(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tuple(miner.key for miner in simulator.world.miners[:2])

    collect = servers.SERVER.collect

    def broken_for_the_first(answers: Answers, scope: Miners, out: Samples) -> None:
        if scope.hotkey == keys[0].address:
            raise ZeroDivisionError
        collect(answers, scope, out)

    monkeypatch.setattr(servers.SERVER, "collect", broken_for_the_first)
    with structlog.testing.capture_logs() as logs:
        async with Exporter(watching(simulator.url, *keys), clock=Clock()) as exporter:
            page = await metrics(exporter)
    for key, success in zip(keys, (0, 1), strict=True):
        hotkey = key.address
        assert page[series("chutes_scrape_collector_success", collector="servers", hotkey=hotkey)] == success
        assert (series("chutes_fleet_servers", hotkey=hotkey) in page) is bool(success)
    assert [(log["event"], log["hotkey"]) for log in logs] == [("collector failed", keys[0].address)]


async def test_a_page_says_how_many_series_it_would_have_though_none_of_them_are_kept(simulator: Simulator) -> None:
    settings = watching(simulator.url)
    async with Exporter(settings, clock=Clock()) as exporter:
        size = (await metrics(exporter))[series("chutes_scrape_series")]
    for limit in (0, 1, 30, 200):
        async with Exporter(replace(settings, max_series=limit), clock=Clock()) as exporter:
            for _ in range(2):
                page = await metrics(exporter)
                assert page[series("chutes_scrape_series")] == size
                assert cut_of(page)


async def test_only_collectors_whose_answers_changed_run_again(
    simulator: Simulator, clock: Clock, collected: Counter[str]
) -> None:
    # The metagraph is due at each scrape, and everything else stays fresh.
    async with Exporter(watching(simulator.url, ttl={"metagraph": 10}), clock=clock, monotonic=clock) as exporter:
        unchanged = await metrics(exporter)
        collected.clear()
        clock.now += 11
        assert data_of(await metrics(exporter)) == data_of(unchanged)
        assert set(collected) == {one.name for one in exporter.plan.collectors if METAGRAPH in one.feeds}


async def test_the_lines_of_a_dropped_answer_are_dropped(simulator: Simulator, clock: Clock) -> None:
    async with Exporter(watching(simulator.url), clock=clock, monotonic=clock) as exporter:
        assert "chutes_scored_miners" in {name for name, _ in await metrics(exporter)}
        simulator.faults["scores"] = Fault(status=500)
        clock.now += 3600
        page = await metrics(exporter)
        assert "chutes_scored_miners" not in {name for name, _ in page}
        assert successes(page)["scores"] == 0
        assert successes(page)["metagraph"] == 1
