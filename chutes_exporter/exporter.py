"""The exporter: for each scrape, reads the feeds that the collectors need and makes the page."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import structlog

from chutes_exporter import exposition, observed, sources, telemetry
from chutes_exporter.api.client import Answer, ChutesClient
from chutes_exporter.api.endpoints import stats_params
from chutes_exporter.api.errors import ApiError, CutOffError, NotFoundError, NotRegisteredError, SignatureRefusedError
from chutes_exporter.collectors import COLLECTORS, Answers, Collector, Scope
from chutes_exporter.feeds import DeadlineError, Feed, Feeds, Reading
from chutes_exporter.metric import Samples

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from typing import Self

    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.config import Settings
    from chutes_exporter.exposition import Family, Format
    from chutes_exporter.sources import AnySource

_log = structlog.get_logger("exporter")

ORDER = (
    *dict.fromkeys(metric for collector in COLLECTORS for metric in collector.metrics),
    *observed.METRICS,
    *telemetry.METRICS,
)
"""Every metric that a page may have, in the order of the page."""

_FEW = 16
"""Most watched hotkeys for which collectors that ask for each of them are on by default."""


class FeedKey(NamedTuple):
    """Which feed: a source, and the hotkey whose answer it is (empty for platform-wide answers)."""

    source: AnySource
    hotkey: str


@dataclass(frozen=True, slots=True)
class _Run:
    """A collector and whose data it is for (a hotkey, or empty)."""

    collector: Collector
    hotkey: str

    def feeds(self) -> list[FeedKey]:
        return [
            FeedKey(source, "" if source.endpoint.scope == "platform" else self.hotkey)
            for source in self.collector.sources
        ]


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


@dataclass(frozen=True, slots=True)
class _Read:
    reading: Reading[Any]
    seconds: float


class Exporter:
    """Answers scrapes.

    Args:
        settings: What to watch and whom to ask.
        clock: Unix time in seconds.

    Use it as an asynchronous context manager, or call :meth:`aclose`.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.telemetry = telemetry.Telemetry()
        self.client = ChutesClient(
            settings.api_url, timeout=settings.api_timeout, watcher=self.telemetry.observe, clock=clock
        )
        self.feeds = Feeds(on_change=_log_change, clock=clock)
        self._keys: Mapping[str, Hotkey] = {key.address: key for key in settings.keys}
        self._platform_keys = list(settings.keys)
        self._runs = tuple(_plan(settings))
        self._blocks: dict[_Run, _Block] = {}
        self._started = clock()
        self._cut: frozenset[str] = frozenset()
        self._observations = observed.Observations()
        self._building = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give up what is under way and close all connections."""
        await self.feeds.aclose()
        await self.client.aclose()

    @property
    def collectors(self) -> list[Collector]:
        """The collectors that are on."""
        return list(dict.fromkeys(run.collector for run in self._runs))

    def feed_states(self) -> list[tuple[FeedKey, Feed]]:
        """Return every feed that was read so far."""
        return [(key, feed) for key, feed in self.feeds.items() if isinstance(key, FeedKey)]

    async def page(self, form: Format, *, timeout: float, gzipped: bool = False) -> bytes:
        """Answer a scrape.

        Args:
            form: The format of the page.
            timeout: Seconds to wait for the API at most; what has not come by then is older, or left out.
            gzipped: Whether to compress the page.
        """
        keys = dict.fromkeys(key for run in self._runs for key in run.feeds())
        reads = dict(zip(keys, await asyncio.gather(*(self._read(key, timeout) for key in keys)), strict=True))
        # One page is made at a time, in a thread: scrapes that come together share the rendered blocks, and
        # requests go on being answered meanwhile.
        async with self._building:
            # Another scrape may have brought newer answers meanwhile, and old ones may have gone: what the page shows
            # and what it says of its freshness are taken at one moment, here on the loop, where nothing else moves.
            reads = {key: self._as_of_now(key, read) for key, read in reads.items()}
            own = Samples()
            own.add(telemetry.BUILD_INFO, 1, *telemetry.build_labels())
            self._observations.collect(own)
            self._report_feeds(own, reads)
            return await asyncio.to_thread(self._page, reads, own, form, gzipped)

    def _as_of_now(self, key: FeedKey, read: _Read) -> _Read:
        snapshot, old = self.feeds.peek(key), read.reading
        if snapshot is old.snapshot:
            return read
        if snapshot is None:
            return _Read(Reading(None, "failed", old.error or DeadlineError("it is too old by now")), read.seconds)
        return _Read(Reading(snapshot, old.result), read.seconds)

    async def _read(self, key: FeedKey, timeout: float) -> _Read:
        started = time.monotonic()
        source = key.source

        async def ask() -> Any:
            return await self._ask(key)

        reading: Reading[Any] = await self.feeds.read(key, ask, self.settings.policies[source.name], timeout=timeout)
        return _Read(reading, time.monotonic() - started)

    async def _ask(self, key: FeedKey) -> Answer[Any]:
        source, hotkey = key
        try:
            if not source.endpoint.signed:
                path = {"hotkey": hotkey} if source.endpoint.scope == "miner" else None
                answer = await self.client.fetch(source.endpoint, params=self._params(source), path=path)
            elif hotkey:
                answer = await self.client.fetch(source.endpoint, key=self._keys[hotkey])
            else:
                answer = await self._ask_with_any_key(source)
        except NotFoundError:
            if source.none is None:
                raise
            return Answer.nothing(source.none)
        if source is sources.NODES and not answer.value:
            await self._doubt_that_there_are_no_gpus(hotkey)
        if answer.rejected:
            _log.warning(
                "records left out",
                feed=source.name,
                rejected=answer.rejected,
                kept=answer.count,
                first_error=answer.first_error,
            )
        else:
            self._observe(key, answer)
        return answer

    def _observe(self, key: FeedKey, answer: Answer[Any]) -> None:
        # Every good answer passes here once, in order.
        now, offset = answer.received_at, self.client.clock_offset or 0.0
        if key.source is sources.INSTANCES:
            active = self.feeds.peek(FeedKey(sources.ACTIVE_INSTANCES, ""))
            still_active = {one.instance_id for one in active.value.value} if active is not None else set()
            self._observations.see_instances(key.hotkey, answer.value, now, still_active, offset)
        elif key.source is sources.NODES:
            self._observations.see_gpus(key.hotkey, answer.value, now)

    async def _doubt_that_there_are_no_gpus(self, hotkey: str) -> None:
        """An empty stream of GPUs is what a failure in mid-stream looks like too: ask the servers."""
        key = FeedKey(sources.SERVERS, hotkey)
        servers = await self._read(key, self.settings.api_timeout)
        snapshot = servers.reading.snapshot
        if snapshot is None or servers.reading.error is not None or any(server.gpus for server in snapshot.value.value):
            raise CutOffError(
                "the stream is empty, and /miner/servers/ does not say that there are no GPUs", status=200
            )

    async def _ask_with_any_key(self, source: AnySource) -> Any:
        """Ask for what is the same for every miner: a key that is refused must not hide it from the others."""
        *others, last = self._platform_keys
        for key in others:
            try:
                return await self.client.fetch(source.endpoint, key=key)
            except (NotRegisteredError, SignatureRefusedError):
                # The next time another comes first.
                self._platform_keys = [*(one for one in self._platform_keys if one is not key), key]
        return await self.client.fetch(source.endpoint, key=last)

    def _params(self, source: AnySource) -> dict[str, str]:
        if not source.per_chute:
            return {}
        # For one miner a small answer; for more, one large answer is still one request.
        single = next(iter(self.settings.watched)) if len(self.settings.watched) == 1 else None
        return stats_params(single if self.settings.miners == "watched" else None, per_chute=True)

    def _page(self, reads: Mapping[FeedKey, _Read], own: Samples, form: Format, gzipped: bool) -> bytes:  # noqa: FBT001
        blocks: dict[_Run, _Block] = {}
        for run in self._runs:
            started = time.perf_counter()
            feeds = [reads[key] for key in run.feeds()]
            block = self._block(run, [feed.reading for feed in feeds])
            labels = (run.collector.name, run.hotkey)
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
        families = [
            family for run, block in blocks.items() if run.collector.name not in cut for family in block.families
        ]
        families.extend(exposition.render(own))
        page = exposition.assemble(families, self.telemetry.families(), ORDER, form)
        return exposition.compress(page) if gzipped else page

    def _choose_cut(self, blocks: Mapping[_Run, _Block], own: Samples) -> frozenset[str]:
        """Return the collectors to leave out so that the page stays below its limit: whole ones, the least first."""
        sizes = {collector.name: 0 for collector in self.collectors}
        for run, block in blocks.items():
            sizes[run.collector.name] += block.samples
        # The most important first, each that still fits: one that is too large must not take the others with it.
        room = self.settings.max_series
        cut: set[str] = set()
        for name, size in sizes.items():
            if size <= room:
                room -= size
            else:
                cut.add(name)
        total = sum(sizes.values())
        own.add(telemetry.SERIES, total)
        own.add(telemetry.SERIES_LIMIT, self.settings.max_series)
        for name in sizes:
            own.add(telemetry.COLLECTOR_CUT, name in cut, name)
        if cut != self._cut:
            self._cut = frozenset(cut)
            _log.warning(
                "collectors left out, to stay below --max-series" if cut else "no collector is left out any more",
                collectors=" ".join(sorted(cut)),
                series=total,
                max_series=self.settings.max_series,
            )
        return self._cut

    def _block(self, run: _Run, readings: list[Reading[Any]]) -> _Block | None:
        """Return what a collector makes of its answers, or None where one is missing."""
        snapshots = [reading.snapshot for reading in readings if reading.snapshot is not None]
        if len(snapshots) < len(readings):
            self._blocks.pop(run, None)
            return None
        versions = tuple(snapshot.version for snapshot in snapshots)
        known = self._blocks.get(run)
        if known is not None and known.versions == versions:
            return known
        sources = run.collector.sources
        answers = Answers({s: snapshot.value for s, snapshot in zip(sources, snapshots, strict=True)})
        scope = Scope(self.settings.watched, self.settings.miners, run.hotkey)
        samples = Samples()
        failed = False
        try:
            run.collector.collect(answers, scope, samples)
        except Exception:  # noqa: BLE001 - whatever it is, the other collectors go on
            # A bug, or an answer that nobody thought of: it must not cost the other collectors.
            _log.exception("collector failed", collector=run.collector.name, hotkey=run.hotkey)
            samples, failed = Samples(), True
        block = _Block(versions, exposition.render(samples), samples.duplicates, failed)
        self._blocks[run] = block
        return block

    def _report_feeds(self, own: Samples, reads: Mapping[FeedKey, _Read]) -> None:
        for key, read in reads.items():
            if read.reading.snapshot is not None:
                own.add(telemetry.FEED_REJECTED, read.reading.snapshot.value.rejected, key.source.name, key.hotkey)
        for key, feed in self.feed_states():
            labels = (key.source.name, key.hotkey)
            own.add(telemetry.FEED_UP, feed.up, *labels)
            own.add(telemetry.FEED_LAST_SUCCESS, feed.last_success, *labels)
            own.add(telemetry.FEED_TTL, feed.policy.ttl, *labels)
            own.add(telemetry.FEED_MAX_AGE, feed.policy.max_age, *labels)
            for result, count in feed.results.items():
                own.add(telemetry.FEED_REQUESTS, count, *labels, result, created=self._started)


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


def _plan(settings: Settings) -> Iterable[_Run]:
    hotkeys = {
        "platform": [""],
        "signer": [key.address for key in settings.keys],
        "miner": sorted(settings.watched),
    }
    for collector in COLLECTORS:
        if enabled(collector, settings):
            for hotkey in hotkeys[collector.scope]:
                yield _Run(collector, hotkey)


def _log_change(key: Hashable, feed: Feed) -> None:
    """Log that a feed went down, in a sentence with what to do, or that it is back."""
    source, hotkey = cast("FeedKey", key)
    context = {"feed": source.name} | ({"hotkey": hotkey} if hotkey else {})
    error = feed.last_error
    if isinstance(error, ApiError):
        _log.warning("feed failed", **context, reason=error.reason, detail=str(error), advice=error.advice)
    elif error is not None:
        # No error of the API: a bug, which needs its trace.
        _log.error("feed failed", **context, reason=type(error).__name__, exc_info=error)
    else:
        _log.info("feed is back", **context)
