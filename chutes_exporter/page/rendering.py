"""Rendering: the lines that collectors make of answers, cached as long as the answers are the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from chutes_exporter.collectors import Answers
from chutes_exporter.collectors.base import Samples
from chutes_exporter.page.exposition import Part, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import Metric as Family

    from chutes_exporter.collectors.base import Outcome
    from chutes_exporter.feeds.feed import Feed, Snapshot
    from chutes_exporter.page.exposition import Format
    from chutes_exporter.page.plan import Entry, Plan

    Snapshots = Mapping[Feed[Any], Snapshot[Any] | None]

_log = structlog.get_logger("exporter")


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines that a collector made of certain answers.

    Attributes:
        versions: The versions of the answers, 0 for a missing one.
        part: The lines, or None if they were left out because the page has no room for them.
        series: Number of series.
        outcomes: The outcome of each miner's answers by hotkey.
    """

    versions: tuple[object, ...]
    part: Part | None
    series: int
    outcomes: Mapping[str, Outcome]


@dataclass(frozen=True, slots=True)
class Rendering:
    """The collectors' part of a page.

    Attributes:
        parts: The lines.
        lines: The lines of each collector, and whether they were made for this page.
        cut: Names of the collectors that are left out because the page would be too large.
        series: Series of all collectors, including those that are left out.
    """

    parts: list[Part]
    lines: dict[Entry, tuple[Lines, bool]]
    cut: frozenset[str]
    series: int


class Renderer:
    """Renders collectors' samples.

    It keeps the lines of the main page's collectors, at most ``max_series`` in each format.

    Args:
        main: The plan of the main page.
        max_series: Maximum series of a page.
        created: Whether OpenMetrics pages have created timestamps.
    """

    def __init__(self, main: Plan, max_series: int, *, created: bool) -> None:
        self._main = main
        self._max_series = max_series
        self._created = created
        self._kept: dict[tuple[Entry | str, Format], Lines] = {}
        self._cut: frozenset[str] = frozenset()

    def render(self, plan: Plan, snapshots: Snapshots, form: Format) -> Rendering:
        """Return the collectors' part of a page.

        A page that would be too large loses whole collectors. The most important ones come first, and each collector
        that still fits stays, so that a collector that is too large does not remove the others.
        """
        made: dict[Entry, tuple[Lines, bool]] = {}
        parts: list[Part] = []
        room = self._max_series
        cut: set[str] = set()
        for entry in plan.entries:
            lines, is_new = self._lines(entry, snapshots, form, room)
            made[entry] = lines, is_new
            if lines.part is not None and lines.series <= room:
                parts.append(lines.part)
                room -= lines.series
                continue
            cut.add(entry.collector.name)
            if plan is self._main:
                self._kept[entry, form] = replace(lines, part=None)
        series = sum(lines.series for lines, _ in made.values())
        if plan is self._main:
            self._log_cut(frozenset(cut), series)
        return Rendering(parts, made, frozenset(cut), series)

    def _lines(self, entry: Entry, snapshots: Snapshots, form: Format, room: int) -> tuple[Lines, bool]:
        """Return the lines of a collector, and whether they were made now."""
        versions = tuple([0 if (snapshot := snapshots[feed]) is None else snapshot.version for feed in entry.all_feeds])
        # The old lines are dropped before the new ones are made, to save memory.
        lines = self._kept.pop((entry, form), None)
        is_new = lines is None or lines.versions != versions or (lines.part is None and lines.series <= room)
        if lines is None or is_new:
            lines = None
            lines = _make(entry, snapshots, versions, form, room)
        kept = sum(other.series for (_, of), other in self._kept.items() if of is form and other.part is not None)
        if entry in self._main.entries and kept + lines.series <= self._max_series:
            self._kept[entry, form] = lines
        return lines, is_new

    def own(
        self, name: str, versions: tuple[object, ...], form: Format, collect: Callable[[], Iterable[Family]]
    ) -> Part:
        """Return lines about the exporter itself, kept as long as the versions are the same."""
        lines = self._kept.get((name, form))
        if lines is not None and lines.part is not None and lines.versions == versions:
            return lines.part
        part = Part(render(collect(), form, created=self._created))
        self._kept[name, form] = Lines(versions, part, 0, {})
        return part

    def _log_cut(self, cut: frozenset[str], series: int) -> None:
        if cut != self._cut:
            self._cut = cut
            _log.warning(
                "collectors left out, to stay below --max-series" if cut else "no collector is left out any more",
                collectors=" ".join(sorted(cut)),
                series=series,
                max_series=self._max_series,
            )


def _make(entry: Entry, snapshots: Snapshots, versions: tuple[int, ...], form: Format, room: int) -> Lines:
    samples = Samples(room)
    outcomes = collect(entry, snapshots, samples)
    if samples.overflowed:
        return Lines(versions, None, samples.count, outcomes)
    families = [family for family in samples.collect() if entry.whole or "hotkey" in family.samples[0].labels]
    return Lines(versions, Part(render(families, form)), sum(len(family.samples) for family in families), outcomes)


def collect(entry: Entry, snapshots: Snapshots, out: Samples) -> dict[str, Outcome]:
    """Add the samples of all miners whose answers are known, and return the outcomes by hotkey."""
    received = {feed: snapshot.answer for feed in entry.all_feeds if (snapshot := snapshots[feed]) is not None}
    extra = {(feed.name, feed.hotkey): received[feed] for feed in entry.extra if feed in received}
    answers = {
        hotkey: Answers({feed.name: received[feed] for feed in feeds}, extra)
        for hotkey, feeds in entry.feeds.items()
        if all(feed in received for feed in feeds)
    }
    return entry.collector.run(answers, entry.scope, out)
