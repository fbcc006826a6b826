from __future__ import annotations

import gzip
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from chutes_exporter.api.keys import address_of
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.config import make_settings
from chutes_exporter.feeds.table import METAGRAPH
from chutes_exporter.page import exposition, plan
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator import Fault, Simulator
from tests.support import Clock, Page, data_of, find_collector, parse_page, series, successes, watching

if TYPE_CHECKING:
    from chutes_exporter.collectors import Answers, Scope
    from chutes_exporter.collectors.base import Samples

STRANGERS = [address_of(bytes([number]) * 32) for number in range(1, 9)]
EVERYTHING = {collector.name: True for collector in COLLECTORS}


async def metrics(exporter: Exporter, *collect: str) -> Page:
    return parse_page((await exporter.page(Format.TEXT, timeout=60, collect=collect)).decode())


async def probe(exporter: Exporter, target: str, *collect: str) -> Page:
    page = await exporter.probe(target, Format.TEXT, timeout=60, collect=collect)
    return parse_page(page.body.decode())


def cut_of(page: Page) -> set[str]:
    return {dict(labels)["collector"] for (name, labels), value in page.items() if name.endswith("_cut") and value}


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each collector ran."""
    counts: Counter[str] = Counter()

    def counting(collector: Any) -> Any:
        def collect(answers: Answers, scope: Scope, out: Samples) -> None:
            counts[collector.name] += 1
            collector.collect(answers, scope, out)

        return replace(collector, collect=collect)

    monkeypatch.setattr(plan, "COLLECTORS", tuple(map(counting, COLLECTORS)))
    return counts


async def test_a_collector_runs_once_in_each_format_while_its_answers_are_the_same(
    simulator: Simulator, collected: Counter[str]
) -> None:
    async with Exporter(watching(simulator.url, collectors=EVERYTHING), clock=Clock()) as exporter:
        await exporter.warm_up()
        for _ in range(2):
            await metrics(exporter)
            await exporter.page(Format.OPENMETRICS, timeout=60)
            await metrics(exporter, "chutes", "servers")
    assert collected == {collector.name: 2 for collector in COLLECTORS}


async def test_a_metric_of_several_miners_is_in_one_family(simulator: Simulator, clock: Clock) -> None:
    keys = tuple(miner.key for miner in simulator.world.miners[:3])
    async with Exporter(watching(simulator.url, *keys), clock=clock) as exporter:
        text = (await exporter.page(Format.TEXT, timeout=60)).decode()
    headers = [line for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(headers) == len(set(headers))
    assert len({labels for name, labels in parse_page(text) if name == "chutes_fleet_servers"}) == 3


async def test_an_answer_that_breaks_a_collector_costs_only_its_miner(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tuple(miner.key for miner in simulator.world.miners[:2])

    def broken_for_the_first(answers: Answers, scope: Scope, out: Samples) -> None:
        if scope.hotkey == keys[0].address:
            raise ZeroDivisionError
        find_collector("servers").collect(answers, scope, out)

    broken = [replace(one, collect=broken_for_the_first) if one.name == "servers" else one for one in COLLECTORS]
    monkeypatch.setattr(plan, "COLLECTORS", broken)
    with structlog.testing.capture_logs() as logs:
        async with Exporter(watching(simulator.url, *keys), clock=Clock()) as exporter:
            page = await metrics(exporter)
    for key, success in zip(keys, (0, 1), strict=True):
        hotkey = key.address
        assert page[series("chutes_scrape_collector_success", collector="servers", hotkey=hotkey)] == success
        assert (series("chutes_fleet_servers", hotkey=hotkey) in page) is bool(success)
    assert [(log["event"], log["hotkey"]) for log in logs] == [("collector failed", keys[0].address)]


async def test_a_scrape_of_one_collector_keeps_its_lines_for_the_whole_page(
    simulator: Simulator, collected: Counter[str], clock: Clock
) -> None:
    async with Exporter(watching(simulator.url), clock=clock, monotonic=clock) as exporter:
        await metrics(exporter)
        clock.now += 3600
        collected.clear()
        alone = [await metrics(exporter, "stats_per_chute") for _ in range(3)]
        assert collected["stats_per_chute"] == 1
        own = {metric.name for metric in find_collector("stats_per_chute").metrics}
        shown = [{key: value for key, value in page.items() if key[0] in own} for page in alone]
        assert shown[0] == shown[2] != {}
        assert shown[0].items() <= (await metrics(exporter)).items()
        assert collected["stats_per_chute"] == 1


async def test_scrapes_of_single_collectors_keep_no_more_lines_than_the_whole_page_may_have(
    simulator: Simulator, collected: Counter[str]
) -> None:
    async with Exporter(watching(simulator.url), clock=Clock()) as exporter:
        sizes = {
            name: len(data_of(await metrics(exporter, name))) for name in ("stats_per_chute", "chutes", "instances")
        }
    collected.clear()
    largest = max(sizes.values())
    async with Exporter(replace(watching(simulator.url), max_series=largest), clock=Clock()) as exporter:
        for _ in range(2):
            for name in sizes:
                assert cut_of(await metrics(exporter, name)) == set()
    # The first one is kept, and the others have no room beside it.
    assert [collected[name] for name in sizes] == [1, 2, 2]


async def test_the_seconds_of_a_collector_are_those_of_this_scrape(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Exporter(watching(simulator.url), clock=Clock()) as exporter:
        await exporter.warm_up()
        times = iter(range(1_000_000))
        monkeypatch.setattr("chutes_exporter.collectors.base.time.perf_counter", lambda: float(next(times)))
        name = series("chutes_scrape_collector_duration_seconds", collector="scores", hotkey="")
        first, *others = [await metrics(exporter) for _ in range(3)]
        assert first[name] == 1
        assert [page[name] for page in others] == [0, 0]


async def test_a_collector_left_out_of_the_page_can_be_scraped_alone(simulator: Simulator) -> None:
    settings = watching(simulator.url)
    async with Exporter(settings, clock=Clock()) as exporter:
        whole = await metrics(exporter)
    size = int(whole[series("chutes_scrape_series")])
    async with Exporter(replace(settings, max_series=size - 1), clock=Clock()) as exporter:
        for _ in range(2):
            assert cut_of(await metrics(exporter)) == {"stats_per_chute"}
            alone = await metrics(exporter, "stats_per_chute")
            assert cut_of(alone) == set()
            assert data_of(alone).items() <= data_of(whole).items()
            assert len(data_of(alone)) > 10


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


async def test_pages_of_different_collectors_show_the_state_of_their_own(simulator: Simulator) -> None:
    nothing = Fault(body=b"data: NO_ITEMS\n\n")
    simulator.faults.update(metrics=nothing, utilization=Fault(body=b"[]"))
    async with Exporter(make_settings(api_url=simulator.url), clock=Clock()) as exporter:
        for name in ("metrics", "utilization") * 2:
            page = await metrics(exporter, name)
            assert successes(page) == {name: 1}
            assert page[series("chutes_scrape_series")] == 0


async def gzip_metrics(exporter: Exporter, form: Format = Format.TEXT) -> Page:
    return parse_page(gzip.decompress(await exporter.page(form, timeout=60, gzipped=True)).decode())


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes that were compressed."""
    found: list[bytes] = []
    deflate = exposition._deflate  # noqa: SLF001 - nothing shows it from outside

    def counting(plain: bytes, end: int) -> bytes:
        found.append(plain)
        return deflate(plain, end)

    monkeypatch.setattr(exposition, "_deflate", counting)
    return found


