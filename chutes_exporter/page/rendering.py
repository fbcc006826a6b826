"""Rendered samples: the lines that collectors make of answers, cached once for all pages that show them."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import cachetools
import structlog

from chutes_exporter.collectors import COLLECTORS, Answers
from chutes_exporter.collectors.samples import Samples
from chutes_exporter.feeds.feed import MissingEndpointError
from chutes_exporter.page import exposition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.feeds.feed import Feed, Reading
    from chutes_exporter.page.exposition import Family, Section
    from chutes_exporter.page.plan import Entry, Plan

    Readings = Mapping[Feed[Any], Reading[Any]]

_log = structlog.get_logger("exporter")

SECTIONS = {
    metric: " ".join(other.name for other in COLLECTORS if metric in other.metrics)
    for collector in COLLECTORS
    for metric in collector.metrics
}
"""Every metric of a collector, in the order of the page, with the name of its section: the collectors that make it."""

_BYTES_PER_SERIES = 192
"""Maximum bytes of a page for each allowed series. The largest planned page has 157."""
_LEAST_BYTES = 1_000_000
_OTHERS_BYTES = 24_000_000
_BLOCK_BYTES = 1024
"""Bytes that a block takes besides its lines."""
_COPIES = 3
"""A cached line exists as text, and may exist compressed in both formats."""


@dataclass(frozen=True, slots=True)
class _Block:
    """The lines that a collector made of certain answers.

    Attributes:
        versions: The versions of the answers.
        families: The lines, or None if they were left out because they do not fit on a page.
        samples: Number of samples.
        size: Number of bytes, or a lower bound if the lines were left out.
        duplicates: Samples that were dropped because their series had a sample already.
        failed: Whether the collector failed.
    """

    versions: tuple[int, ...]
    families: tuple[Family, ...] | None
    samples: int
    size: int
    duplicates: int = 0
    failed: bool = False

    def fits(self, samples: int, size: int) -> bool:
        """Tell whether the lines fit into the remaining samples and bytes of a page."""
        return self.samples <= samples and self.size <= size


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a collector on a page.

    Attributes:
        entry: The entry of the plan.
        success: Whether the collector had fresh answers of all its feeds and did not fail.
        seconds: Seconds for which it waited for answers and worked on them.
        duplicates: Samples that were dropped because their series had a sample already. None without an answer.
        off: Whether it is off because the deployment does not have an endpoint that it needs.
    """

    entry: Entry
    success: bool
    seconds: float
    duplicates: int | None
    off: bool


@dataclass(frozen=True, slots=True)
class Rendering:
    """The collectors' part of a page.

    Attributes:
        sections: The rendered samples.
        outcomes: The result of each collector.
        cut: Names of the collectors that are left out because the page would be too large.
        series: Series of all collectors, including those that are left out.
    """

    sections: list[Section]
    outcomes: list[Outcome]
    cut: frozenset[str]
    series: int


