from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog

from chutes_exporter.collectors import COLLECTORS, servers
from chutes_exporter.feeds import fleet as fleet_feeds
from chutes_exporter.feeds.definitions import METAGRAPH
from chutes_exporter.page import maker
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from tests.exporters import page_of, read_reports, watching
from tests.pages import data_of, series
from tests.support import PATIENCE, Clock

if TYPE_CHECKING:
    import pytest

    from chutes_exporter.collectors import Answers, Collector, Miners
    from chutes_exporter.collectors.base import Samples
    from chutes_exporter.page.plan import Entry
    from tests.replay import Replay


def needs_metagraph(collector: Collector) -> bool:
    # Those about a miner may read its fleet, which is joined with the metagraph.
    return METAGRAPH in collector.feeds or any(part.scope != "platform" for part in collector.parts)


async def test_a_collector_runs_once_in_each_format_until_its_answers_change(
    replay: Replay, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: Counter[str] = Counter()
    run_collector = maker.run_collector

    def counting(entry: Entry, *arguments: Any) -> Any:
        runs[entry.collector.name] += 1
        return run_collector(entry, *arguments)

    monkeypatch.setattr(maker, "run_collector", counting)
    everything = {collector.name: True for collector in COLLECTORS}
    settings = watching(replay.url, chain_url=replay.chain_url, collectors=everything)
    async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
        await exporter.warm_up()
        await read_reports(exporter)
        data = data_of(await page_of(exporter))
        for _ in range(2):
            await page_of(exporter)
            await exporter.metrics(Format.OPENMETRICS, timeout=PATIENCE)
        # Once for text, and once for OpenMetrics.
        assert runs == {collector.name: 2 for collector in COLLECTORS}
        runs.clear()
        exporter.feeds.expire(METAGRAPH)
        # The new metagraph is like the last one.
        assert data_of(await page_of(exporter)) == data
        assert runs == {one.name: 1 for one in COLLECTORS if needs_metagraph(one)}


async def test_each_miner_is_joined_once_until_its_answers_change(
    replay: Replay, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    for name in ("join_fleet", "find_demand", "Ledger"):
        function = getattr(fleet_feeds, name)

        def counting(*arguments: Any, name: str = name, function: Any = function) -> Any:
            calls[name] += 1
            return function(*arguments)

        monkeypatch.setattr(fleet_feeds, name, counting)
    keys = tuple(replay.day.miners.values())
    settings = watching(replay.url, *keys)
    async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
        await page_of(exporter)
        await exporter.metrics(Format.OPENMETRICS, timeout=PATIENCE)
        await exporter.snapshot()
        # The landing page and the commands get the fleets that a page has joined.
        assert calls["join_fleet"] == len(keys)
        calls.clear()
        exporter.feeds.expire(METAGRAPH)
        await page_of(exporter)
        assert calls["join_fleet"] == len(keys)
        assert (calls["find_demand"], calls["Ledger"]) == (1, 1)


async def test_an_answer_that_breaks_a_collector_costs_only_its_miner(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tuple(replay.day.miners.values())
    add_samples = servers.SERVER.add_samples

    def broken_for_the_first(answers: Answers, scope: Miners, out: Samples) -> None:
        if scope.hotkey == keys[0].address:
            raise ZeroDivisionError
        add_samples(answers, scope, out)

    monkeypatch.setattr(servers.SERVER, "add_samples", broken_for_the_first)
    with structlog.testing.capture_logs() as logs:
        async with Exporter(watching(replay.url, *keys), clock=replay.clock) as exporter:
            page = await page_of(exporter)
    first, second = (key.address for key in keys)
    success = "chutes_scrape_collector_success"
    assert page[series(success, collector="servers", hotkey=first)] == 0
    assert page[series(success, collector="servers", hotkey=second)] == 1
    servers_on_page = [dict(labels) for name, labels in page if name == "chutes_server_info"]
    assert {labels["hotkey"] for labels in servers_on_page} == {second}
    (log,) = [log for log in logs if log["event"] != "requested"]
    assert (log["event"], log["hotkey"]) == ("collector failed", first)