async def test_only_lines_that_changed_are_compressed_again(
    simulator: Simulator, clock: Clock, compressed: list[bytes]
) -> None:
    # The metagraph is due at each scrape, and everything else stays fresh.
    settings = watching(simulator.url, ttl={"metagraph": 10})
    async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
        await gzip_metrics(exporter)
        compressed.clear()
        unchanged = await gzip_metrics(exporter)
        unchanged = await gzip_metrics(exporter)
        # The second of them did not wait for the metagraph any more. Readings are counted at every scrape.
        collectors, first, own = compressed
        assert b"chutes_scrape_collector_duration_seconds" in collectors
        assert b"chutes_feed_requests_total" in first
        assert b"chutes_feed_requests_total" in own
        clock.now += 11
        compressed.clear()
        changed = await gzip_metrics(exporter)
        *renewed, collectors, feeds, exchanges, own = compressed
        depending = [one for one in exporter.collectors if METAGRAPH in one.feeds]
        for collector, lines in zip(depending, renewed, strict=True):
            assert any(f"# TYPE {metric.name} ".encode() in lines for metric in collector.metrics)
        assert b"# TYPE chutes_feed_up " in feeds
        assert b"# TYPE chutes_api_requests_total " in exchanges
        assert b"chutes_feed_requests_total" in own
        assert data_of(changed) == data_of(unchanged) == data_of(await metrics(exporter))


async def test_the_lines_of_a_dropped_answer_are_dropped(simulator: Simulator, clock: Clock) -> None:
    async with Exporter(watching(simulator.url), clock=clock, monotonic=clock) as exporter:
        assert "chutes_scored_miners" in {name for name, _ in await metrics(exporter)}
        simulator.faults["scores"] = Fault(status=500)
        clock.now += 3600
        page = await metrics(exporter)
        assert "chutes_scored_miners" not in {name for name, _ in page}
        assert successes(page)["scores"] == 0
        assert successes(page)["metagraph"] == 1
