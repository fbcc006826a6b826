"""What a page shows: which collectors, about whom, and what they made of the answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from chutes_exporter import exposition, telemetry
from chutes_exporter.collectors import COLLECTORS, Answers, Collector, Scope
from chutes_exporter.metric import Samples

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from chutes_exporter.config import Settings
    from chutes_exporter.exposition import Family
    from chutes_exporter.feeds import Reading, Snapshot
    from chutes_exporter.sources import AnySource

_log = structlog.get_logger("exporter")

_FEW = 16
"""Most watched hotkeys for which collectors that ask for each of them are on by default."""


class ChoiceError(ValueError):
    """A collector that was asked for by name and cannot bring anything, with the reason in a sentence."""


class FeedKey(NamedTuple):
    """Which feed: a source, and the hotkey whose answer it is (empty for platform-wide answers)."""

    source: AnySource
    hotkey: str


@dataclass(frozen=True, slots=True)
class Read:
    """What a feed said, and the seconds that a scrape waited for it."""

    reading: Reading[Any]
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """A collector, whose data it is for, and where from.

    Attributes:
        collector: The collector.
        scope: Whose data it exports.
        feeds: Its feeds, in the order of its sources.
        extra: Feeds whose answers it also uses where they are known.
        whole: Whether series that are no miner's own are shown too.
    """

    collector: Collector
    scope: Scope
    feeds: tuple[FeedKey, ...]
    extra: tuple[FeedKey, ...] = ()
    whole: bool = True


@dataclass(frozen=True, slots=True)
class _Block:
    """What a run made of certain answers."""

    versions: tuple[int, ...]
    families: list[Family]
    duplicates: int
    failed: bool

    @property
    def samples(self) -> int:
        return sum(family.samples for family in self.families)


class View:
    """Makes the data of one kind of page, and keeps what it rendered for as long as the answers are the same.

    Args:
        runs: What it shows.
        max_series: Most series that all collectors may have together.
        target: The miner that it is about; empty for the metrics page, which also tells of the exporter itself.
    """

    def __init__(self, runs: Iterable[Run], max_series: int, *, target: str = "") -> None:
        self.runs = tuple(runs)
        self.keys = tuple(dict.fromkeys(key for run in self.runs for key in (*run.feeds, *run.extra)))
        self.target = target
        self._max_series = max_series
        self._blocks: dict[Run, _Block] = {}
        self._cut: frozenset[str] = frozenset()

    @property
    def collectors(self) -> list[Collector]:
        """The collectors that it has."""
        return list(dict.fromkeys(run.collector for run in self.runs))

    def families(self, reads: Mapping[FeedKey, Read], own: Samples) -> list[Family]:
        """Return what there is to show, and report in ``own`` how it went."""
        blocks: dict[Run, _Block] = {}
        for run in self.runs:
            started = time.perf_counter()
            feeds = [reads[key] for key in run.feeds]
            extra = {key: reads[key].reading.snapshot for key in run.extra}
            block = self._block(run, [feed.reading for feed in feeds], extra)
            labels = (run.collector.name, run.scope.hotkey)
            fresh = all(feed.reading.error is None for feed in feeds)
            if block is not None:
                blocks[run] = block
                own.add(telemetry.COLLECTOR_DUPLICATES, block.duplicates, *labels)
            own.add(telemetry.COLLECTOR_SUCCESS, fresh and block is not None and not block.failed, *labels)
            own.add(
                telemetry.COLLECTOR_DURATION,
                max((feed.seconds for feed in feeds), default=0) + time.perf_counter() - started,
                *labels,
            )
        cut = self._choose_cut(blocks, own)
        return [family for run, block in blocks.items() if run.collector.name not in cut for family in block.families]

    def _choose_cut(self, blocks: Mapping[Run, _Block], own: Samples) -> frozenset[str]:
        """Return the collectors to leave out so that the page stays below its limit: whole ones, the least first."""
        sizes = {collector.name: 0 for collector in self.collectors}
        for run, block in blocks.items():
            sizes[run.collector.name] += block.samples
        # The most important first, each that still fits: one that is too large must not take the others with it.
        room = self._max_series
        cut: set[str] = set()
        for name, size in sizes.items():
            if size <= room:
                room -= size
            else:
                cut.add(name)
        total = sum(sizes.values())
        if not self.target:
            own.add(telemetry.SERIES, total)
            own.add(telemetry.SERIES_LIMIT, self._max_series)
        for name in sizes:
            own.add(telemetry.COLLECTOR_CUT, name in cut, name)
        if cut != self._cut:
            self._cut = frozenset(cut)
            _log.warning(
                "collectors left out, to stay below --max-series" if cut else "no collector is left out any more",
                collectors=" ".join(sorted(cut)),
                series=total,
                max_series=self._max_series,
            )
        return self._cut

    def _block(
        self, run: Run, readings: list[Reading[Any]], extra: Mapping[FeedKey, Snapshot[Any] | None]
    ) -> _Block | None:
        """Return what a collector makes of its answers, or None where one is missing."""
        snapshots = [reading.snapshot for reading in readings if reading.snapshot is not None]
        if len(snapshots) < len(readings):
            self._blocks.pop(run, None)
            return None
        versions = tuple(0 if one is None else one.version for one in (*snapshots, *extra.values()))
        known = self._blocks.get(run)
        if known is not None and known.versions == versions:
            return known
        sources = run.collector.sources
        answers = Answers(
            {source: snapshot.value for source, snapshot in zip(sources, snapshots, strict=True)},
            {(key.source, key.hotkey): one.value for key, one in extra.items() if one is not None},
        )
        samples = Samples()
        failed = False
        try:
            run.collector.collect(answers, run.scope, samples)
        except Exception:  # noqa: BLE001 - whatever it is, the other collectors go on
            # A bug, or an answer that nobody thought of: it must not cost the other collectors.
            _log.exception("collector failed", collector=run.collector.name, hotkey=run.scope.hotkey)
            samples, failed = Samples(), True
        families = [family for family in exposition.render(samples) if run.whole or "hotkey" in family.metric.labels]
        block = _Block(versions, families, samples.duplicates, failed)
        self._blocks[run] = block
        return block


def enabled(collector: Collector, settings: Settings) -> bool:
    """Tell whether a collector is on: as the user said, or by default, where it can work."""
    if (collector.needs_key and not settings.keys) or (collector.scope == "miner" and not settings.watched):
        return False
    default = {
        "on": True,
        "off": False,
        "watched": settings.miners == "watched",
        "few": len(settings.watched) <= _FEW,
    }
    return settings.collectors.get(collector.name, default[collector.default])


def main_view(settings: Settings, collect: Collection[str] = ()) -> View:
    """Return what the metrics page shows.

    Args:
        settings: Who is watched, and which collectors are on.
        collect: Names of the only collectors that are wanted; all that are on where it is empty.

    Raises:
        ChoiceError: A collector that is wanted is not on.
    """
    on = [collector for collector in COLLECTORS if enabled(collector, settings)]
    for name in collect:
        _require_known(name)
        if all(collector.name != name for collector in on):
            raise ChoiceError(f"the collector {name} is not on: see --collector.{name}, and whether it needs a key")
    return View(_main_runs(settings, [one for one in on if not collect or one.name in collect]), settings.max_series)


def _main_runs(settings: Settings, collectors: Iterable[Collector]) -> Iterator[Run]:
    hotkeys = {
        "platform": [""],
        "signer": [key.address for key in settings.keys],
        "miner": sorted(settings.watched),
    }
    # Stats per chute: for one miner a small answer; for more, one large answer is still one request.
    single = next(iter(settings.watched)) if len(settings.watched) == 1 and settings.miners == "watched" else ""
    for collector in collectors:
        for hotkey in hotkeys[collector.scope]:
            feeds = _feeds(collector, hotkey, single)
            yield Run(collector, Scope(settings.watched, settings.miners, hotkey), feeds, _extra(collector, settings))


def probe_view(settings: Settings, target: str, collect: Collection[str] = (), *, seated: bool = True) -> View:
    """Return what a page about one miner shows: its own series, and all of what is asked for by name.

    Args:
        settings: Which keys there are, and which collectors are on.
        target: The miner's hotkey.
        collect: Names of the only collectors that are wanted; where it is empty, all that can say something about
            the target without asking the API once for each target.
        seated: Whether the target is watched or has a seat: only then the API is asked about it alone.

    Raises:
        ChoiceError: A collector that is wanted cannot say anything.
    """
    for name in collect:
        _require_known(name)
    return View(_probe_runs(settings, target, collect, seated), settings.max_series, target=target)


def _probe_runs(settings: Settings, target: str, collect: Collection[str], seated: bool) -> Iterator[Run]:  # noqa: FBT001
    for collector in COLLECTORS:
        if collect and collector.name not in collect:
            continue
        trouble = _probe_trouble(collector, settings, target)
        if collector.scope == "miner" and not seated:
            trouble = f"the collector {collector.name} asks for each miner, and {target} is not known to have a seat"
        if collect and trouble:
            raise ChoiceError(trouble)
        if trouble or not (collect or _probed_by_default(collector, settings)):
            continue
        hotkey = "" if collector.scope == "platform" else target
        scope = Scope(frozenset({target}), "watched", hotkey)
        feeds = _feeds(collector, hotkey, single="")
        yield Run(collector, scope, feeds, _extra(collector, settings), whole=bool(collect))


def _probe_trouble(collector: Collector, settings: Settings, target: str) -> str:
    """Say why a collector cannot tell anything about a target, or nothing where it can."""
    name = collector.name
    if settings.collectors.get(name) is False:
        return f"the collector {name} is switched off"
    if collector.scope == "signer" and all(key.address != target for key in settings.keys):
        return f"the collector {name} needs the target's own seed, which is not configured here"
    if collector.needs_key and not settings.keys:
        return f"the collector {name} needs a hotkey's seed, and none is configured here"
    return ""


def _probed_by_default(collector: Collector, settings: Settings) -> bool:
    if not any("hotkey" in metric.labels for metric in collector.metrics):
        return False
    return settings.collectors.get(collector.name, collector.default == "on")


def _require_known(name: str) -> None:
    names = [collector.name for collector in COLLECTORS]
    if name not in names:
        raise ChoiceError(f"there is no collector {name[:40]!r}: choose of {', '.join(names)}")


def _extra(collector: Collector, settings: Settings) -> tuple[FeedKey, ...]:
    return tuple(FeedKey(source, key.address) for source in collector.extra for key in settings.keys)


def _feeds(collector: Collector, hotkey: str, single: str) -> tuple[FeedKey, ...]:
    def of(source: AnySource) -> str:
        if source.per_chute:
            return single
        return "" if source.endpoint.scope == "platform" else hotkey

    return tuple(FeedKey(source, of(source)) for source in collector.sources)
