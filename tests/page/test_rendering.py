from __future__ import annotations

import gzip
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.api.keys import address_of
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.page import compression, plan, rendering
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.simulator import Fault, Simulator
from tests.support import HOTKEY, Clock, Page, data_of, find_collector, parse_page, series, successes, watching

if TYPE_CHECKING:
    from chutes_exporter.collectors import Answers, Scope
    from chutes_exporter.collectors.samples import Samples

STRANGERS = [address_of(bytes([number]) * 32) for number in range(1, 9)]
EVERYTHING = {collector.name: True for collector in COLLECTORS}


async def metrics(exporter: Exporter, *collect: str) -> Page:
    return parse_page((await exporter.page(Format.TEXT, timeout=5, collect=collect)).decode())


async def probe(exporter: Exporter, target: str, *collect: str) -> Page:
    page = await exporter.probe(target, Format.TEXT, timeout=5, collect=collect)
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


async def test_platform_samples_are_rendered_once_for_all_pages(simulator: Simulator, collected: Counter[str]) -> None:
    shared = ("chutes", "metrics", "images", "chute_gpus")
    async with Exporter(watching(simulator.url, collectors=EVERYTHING), clock=Clock()) as exporter:
        whole = await metrics(exporter)
        for name in shared:
            await metrics(exporter, name)
        for stranger in STRANGERS:
            page = await probe(exporter, stranger, *shared)
            assert data_of(page).items() <= data_of(whole).items()
            assert len(data_of(page)) > 100
    assert {name: collected[name] for name in shared} == dict.fromkeys(shared, 1)


async def test_samples_of_a_miner_are_rendered_for_each_miner(simulator: Simulator, collected: Counter[str]) -> None:
    async with Exporter(watching(simulator.url), clock=Clock()) as exporter:
        for _ in range(2):
            for stranger in STRANGERS:
                page = await probe(exporter, stranger)
                assert page[series("chutes_miner_registered", hotkey=stranger)] == 0
    assert collected["metagraph"] == len(STRANGERS)


async def test_lines_of_other_pages_are_dropped_when_they_are_too_many(
    simulator: Simulator, collected: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Room for the lines of three strangers' metagraph, but not for those of all chutes.
    monkeypatch.setattr(rendering, "_OTHERS_BYTES", 6_000)
    settings = watching(simulator.url, collectors={"chutes": False, "metrics": True, "chute_gpus": False})
    async with Exporter(settings, clock=Clock()) as exporter:
        await metrics(exporter)
        for stranger in STRANGERS:
            await probe(exporter, stranger, "metagraph", "metrics")
        await probe(exporter, STRANGERS[-1], "metagraph")
        assert collected["metagraph"] == 1 + len(STRANGERS)
        await probe(exporter, STRANGERS[0], "metagraph")
        assert collected["metagraph"] == 2 + len(STRANGERS)
        # The main page's are not among them.
        await metrics(exporter)
    assert collected["metrics"] == 1


async def test_lines_that_never_fit_among_those_of_other_pages_are_rendered_each_time(
    simulator: Simulator, collected: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "_OTHERS_BYTES", 2_000)
    async with Exporter(watching(simulator.url), clock=Clock()) as exporter:
        first = await probe(exporter, HOTKEY, "chute_gpus")
        assert data_of(await probe(exporter, HOTKEY, "chute_gpus")) == data_of(first) != {}
    assert collected["chute_gpus"] == 2


async def test_a_scrape_of_one_collector_keeps_its_lines_for_the_whole_page(
    simulator: Simulator, collected: Counter[str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What does not fit among the lines of other pages.
    monkeypatch.setattr(rendering, "_OTHERS_BYTES", 2_000)
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
    simulator: Simulator, collected: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "_OTHERS_BYTES", 2_000)
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
        monkeypatch.setattr("chutes_exporter.page.rendering.time.perf_counter", lambda: float(next(times)))
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


async def gzip_metrics(exporter: Exporter, form: Format = Format.TEXT) -> Page:
    return parse_page(gzip.decompress(await exporter.page(form, timeout=5, gzipped=True)).decode())


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes that were compressed."""
    found: list[bytes] = []
    deflate = compression._deflate  # noqa: SLF001 - nothing shows it from outside

    def counting(parts: list[bytes], end: int) -> bytes:
        found.append(b"".join(parts))
        return deflate(parts, end)

    monkeypatch.setattr(compression, "_deflate", counting)
    return found


async def test_only_lines_that_changed_are_compressed_again(
    simulator: Simulator, clock: Clock, compressed: list[bytes]
) -> None:
    # The metagraph is due at each scrape, and everything else stays fresh.
    settings = watching(simulator.url, ttl=["metagraph=10"])
    async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
        for _ in range(2):
            clock.now += 11
            await gzip_metrics(exporter)
        compressed.clear()
        unchanged = await gzip_metrics(exporter)
        unchanged = await gzip_metrics(exporter)
        # Readings and the process change with every scrape. The first scrape no longer waits for the metagraph.
        *durations, first, second = compressed
        assert [b"chutes_feed_requests_total" in lines for lines in (first, second)] == [True, True]
        assert [b"chutes_scrape_collector_duration_seconds" in lines for lines in durations] == [True]
        compressed.clear()
        clock.now += 11
        changed = await gzip_metrics(exporter)
        names = ("chutes_metagraph_miners", "chutes_feed_up", "chutes_api_requests_total", "chutes_scrape_series")
        assert sorted(name for lines in compressed for name in names if f"# TYPE {name}".encode() in lines) == sorted(
            names
        )
        assert not [lines for lines in compressed if b"chutes_chute_info" in lines]
        assert data_of(changed) == data_of(unchanged) == data_of(await metrics(exporter))


async def test_each_format_is_compressed_from_the_same_lines(simulator: Simulator, compressed: list[bytes]) -> None:
    async with Exporter(watching(simulator.url), clock=Clock()) as exporter:
        text, openmetrics = [await gzip_metrics(exporter, form) for form in Format]
        await gzip_metrics(exporter)
        compressed.clear()
        assert data_of(await gzip_metrics(exporter)) == data_of(text)
        await gzip_metrics(exporter, Format.OPENMETRICS)
        assert len(compressed) == 2
    assert len(data_of(text)) == len(data_of(openmetrics)) > 500


async def test_the_lines_of_a_dropped_answer_are_dropped(simulator: Simulator, clock: Clock) -> None:
    async with Exporter(watching(simulator.url), clock=clock, monotonic=clock) as exporter:
        assert "chutes_scored_miners" in {name for name, _ in await metrics(exporter)}
        simulator.faults["scores"] = Fault(status=500)
        clock.now += 3600
        page = await metrics(exporter)
        assert "chutes_scored_miners" not in {name for name, _ in page}
        assert successes(page)["scores"] == 0
        assert successes(page)["metagraph"] == 1
