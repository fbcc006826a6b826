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
from chutes_exporter.page import exposition, telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.feeds.cache import Snapshot
    from chutes_exporter.page.exposition import Family
    from chutes_exporter.page.plan import FeedKey, Plan, Read, Run

_log = structlog.get_logger("exporter")

_BYTES_PER_SERIES = 192
"""Bytes of a page for each series that it may have; they are 157 on the largest page that is planned for."""
_LEAST_BYTES = 1_000_000
_OTHERS_BYTES = 8_000_000
_BLOCK_BYTES = 1024
"""What a block takes besides its lines."""


@dataclass(frozen=True, slots=True)
class _Block:
    """What a run made of certain answers.

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


class Renderer:
    """Renders collectors' samples, and keeps the lines for as long as the answers are the same.

    The lines of the main page are kept in any case, which its limit of series bounds; those of all other pages
    together up to 8 MB, the ones used last.

    Args:
        main: The plan of the main page.
        max_series: Most series that a page may have.
    """

    def __init__(self, main: Plan, max_series: int) -> None:
        self._main = main
        self._max_series = max_series
        self._max_bytes = _LEAST_BYTES + _BYTES_PER_SERIES * max_series
        self._main_blocks: dict[Run, _Block] = {}
        self._other_blocks: cachetools.LRUCache[Run, _Block] = cachetools.LRUCache(
            _OTHERS_BYTES, getsizeof=lambda block: _BLOCK_BYTES + block.size
        )
        self._cut: frozenset[str] = frozenset()

    def rendered(self, plan: Plan, reads: Mapping[FeedKey, Read]) -> int | None:
        """Return how many bytes of lines a page has where all of them are rendered already, otherwise None."""
        total = 0
        for run in plan.runs:
            versions = _versions(run, reads)
            if versions is None:
                continue
            block = self._known(run, versions)
            if block is None or block.families is None:
                return None
            total += block.size
        return total

    def families(self, plan: Plan, reads: Mapping[FeedKey, Read], own: Samples) -> list[Family]:
        """Return the lines of a page, and add to ``own`` how it went.

        Where they are too many, whole collectors are left out. The most important come first, and each is shown that
        still fits: one that is too large must not take the others with it.
        """
        families: list[Family] = []
        series, size, total = self._max_series, self._max_bytes, 0
        cut: set[str] = set()
        for collector, runs in groupby(plan.runs, key=lambda run: run.collector):
            blocks: dict[Run, _Block] = {}
            samples_left, size_left = series, size
            for run in runs:
                block = self._run(plan, run, reads, own, samples_left, size_left)
                if block is not None:
                    blocks[run] = block
                    samples_left -= block.samples
                    size_left -= block.size
            total += series - samples_left
            fits = samples_left >= 0 and size_left >= 0
            own.add(telemetry.COLLECTOR_CUT, not fits, collector.name)
            if fits:
                series, size = samples_left, size_left
                families += [family for block in blocks.values() for family in block.families or ()]
                continue
            cut.add(collector.name)
            for run, block in blocks.items():
                if run in self._main_blocks and plan is self._main:
                    self._main_blocks[run] = replace(block, families=None)
        if not plan.target:
            own.add(telemetry.SERIES, total)
            own.add(telemetry.SERIES_LIMIT, self._max_series)
        if plan is self._main:
            self._log_cut(frozenset(cut), total)
        return families

    def _run(
        self, plan: Plan, run: Run, reads: Mapping[FeedKey, Read], own: Samples, samples: int, size: int
    ) -> _Block | None:
        """Return the block of a run, or None where an answer is missing, and add to ``own`` how it went."""
        started = time.perf_counter()
        feeds = [reads[key] for key in run.feeds]
        block = self._block(plan, run, reads, samples, size)
        labels = (run.collector.name, run.scope.hotkey)
        fresh = all(feed.reading.error is None for feed in feeds)
        if block is not None:
            own.add(telemetry.COLLECTOR_DUPLICATES, block.duplicates, *labels)
        own.add(telemetry.COLLECTOR_SUCCESS, fresh and block is not None and not block.failed, *labels)
        own.add(
            telemetry.COLLECTOR_DURATION,
            max((feed.seconds for feed in feeds), default=0) + time.perf_counter() - started,
            *labels,
        )
        return block

    def _block(self, plan: Plan, run: Run, reads: Mapping[FeedKey, Read], samples: int, size: int) -> _Block | None:
        versions = _versions(run, reads)
        block = None if versions is None else self._known(run, versions)
        if block is not None and (block.families is not None or not block.fits(samples, size)):
            return block
        # What is old makes room before the new is made.
        self._main_blocks.pop(run, None)
        self._other_blocks.pop(run, None)
        if versions is None:
            return None
        block = _render(run, _answers(run, reads), versions, samples, size)
        if plan is self._main:
            self._main_blocks[run] = block
        elif _BLOCK_BYTES + block.size <= _OTHERS_BYTES:
            self._other_blocks[run] = block
        return block

    def _known(self, run: Run, versions: tuple[int, ...]) -> _Block | None:
        for blocks in (self._main_blocks, self._other_blocks):
            block = blocks.get(run)
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


def _snapshot(reads: Mapping[FeedKey, Read], key: FeedKey) -> Snapshot[Any] | None:
    return reads[key].reading.snapshot


def _versions(run: Run, reads: Mapping[FeedKey, Read]) -> tuple[int, ...] | None:
    """Return the versions of a run's answers, 0 for an extra one that is missing; None where one that it needs is."""
    snapshots = [_snapshot(reads, key) for key in run.feeds]
    if None in snapshots:
        return None
    snapshots += [_snapshot(reads, key) for key in run.extra]
    return tuple([0 if snapshot is None else snapshot.version for snapshot in snapshots])


def _answers(run: Run, reads: Mapping[FeedKey, Read]) -> Answers:
    known = {key: one.value for key in (*run.feeds, *run.extra) if (one := _snapshot(reads, key)) is not None}
    return Answers(
        {key.source: known[key] for key in run.feeds},
        {(key.source, key.hotkey): known[key] for key in run.extra if key in known},
    )


def _render(run: Run, answers: Answers, versions: tuple[int, ...], max_samples: int, max_bytes: int) -> _Block:
    """Make the samples of a run and render them, unless they are too many."""
    samples = Samples(max(max_samples, 0))
    failed = False
    try:
        run.collector.collect(answers, run.scope, samples)
    except Exception:  # noqa: BLE001 - whatever it is, the other collectors go on
        # A bug, or an answer that nobody thought of: it must not cost the other collectors.
        _log.exception("collector failed", collector=run.collector.name, hotkey=run.scope.hotkey)
        samples, failed = Samples(), True
    if samples.overflowed:
        return _Block(versions, None, samples.count, 0, samples.duplicates)
    try:
        families = tuple(
            family
            for family in exposition.render(samples, max_bytes=max_bytes)
            if run.whole or "hotkey" in family.metric.labels
        )
    except exposition.TooLongError:
        return _Block(versions, None, samples.count, max_bytes + 1, samples.duplicates)
    shown, size = sum(family.samples for family in families), sum(len(family.lines) for family in families)
    return _Block(versions, families, shown, size, samples.duplicates, failed)