class Renderer:
    """Renders collectors' samples, and caches the lines as long as the answers are the same.

    It caches all lines of the main page, which ``max_series`` limits. Of other pages, it caches the most recently used
    lines, up to 8 MB, and as much again for each format in which they are compressed.

    Args:
        main: The plan of the main page.
        max_series: Maximum series of a page.
    """

    def __init__(self, main: Plan, max_series: int) -> None:
        self._main = main
        self._main_entries = frozenset(main.entries)
        self._max_series = max_series
        self._max_bytes = _LEAST_BYTES + _BYTES_PER_SERIES * max_series
        self._main_blocks: dict[Entry, _Block] = {}
        self._other_blocks: cachetools.LRUCache[Entry, _Block] = cachetools.LRUCache(
            _OTHERS_BYTES, getsizeof=_memory_of
        )
        self._cut: frozenset[str] = frozenset()
        self._newest: tuple[list[object], Rendering] | None = None

    def rendered(self, plan: Plan, readings: Readings) -> int | None:
        """Return the bytes of a page's lines if all of them are cached, otherwise None."""
        total = 0
        for entry in plan.entries:
            versions = _versions(entry, readings)
            block = None if versions is None else self._cached_block(entry, versions)
            if block is None or block.families is None:
                return None
            total += block.size
        return total

    def unchanged(self, plan: Plan, readings: Readings) -> Rendering | None:
        """Return the newest rendering of the main page if all its feeds have the same answers and errors again."""
        if plan is self._main and self._newest is not None and self._newest[0] == _known(plan, readings):
            return self._newest[1]
        return None

    def render(self, plan: Plan, readings: Readings) -> Rendering:
        """Return the collectors' part of a page.

        A page that would be too large loses whole collectors. The most important ones come first, and each collector
        that still fits stays, so that a collector that is too large does not remove the others.
        """
        if (unchanged := self.unchanged(plan, readings)) is not None:
            return unchanged
        if plan is self._main:
            # Old lines must not stay in memory while new ones are rendered.
            self._newest = None
        families: list[Family] = []
        outcomes: list[Outcome] = []
        series, size, total = self._max_series, self._max_bytes, 0
        cut: set[str] = set()
        for collector, entries in groupby(plan.entries, key=lambda entry: entry.collector):
            blocks: dict[Entry, _Block] = {}
            samples_left, size_left = series, size
            for entry in entries:
                block, seconds = self._block(plan, entry, readings, samples_left, size_left)
                outcomes.append(_outcome(entry, readings, block, seconds))
                if block is not None:
                    blocks[entry] = block
                    samples_left -= block.samples
                    size_left -= block.size
            total += series - samples_left
            if samples_left >= 0 and size_left >= 0:
                series, size = samples_left, size_left
                families += [family for block in blocks.values() for family in block.families or ()]
                continue
            cut.add(collector.name)
            if plan is self._main:
                self._main_blocks |= {entry: replace(block, families=None) for entry, block in blocks.items()}
        rendering = Rendering(exposition.sections(families, SECTIONS), outcomes, frozenset(cut), total)
        if plan is self._main:
            self._log_cut(rendering.cut, total)
            known = _known(plan, readings)
            # A page that shows these lines again neither waits nor works.
            at_once = [replace(outcome, seconds=0.0) for outcome in outcomes]
            self._newest = None if known is None else (known, replace(rendering, outcomes=at_once))
        return rendering

    def _block(
        self, plan: Plan, entry: Entry, readings: Readings, samples: int, size: int
    ) -> tuple[_Block | None, float]:
        """Return the lines of a collector, and the seconds of making them: 0 if they are cached."""
        versions = _versions(entry, readings)
        block = None if versions is None else self._cached_block(entry, versions)
        if block is not None and (block.families is not None or not block.fits(samples, size)):
            return block, 0.0
        # The old block is dropped before the new one is made, to save memory.
        self._main_blocks.pop(entry, None)
        self._other_blocks.pop(entry, None)
        if versions is None:
            return None, 0.0
        started = time.perf_counter()
        block = _render(entry, _answers(entry, readings), versions, samples, size)
        seconds = time.perf_counter() - started
        if plan is self._main or self._belongs_to_main(entry, block):
            self._main_blocks[entry] = block
        elif _memory_of(block) <= _OTHERS_BYTES:
            self._other_blocks[entry] = block
        return block, seconds

    def _belongs_to_main(self, entry: Entry, block: _Block) -> bool:
        """Return whether the main page shows these lines, too. All of its lines together have a limit."""
        kept = [one for one in self._main_blocks.values() if one.families is not None]
        samples = self._max_series - sum(one.samples for one in kept)
        size = self._max_bytes - sum(one.size for one in kept)
        return entry in self._main_entries and block.fits(samples, size)

    def _cached_block(self, entry: Entry, versions: tuple[int, ...]) -> _Block | None:
        # Lines that the main page has no room for may be those of another page.
        for blocks in (self._other_blocks, self._main_blocks):
            block = blocks.get(entry)
            if block is not None and block.versions == versions:
                return block
        return None

    def _log_cut(self, cut: frozenset[str], series: int) -> None:
        if cut != self._cut:
            self._cut = cut
            _log.warning(
                "collectors left out, to stay below --max-series" if cut else "no collector is left out any more",
                collectors=" ".join(sorted(cut)),
                series=series,
                max_series=self._max_series,
            )


