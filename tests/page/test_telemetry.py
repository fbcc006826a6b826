from __future__ import annotations

import pytest

from chutes_exporter.feeds.definitions import CHUTE_METRICS
from chutes_exporter.page.exporter import Exporter
from tests.exporters import page_of, patient, watching
from tests.pages import names, series, successes
from tests.replay import Fault, Replay
from tests.support import AT_22, Clock

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
        monkeypatch.setattr("chutes_exporter.api.clock.OFFSET_MAX_AGE", 0.0)
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
