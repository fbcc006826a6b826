"""Collects once for a command that reports about miners: samples, and what is not known."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chutes_exporter.api.errors import ApiError
from chutes_exporter.collectors.fleet import COLLECTOR as FLEET
from chutes_exporter.commands.result import MISSING, NO_KEY, TRY_AGAIN, NotKnown
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
    """

    samples: SamplesByName
    now: float
    gaps: list[NotKnown]
    states: States
    counted: set[str] = field(default_factory=set)

    def of(self, metric: str, hotkey: str, **labels: str) -> list[tuple[Labels, float]]:
        """Return the samples of a metric about a miner, or about the platform, that have these labels."""
        wanted = labels | ({"hotkey": hotkey} if hotkey else {})
        return [(has, value) for has, value in self.samples.get(metric, ()) if wanted.items() <= has.items()]

    def count(self, hotkey: str) -> None:
        """Add a miner to ``counted`` if the state of each of its GPUs is known, otherwise add to ``gaps``."""
        counted = {labels["gpu"] for labels, _ in self.of("chutes_fleet_gpus", hotkey)}
        described = {labels["gpu"] for labels, _ in self.of("chutes_gpu_info", hotkey)}
        has_no_gpu = not described and not self.of("chutes_gpu_in_use", hotkey)
        # A GPU in an unknown state removes the counts of its model, and one of an unknown model all counts.
        if has_no_gpu or (counted and described <= counted):
            self.counted.add(hotkey)
        else:
            reason = "the answers do not give the states of all GPUs"
            self.gaps.append(NotKnown("fleet", hotkey, reason, "Try again in a minute."))


async def collect_report(settings: Settings, metrics: frozenset[str]) -> Report:
    """Request what the metrics need, once, and note in the gaps what is not known."""
    async with Exporter(settings) as exporter:
        collected = await exporter.samples(metrics, timeout=_PATIENCE)
        now = time.time() - (exporter.client.clock_offset or 0.0)
    bug = ("the collector failed, which is a bug", "Report it with the log.")
    gaps = [*_gaps(collected.states), *(NotKnown(collector, hotkey, *bug) for collector, hotkey in collected.failed)]
    report = Report(collected.samples, now, gaps, collected.states)
    incomplete = {(gap.feed, gap.hotkey) for gap in gaps}
    keys = {key.address for key in settings.keys}
    for hotkey in sorted(settings.watched):
        if hotkey not in keys:
            gaps.append(NotKnown("servers, GPUs, instances, jobs", hotkey, *NO_KEY))
        # Otherwise, a gap already names the feed without which the GPUs are not known.
        elif not incomplete & {(feed.name, hotkey) for feed in FLEET.feeds}:
            report.count(hotkey)
    return report


def _gaps(states: States) -> Iterator[NotKnown]:
    """Yield the feeds that are missing or could not be completely read, and what a maintenance policy does not say."""
    for feed, state in states.items():
        error, snapshot = state.last_error, state.snapshot
        if state.missing:
            reason = f"the deployment has no {feed.endpoint.path}"
            yield NotKnown(feed.name, feed.hotkey, reason, MISSING)
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