def _memory_of(block: _Block) -> int:
    return _BLOCK_BYTES + _COPIES * block.size


def _known(plan: Plan, readings: Readings) -> list[object] | None:
    """Return the versions and errors of a page's answers, or None if the page waited for one."""
    known: list[object] = []
    for feed in plan.feeds:
        reading = readings[feed]
        if reading.seconds:
            return None
        known += [reading.snapshot and reading.snapshot.version, reading.error]
    return known


def _outcome(entry: Entry, readings: Readings, block: _Block | None, seconds: float) -> Outcome:
    collector_readings = [readings[feed] for feed in entry.feeds]
    return Outcome(
        entry,
        success=block is not None and not block.failed and all(reading.error is None for reading in collector_readings),
        seconds=max((reading.seconds for reading in collector_readings), default=0) + seconds,
        duplicates=None if block is None else block.duplicates,
        off=any(isinstance(reading.error, MissingEndpointError) for reading in collector_readings),
    )


def _versions(entry: Entry, readings: Readings) -> tuple[int, ...] | None:
    """Return the versions of a collector's answers (0 for a missing extra one), or None if a needed one is missing."""
    snapshots = [readings[feed].snapshot for feed in entry.feeds]
    if None in snapshots:
        return None
    snapshots += [readings[feed].snapshot for feed in entry.extra]
    return tuple([0 if snapshot is None else snapshot.version for snapshot in snapshots])


def _answers(entry: Entry, readings: Readings) -> Answers:
    known = {
        feed: snapshot.answer
        for feed in (*entry.feeds, *entry.extra)
        if (snapshot := readings[feed].snapshot) is not None
    }
    return Answers(
        {feed.name: known[feed] for feed in entry.feeds},
        {(feed.name, feed.hotkey): known[feed] for feed in entry.extra if feed in known},
    )


@dataclass(frozen=True, slots=True)
class Collected:
    """Samples of the collectors of a plan.

    Attributes:
        samples: Labels and value of each sample, by the metric's name.
        failed: The entries whose collectors failed.
        readings: The reading of each feed.
    """

    samples: Mapping[str, list[tuple[dict[str, str], float]]]
    failed: list[Entry]
    readings: Readings


def collect(plan: Plan, readings: Readings) -> Collected:
    """Return the samples of all collectors that have their answers."""
    found: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
    failed: list[Entry] = []
    for entry in plan.entries:
        if _versions(entry, readings) is None:
            continue
        samples = _collect(entry, _answers(entry, readings))
        if samples is None:
            failed.append(entry)
            continue
        for metric, family in samples.families():
            found[metric.name] += [
                (dict(zip(metric.labels, values, strict=True)), value) for values, value in family.items()
            ]
    return Collected(found, failed, readings)


def _collect(entry: Entry, answers: Answers, max_samples: float = math.inf) -> Samples | None:
    """Return the samples that a collector makes from the answers, or None if it fails."""
    samples = Samples(max_samples)
    try:
        entry.collector.collect(answers, entry.scope, samples)
    except Exception:  # noqa: BLE001 - the other collectors continue in any case
        # A bug, or an answer that nobody expected. It must not remove the other collectors.
        _log.exception("collector failed", collector=entry.collector.name, hotkey=entry.scope.hotkey)
        return None
    return samples


def _render(entry: Entry, answers: Answers, versions: tuple[int, ...], max_samples: int, max_bytes: int) -> _Block:
    """Make the samples of a collector and render them, unless they are too many."""
    collected = _collect(entry, answers, max(max_samples, 0))
    failed = collected is None
    samples = Samples() if collected is None else collected
    if samples.overflowed:
        return _Block(versions, None, samples.count, 0, samples.duplicates)
    try:
        families = tuple(
            family
            for family in exposition.render(samples, max_bytes=max_bytes)
            if entry.whole or "hotkey" in family.metric.labels
        )
    except exposition.TooLongError:
        return _Block(versions, None, samples.count, max_bytes + 1, samples.duplicates)
    shown, size = sum(family.samples for family in families), sum(len(family.lines) for family in families)
    return _Block(versions, families, shown, size, samples.duplicates, failed)
