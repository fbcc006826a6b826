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
        outcomes: By hotkey.
    """

    versions: tuple[int, ...]
    part: Part | None
    series: int
    outcomes: Mapping[str, Outcome]


class Renderer:
    """Renders collectors' samples, and keeps the lines of the main page in each format."""

    def __init__(self, main: Plan, max_series: int, *, created: bool) -> None:
        self._main = main
        self._max_series = max_series
        self._created = created
        self._kept: dict[tuple[Entry, Format], Lines] = {}
        self._own: dict[tuple[str, Format], tuple[object, Part]] = {}
        self._cut = ""

    def render(self, plan: Plan, snapshots: Snapshots, form: Format) -> dict[Entry, Lines]:
        """Return the lines of each collector of a page.

        A page that would be too large loses whole collectors. The most important ones come first, and each collector
        that still fits stays, so that a collector that is too large does not remove the others.
        """
        made: dict[Entry, Lines] = {}
        room = self._max_series
        for entry in plan.entries:
            lines = self._lines(entry, snapshots, form, room)
            if lines.series > room:
                lines = replace(lines, part=None)
            else:
                room -= lines.series
            made[entry] = lines
            if plan is self._main:
                self._kept[entry, form] = lines
        if plan is self._main:
            self._log_cut(made)
        return made

    def _lines(self, entry: Entry, snapshots: Snapshots, form: Format, room: int) -> Lines:
        versions = tuple([0 if (snapshot := snapshots[feed]) is None else snapshot.version for feed in entry.all_feeds])
        kept = self._kept.get((entry, form))
        if kept is None or kept.versions != versions or (kept.part is None and kept.series <= room):
            return _make(entry, snapshots, versions, form, room)
        return kept

    def own(self, name: str, key: object, form: Format, collect: Callable[[], Iterable[Family]]) -> Part:
        """Return lines about the exporter itself, kept as long as the key is the same."""
        kept_key, part = self._own.get((name, form), (None, None))
        if part is None or kept_key != key:
            part = Part(render(collect(), form, created=self._created))
            self._own[name, form] = key, part
        return part

    def _log_cut(self, made: Mapping[Entry, Lines]) -> None:
        cut = " ".join(sorted(entry.collector.name for entry, lines in made.items() if lines.part is None))
        if cut != self._cut:
            self._cut = cut
            _log.warning(
                "collectors left out, to stay below --max-series" if cut else "no collector is left out any more",
                collectors=cut,
                series=sum(lines.series for lines in made.values()),
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
