from __future__ import annotations

from chutes_exporter.config import Credentials, make_settings
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.page.telemetry import Telemetry
from chutes_exporter.simulator import Fault, Simulator
from tests.support import (
    HOTKEY,
    KEY,
    Clock,
    count_openmetrics,
    page_of,
    parse_page,
    promtool_complaints,
    scrape,
    series,
    watching,
)

OTHER = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"


async def test_why_a_feed_is_down_is_told_in_a_word_for_as_long(simulator: Simulator, clock: Clock) -> None:
    simulator.faults["scores"] = Fault(status=503, times=1)
    stranger = type(KEY).from_seed("22" * 32)
    settings = make_settings(api_url=simulator.url, credentials=Credentials((stranger, KEY), (), ()))
    async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
        page = await page_of(exporter)
        reasons = {tuple(sorted(labels)) for name, labels in page if name == "chutes_feed_failure_info"}
        assert (("feed", "scores"), ("reason", "unavailable")) in reasons
        assert (("feed", "servers"), ("hotkey", stranger.address), ("reason", "not_registered")) in reasons
        clock.now += 60
        page = await page_of(exporter)
    assert series("chutes_feed_failure_info", feed="scores", reason="unavailable") not in page


async def test_the_watched_are_told_from_the_others(simulator: Simulator) -> None:
    page = await scrape(watching(simulator.url, hotkeys=[OTHER], miners="all"))
    watched = {dict(labels)["hotkey"] for name, labels in page if name == "chutes_miner_watched"}
    assert watched == {HOTKEY, OTHER}


def test_the_processs_own_metrics_stand_in_both_formats() -> None:
    telemetry = Telemetry()
    text = telemetry.render(Format.TEXT)
    page = parse_page(text.decode())
    assert page[series("process_resident_memory_bytes")] > 1e6
    assert not [name for name, _ in page if name.endswith("_created")]
    assert promtool_complaints(text) == ""
    openmetrics = telemetry.render(Format.OPENMETRICS).decode() + "# EOF\n"
    assert count_openmetrics(openmetrics) == len(page)
