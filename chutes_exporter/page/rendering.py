"""Rendered samples: what collectors made of the answers, kept once for all pages that show it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import cachetools
import structlog

from chutes_exporter.collectors import Answers
from chutes_exporter.collectors.samples import Samples
from chutes_exporter.feeds.feed import MissingEndpointError
from chutes_exporter.page import exposition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.feeds.feed import Feed, Reading
    from chutes_exporter.page.exposition import Family
    from chutes_exporter.page.plan import Entry, Plan

    Readings = Mapping[Feed[Any], Reading[Any]]

_log = structlog.get_logger("exporter")

_BYTES_PER_SERIES = 192
"""Bytes of a page for each series that it may have; they are 157 on the largest page that is planned for."""
_LEAST_BYTES = 1_000_000
_OTHERS_BYTES = 8_000_000
_BLOCK_BYTES = 1024
"""What a block takes besides its lines."""


@dataclass(frozen=True, slots=True)
class _Block:
    """What a collector made of certain answers.

    Attributes:
        versions: Of the answers.
        families: The lines, or None where they were left out because a page has no room for so many.
        samples: How many samples they are.
        size: How many bytes they are, or are at least where they were left out.
        duplicates: Samples that were dropped because their series had one already.
        failed: Whether the collector failed.
    """

    versions: tuple[int, ...]
    families: tuple[Family, ...] | None
    samples: int
    size: int
    duplicates: int = 0
    failed: bool = False

    def fits(self, samples: int, size: int) -> bool:
        """Tell whether it fits where there is room for so many samples and bytes."""
        return self.samples <= samples and self.size <= size


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a collector did.

    Attributes:
        entry: The entry of the plan.
        success: Whether it had fresh answers of all its feeds and did not fail.
        seconds: How long it waited for answers and worked on them.
        duplicates: Samples that were dropped because their series had one already; None without an answer.
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
        families: The rendered samples.
        outcomes: How each collector did.
        cut: Names of the collectors that are left out because the page would be too large.
        series: Series of all collectors, those that are left out included.
    """

    families: list[Family]
    outcomes: list[Outcome]
    cut: frozenset[str]
    series: int


class Renderer:
    """Renders collectors' samples, and keeps the lines for as long as the answers are the same.

    It keeps all lines of the main page, which the limit of series bounds, and up to 8 MB of lines of other pages, the
    most recently used ones.

    Args:
        main: The plan of the main page.
        max_series: Maximum series of a page.
    """

    def __init__(self, main: Plan, max_series: int) -> None:
        self._main = main
        self._max_series = max_series
        self._max_bytes = _LEAST_BYTES + _BYTES_PER_SERIES * max_series
        self._main_blocks: dict[Entry, _Block] = {}
        self._other_blocks: cachetools.LRUCache[Entry, _Block] = cachetools.LRUCache(
            _OTHERS_BYTES, getsizeof=lambda block: _BLOCK_BYTES + block.size
        )
        self._cut: frozenset[str] = frozenset()

    def rendered(self, plan: Plan, readings: Readings) -> int | None:
        """Return how many bytes of lines a page has where all of them are rendered already, otherwise None."""
        total = 0
        for entry in plan.entries:
            versions = _versions(entry, readings)
            if versions is None:
                continue
            block = self._known(entry, versions)
            if block is None or block.families is None:
                return None
            total += block.size
        return total

    def render(self, plan: Plan, readings: Readings) -> Rendering:
        """Return the collectors' part of a page.

        A page that would be too large loses whole collectors. The most important come first, and each is kept that
        still fits: one that is too large must not take the others with it.
        """
        families: list[Family] = []
        outcomes: list[Outcome] = []
        series, size, total = self._max_series, self._max_bytes, 0
        cut: set[str] = set()
        for collector, entries in groupby(plan.entries, key=lambda entry: entry.collector):
            blocks: dict[Entry, _Block] = {}
            samples_left, size_left = series, size
            for entry in entries:
                started = time.perf_counter()
                block = self._block(plan, entry, readings, samples_left, size_left)
                outcomes.append(_outcome(entry, readings, block, time.perf_counter() - started))
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
        if plan is self._main:
            self._log_cut(frozenset(cut), total)
        return Rendering(families, outcomes, frozenset(cut), total)

    def _block(self, plan: Plan, entry: Entry, readings: Readings, samples: int, size: int) -> _Block | None:
        versions = _versions(entry, readings)
        block = None if versions is None else self._known(entry, versions)
        if block is not None and (block.families is not None or not block.fits(samples, size)):
            return block
        # The old block makes room before the new one is made.
        self._main_blocks.pop(entry, None)
        self._other_blocks.pop(entry, None)
        if versions is None:
            return None
        block = _render(entry, _answers(entry, readings), versions, samples, size)
        if plan is self._main:
            self._main_blocks[entry] = block
        elif _BLOCK_BYTES + block.size <= _OTHERS_BYTES:
            self._other_blocks[entry] = block
        return block

    def _known(self, entry: Entry, versions: tuple[int, ...]) -> _Block | None:
        for blocks in (self._main_blocks, self._other_blocks):
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


def _outcome(entry: Entry, readings: Readings, block: _Block | None, seconds: float) -> Outcome:
    own = [readings[feed] for feed in entry.feeds]
    return Outcome(
        entry,
        success=block is not None and not block.failed and all(reading.error is None for reading in own),
        seconds=max((reading.seconds for reading in own), default=0) + seconds,
        duplicates=None if block is None else block.duplicates,
        off=any(isinstance(reading.error, MissingEndpointError) for reading in own),
    )


def _versions(entry: Entry, readings: Readings) -> tuple[int, ...] | None:
    """Return the versions of a collector's answers, 0 for a missing extra one; None where it cannot run."""
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


def _render(entry: Entry, answers: Answers, versions: tuple[int, ...], max_samples: int, max_bytes: int) -> _Block:
    """Make the samples of a collector and render them, unless they are too many."""
    samples = Samples(max(max_samples, 0))
    failed = False
    try:
        entry.collector.collect(answers, entry.scope, samples)
    except Exception:  # noqa: BLE001 - whatever it is, the other collectors go on
        # A bug, or an answer that nobody thought of: it must not cost the other collectors.
        _log.exception("collector failed", collector=entry.collector.name, hotkey=entry.scope.hotkey)
        samples, failed = Samples(), True
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
