from __future__ import annotations

import pytest

from chutes_exporter.demo.replay import Fault, Replay
from chutes_exporter.feeds.definitions import CHUTE_METRICS
from chutes_exporter.page.exporter import Exporter
from tests.support import (
    AT_22,
    KEY,
    Clock,
    names,
    page_of,
    patient,
    series,
    successes,
    watching,
)

CLOCK_OFFSET = series("chutes_api_clock_offset_seconds")


async def test_the_clock_offset_is_absent_without_a_recent_answer(
    replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(AT_22 + 30)
    async with Exporter(watching(replay.url), clock=clock, monotonic=clock) as exporter:
        # This page is made before an answer has come.
        assert CLOCK_OFFSET not in await page_of(exporter, timeout=0)
        # A date has no fraction of a second, so half a second is added.
        assert (await page_of(exporter))[CLOCK_OFFSET] == pytest.approx(29.5)
        # No answer is recent enough.
        monkeypatch.setattr("chutes_exporter.page.telemetry._CLOCK_MAX_AGE", 0.0)
        assert CLOCK_OFFSET not in await page_of(exporter)


async def test_a_collector_is_not_successful_with_an_old_answer(
    replay: Replay, clock: Clock
) -> None:
    async with Exporter(patient(replay.url), clock=clock, monotonic=clock) as exporter:
        await page_of(exporter)
        replay.faults["metrics"] = Fault(status=500)
        clock.now += CHUTE_METRICS.ttl
        page = await page_of(exporter)
    assert "chutes_chute_instances" in names(page)
    assert successes(page)["metrics"] == 0


async def test_the_reason_of_a_failed_feed_is_shown_while_it_fails(
    replay: Replay, clock: Clock
) -> None:
    replay.faults["scores"] = Fault(status=503, once=True)
    # The API does not know this key.
    stranger = type(KEY).from_seed("22" * 32)
    settings = patient(replay.url, keys=(stranger, KEY))
    async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
        page = await page_of(exporter)
        failure = "chutes_feed_failure_info"
        assert series(failure, feed="scores", reason="unavailable") in page
        refused = {"hotkey": stranger.address, "reason": "not_registered"}
        assert series(failure, feed="servers", **refused) in page
        # The scores are requested again, and succeed.
        clock.now += 60
        page = await page_of(exporter)
    assert series(failure, feed="scores", reason="unavailable") not in page
