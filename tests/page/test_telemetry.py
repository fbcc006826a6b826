from __future__ import annotations

import pytest

from chutes_exporter.api.client import Exchange
from chutes_exporter.config import Credentials, make_settings
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.page.telemetry import Telemetry
from chutes_exporter.simulator import Fault, Simulator
from tests.support import (
    HOTKEY,
    KEY,
    NOON,
    Clock,
    Page,
    count_openmetrics,
    page_of,
    parse_page,
    promtool_complaints,
    scrape,
    series,
    watching,
)

CLOCK_OFFSET = series("chutes_api_clock_offset_seconds")
OTHER = "5HgByqjsYp8QGTSQpdLjJRd8hNyk8oeaXMWwTtgHtfUHs8uP"


def rendered(telemetry: Telemetry, form: Format) -> bytes:
    return b"".join(telemetry.exchanges(form).parts)


def page_after(*exchanges: Exchange) -> Page:
    """Return what the page says after some exchanges with the API."""
    telemetry = Telemetry()
    for exchange in exchanges:
        telemetry.observe(exchange)
    return parse_page(rendered(telemetry, Format.TEXT).decode())


def test_requests_to_the_api_are_counted_by_endpoint_and_status() -> None:
    page = page_after(
        Exchange("scores", code="200", seconds=0.2, size=1000, rejected=3),
        Exchange("scores", code="200", seconds=0.7, size=500),
        Exchange("scores", code="timed_out", seconds=20),
        Exchange("stats", code="503", seconds=0.01),
    )
    assert page[series("chutes_api_requests_total", endpoint="scores", code="200")] == 2
    assert page[series("chutes_api_requests_total", endpoint="scores", code="timed_out")] == 1
    assert page[series("chutes_api_requests_total", endpoint="stats", code="503")] == 1
    assert page[series("chutes_api_response_bytes_total", endpoint="scores")] == 1500
    assert page[series("chutes_api_rejected_records_total", endpoint="scores")] == 3
    assert page[series("chutes_api_request_duration_seconds_sum", endpoint="scores")] == pytest.approx(20.9)
    for bound, count in (("0.1", 0), ("0.25", 1), ("1.0", 2), ("10.0", 2), ("30.0", 3)):
        assert page[series("chutes_api_request_duration_seconds_bucket", endpoint="scores", le=bound)] == count


def test_the_clock_offset_is_the_one_of_the_newest_answer_with_a_date() -> None:
    with_a_date, without = Exchange("scores", code="200", clock_offset=1.5), Exchange("scores", code="timed_out")
    assert page_after(with_a_date, without)[CLOCK_OFFSET] == 1.5


def test_the_clock_offset_is_absent_without_a_recent_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CLOCK_OFFSET not in page_after(Exchange("scores", code="unavailable"))
    monkeypatch.setattr("chutes_exporter.page.telemetry._CLOCK_MAX_AGE", 0.0)
    assert CLOCK_OFFSET not in page_after(Exchange("scores", code="200", clock_offset=1.5))


def test_a_page_that_is_made_during_an_exchange_leaves_no_old_count(monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = Telemetry()
    exchange = Exchange("scores", "200", 0.1, 100, 0)

    def rendered_meanwhile() -> float:
        rendered(telemetry, Format.TEXT)
        return NOON

    monkeypatch.setattr("chutes_exporter.page.telemetry.time.time", rendered_meanwhile)
    telemetry.observe(exchange)
    telemetry.observe(exchange)
    requests = series("chutes_api_requests_total", endpoint="scores", code="200")
    assert parse_page(rendered(telemetry, Format.TEXT).decode())[requests] == 2


def test_a_faulty_reload_leaves_the_time_of_the_last_good_one() -> None:
    telemetry = Telemetry()
    assert (telemetry.reload_good, telemetry.reloaded_at) == (True, None)
    telemetry.note_reload(NOON, good=True)
    telemetry.note_reload(NOON + 60, good=False)
    assert (telemetry.reload_good, telemetry.reloaded_at) == (False, NOON)


async def test_the_reason_of_a_failed_feed_is_shown_while_it_fails(simulator: Simulator, clock: Clock) -> None:
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


async def test_watched_miners_are_marked(simulator: Simulator) -> None:
    page = await scrape(watching(simulator.url, hotkeys=[OTHER], miners="all"))
    watched = {dict(labels)["hotkey"] for name, labels in page if name == "chutes_miner_watched"}
    assert watched == {HOTKEY, OTHER}


def test_exchanges_are_written_in_both_formats_and_with_created_timestamps_on_request() -> None:
    telemetry = Telemetry()
    for code in ("200", "503"):
        telemetry.observe(Exchange("scores", code=code, seconds=0.2, size=1000, clock_offset=1.5))
    text = rendered(telemetry, Format.TEXT)
    page = parse_page(text.decode())
    assert promtool_complaints(text) == ""
    openmetrics = rendered(telemetry, Format.OPENMETRICS).decode()
    assert count_openmetrics(openmetrics + "# EOF\n") == len(page)
    created = b"".join(telemetry.exchanges(Format.OPENMETRICS, created=True).parts).decode()
    assert created.count("_created{") == 5
    assert count_openmetrics(created + "# EOF\n") == len(page) + 5
    assert b"_created{" not in b"".join(telemetry.exchanges(Format.TEXT, created=True).parts)
