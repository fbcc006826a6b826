from __future__ import annotations

import pytest

from chutes_exporter.config import make_settings
from chutes_exporter.feeds.table import CHUTE_METRICS
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.exposition import Format
from chutes_exporter.rules.gpus import GPU_MODELS
from chutes_exporter.simulator import Fault, Simulator
from tests.support import (
    KEY,
    NOON,
    Clock,
    names,
    page_of,
    parse_page,
    patient,
    series,
    successes,
    watching,
)

CLOCK_OFFSET = series("chutes_api_clock_offset_seconds")


async def test_the_clock_offset_is_absent_without_a_recent_answer(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Exporter(watching(simulator.url), clock=Clock(NOON + 30)) as exporter:
        assert CLOCK_OFFSET not in parse_page(
            (await exporter.metrics(Format.TEXT, timeout=0)).decode()
        )
        assert (await page_of(exporter))[CLOCK_OFFSET] == pytest.approx(29.5)
        monkeypatch.setattr("chutes_exporter.page.telemetry._CLOCK_MAX_AGE", 0.0)
        assert CLOCK_OFFSET not in await page_of(exporter)


async def test_a_collector_is_not_successful_with_a_part_of_an_answer_or_an_old_one(
    simulator: Simulator, clock: Clock
) -> None:
    part = Fault(body=b'data: {"chute_id": 1}\n\ndata: {"chute_id": "a", "instance_count": 2}\n\n')
    for before, after in ((part, part), (Fault(), Fault(status=500))):
        simulator.faults["metrics"] = before
        async with Exporter(patient(simulator.url), clock=clock, monotonic=clock) as exporter:
            await page_of(exporter)
            simulator.faults["metrics"] = after
            clock.now += CHUTE_METRICS.ttl
            page = await page_of(exporter)
        assert "chutes_chute_instances" in names(page)
        assert successes(page)["metrics"] == 0


async def test_the_reason_of_a_failed_feed_is_shown_while_it_fails(
    simulator: Simulator, clock: Clock
) -> None:
    simulator.faults["scores"] = Fault(status=503, once=True)
    stranger = type(KEY).from_seed("22" * 32)
    settings = patient(simulator.url, keys=(stranger, KEY))
    async with Exporter(settings, clock=clock, monotonic=clock) as exporter:
        page = await page_of(exporter)
        reasons = {
            tuple(sorted(labels)) for name, labels in page if name == "chutes_feed_failure_info"
        }
        assert (("feed", "scores"), ("reason", "unavailable")) in reasons
        assert (
            ("feed", "servers"),
            ("hotkey", stranger.address),
            ("reason", "not_registered"),
        ) in reasons
        clock.now += 60
        page = await page_of(exporter)
    assert series("chutes_feed_failure_info", feed="scores", reason="unavailable") not in page


def test_an_unknown_model_is_a_warning_that_lists_the_known_ones() -> None:
    (warning,) = make_settings(gpu_costs={"h100": 1, "rtx9000": 2, "h1000": 3}).warnings
    known = ", ".join(GPU_MODELS)
    assert (
        warning
        == f"--gpu.cost has an unknown GPU model: h1000, rtx9000. The known models are {known}"
    )
    assert make_settings(gpu_costs=dict.fromkeys(GPU_MODELS, 1)).warnings == ()
