"""Collects once for a command that reports about miners: samples, and what is not known."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chutes_exporter.api.errors import ApiError
from chutes_exporter.collectors.fleet import COLLECTOR as FLEET
from chutes_exporter.commands.result import NO_KEY, TRY_AGAIN, NotKnown
from chutes_exporter.feeds.table import MAINTENANCE
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.rules.maintenance import unknown_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chutes_exporter.config import Settings
    from chutes_exporter.page.telemetry import States

Labels = dict[str, str]
SamplesByName = Mapping[str, list[tuple[Labels, float]]]
"""Labels and value of each sample, by the metric's name."""

_PATIENCE = 120.0
_UNKNOWN_MAINTENANCE = "Reboot no such server. See chutes-exporter query maintenance, and update the exporter."


@dataclass(frozen=True)
class Report:
    """The samples of one collection.

    Attributes:
        now: Unix time by the API's clock, to which the times in answers belong.
        counted: Hotkeys of the miners for which the state of every GPU is known.
        answered: Whether a request succeeded.
    """

    samples: SamplesByName
    now: float
    gaps: list[NotKnown]
    counted: set[str]
    answered: bool
    states: States


async def collect_report(settings: Settings, metrics: frozenset[str]) -> Report:
    """Request what the metrics need, once."""
    async with Exporter(settings) as exporter:
        collected = await exporter.samples(metrics, timeout=_PATIENCE)
        now = time.time() - (exporter.client.clock_offset or 0.0)
    samples = collected.samples
    gaps = [*_gaps(collected.states)]
    for collector, hotkey in collected.failed:
        reason = "the collector failed, which is a bug"
        gaps.append(NotKnown(collector, hotkey, reason, "Report it with the log."))
    incomplete = {(gap.feed, gap.hotkey) for gap in gaps}
    whole = [
        key.address for key in settings.keys if not incomplete & {(feed.name, key.address) for feed in FLEET.feeds}
    ]
    counted = {hotkey for hotkey in whole if _all_counted(samples, hotkey)}
    gaps += [
        NotKnown("fleet", hotkey, "the answers do not give the states of all GPUs", "Try again in a minute.")
        for hotkey in whole
        if hotkey not in counted
    ]
    without_key = sorted(settings.watched - {key.address for key in settings.keys})
    gaps += [NotKnown("servers, GPUs, instances, jobs", hotkey, *NO_KEY) for hotkey in without_key]
    answered = any(state.snapshot for state in collected.states.values())
    return Report(samples, now, gaps, counted, answered, collected.states)


def samples_of(samples: SamplesByName, metric: str, hotkey: str) -> list[tuple[Labels, float]]:
    """Return the samples of a metric about a miner."""
    return [(labels, value) for labels, value in samples.get(metric, ()) if labels.get("hotkey") == hotkey]


def _all_counted(samples: SamplesByName, hotkey: str) -> bool:
    """Tell whether the state of every GPU is known."""
    counted = {labels["gpu"] for labels, _ in samples_of(samples, "chutes_fleet_gpus", hotkey)}
    described = {labels["gpu"] for labels, _ in samples_of(samples, "chutes_gpu_info", hotkey)}
    return described <= counted and bool(counted or not samples_of(samples, "chutes_gpu_in_use", hotkey))


def _gaps(states: States) -> Iterator[NotKnown]:
    """Return the feeds that are missing or could not be completely read, and what an answer does not say."""
    for feed, state in states.items():
        error, snapshot = state.last_error, state.snapshot
        if state.missing:
            reason = f"the deployment has no {feed.endpoint.path}"
            yield NotKnown(feed.name, feed.hotkey, reason, "Ask the operators of Chutes for a newer service.")
        elif snapshot is None:
            advice = error.advice if isinstance(error, ApiError) else "Try again later."
            yield NotKnown(feed.name, feed.hotkey, str(error or "no answer yet"), advice)
        elif not snapshot.answer.whole:
            rejected = snapshot.answer.rejected
            reason = f"{rejected} records cannot be read" if rejected else "the list contradicts another answer"
            yield NotKnown(feed.name, feed.hotkey, reason, TRY_AGAIN)
        if feed.name == MAINTENANCE.name and snapshot is not None:
            for reason in unknown_in(snapshot.answer.value):
                yield NotKnown(feed.name, feed.hotkey, reason, _UNKNOWN_MAINTENANCE)
