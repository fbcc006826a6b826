"""The exporter: for each scrape, reads the feeds that the collectors need and makes the page."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import structlog

from chutes_exporter.api.client import Answer, ChutesClient
from chutes_exporter.api.endpoints import stats_params
from chutes_exporter.api.errors import ApiError, NotFoundError, NotRegisteredError, SignatureRefusedError
from chutes_exporter.api.memory import keep_memory_compact
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.collectors.samples import Samples
from chutes_exporter.feeds import doubt
from chutes_exporter.feeds import table as sources
from chutes_exporter.feeds.cache import DeadlineError, Feed, Feeds, Reading, steady
from chutes_exporter.page import exposition, observed, telemetry
from chutes_exporter.page.plan import FeedKey, Plan, Read, main_plan, probe_plan
from chutes_exporter.page.rendering import Renderer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping
    from typing import Self

    from chutes_exporter.api.keys import Hotkey
    from chutes_exporter.collectors import Collector
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import Snapshot
    from chutes_exporter.feeds.table import AnySource
    from chutes_exporter.page.exposition import Format

_log = structlog.get_logger("exporter")

ORDER = (
    *dict.fromkeys(metric for collector in COLLECTORS for metric in collector.metrics),
    *observed.METRICS,
    *telemetry.METRICS,
)
"""Every metric that a page may have, in the order of the page."""

_EVIDENCE_WAIT = 0.5
_LEAST_MEMORY = 64_000_000
_MEMORY_PER_SERIES = 256
"""Bytes of memory that the API's answers may take: at least, and for each series that a page may have."""
_FAST_BYTES = 1_000_000
_FAST_RUNS = 64
"""A page that is rendered already, of so many bytes and runs at most, takes a few milliseconds to put together."""


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a scrape.

    Attributes:
        body: The page.
        reads: What each feed said.
    """

    body: bytes
    reads: Mapping[FeedKey, Read]


class _Order(NamedTuple):
    """A page that is wanted: scrapes that want the same share it."""

    target: str
    collect: frozenset[str]
    seated: bool
    form: Format
    gzipped: bool


class Exporter:
    """Answers scrapes.

    Args:
        settings: What to watch and whom to ask.
        clock: Unix time in seconds.
        monotonic: A clock that never jumps, in seconds.

    Use it as an asynchronous context manager, or call :meth:`aclose`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = steady,
    ) -> None:
        keep_memory_compact()
        self.settings = settings
        self.telemetry = telemetry.Telemetry()
        self.client = ChutesClient(
            settings.api_url,
            timeout=settings.api_timeout,
            watcher=self.telemetry.observe,
            clock=clock,
            max_memory=_LEAST_MEMORY + _MEMORY_PER_SERIES * settings.max_series,
        )
        self.feeds = Feeds(on_change=_log_change, clock=clock, monotonic=monotonic)
        self._started = clock()
        self._observations = observed.Observations()
        self._building = asyncio.Lock()
        self._lag = 0.0
        self._adopt(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Watch others from now on, or with other keys; whom to ask and how stays as it was.

        What is known of miners that are not watched any more is forgotten.
        """
        keys, feeds = self._keys.keys(), set(self._main.keys)
        self._adopt(settings)
        self.feeds.forget(feeds - set(self._main.keys))
        for hotkey in keys - self._keys.keys():
            self._observations.forget(hotkey)

    def _adopt(self, settings: Settings) -> None:
        self.settings = settings
        self._keys: Mapping[str, Hotkey] = {key.address: key for key in settings.keys}
        self._platform_keys = list(settings.keys)
        self._main = main_plan(settings)
        self._renderer = Renderer(self._main, settings.max_series)
        self._orders: dict[_Order, asyncio.Task[Page]] = {}

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
        return self._main.collectors

    def feed_states(self) -> list[tuple[FeedKey, Feed]]:
        """Return every feed that was read so far."""
        return [(key, feed) for key, feed in self.feeds.items() if isinstance(key, FeedKey)]

    def readiness(self) -> tuple[bool, str]:
        """Tell whether a first answer of the API is known, or failed, and say so in words."""
        api = self.settings.api_url
        if not self._main.keys:
            return True, "ready, with no collector on"
        ended = [(key.source.name, feed) for key, feed in self.feed_states() if feed.up is not None]
        if not ended:
            return False, f"not ready: waiting for a first answer of {api}"
        down = [name for name, feed in ended if not feed.up]
        return True, f"ready, though {api} fails for {', '.join(dict.fromkeys(down))}" if down else "ready"

    async def warm_up(self) -> None:
        """Ask for everything once, so that what is known is known before the first scrape."""
        await asyncio.gather(*(self.read(key, self.settings.api_timeout) for key in self._main.keys))

    async def page(
        self, form: Format, *, timeout: float, gzipped: bool = False, collect: Collection[str] = ()
    ) -> bytes:
        """Answer a scrape of the metrics page.

        Args:
            form: The format of the page.
            timeout: Seconds in which to answer; what has not come by then is older, or left out.
            gzipped: Whether to compress the page.
            collect: Names of the only collectors that are wanted; all that are on where it is empty.

        Raises:
            ChoiceError: A collector that is wanted is not on.
        """
        plan = self._main.only(collect) if collect else self._main
        order = _Order("", frozenset(collect), seated=False, form=form, gzipped=gzipped)
        return (await self._answer(plan, order, time.monotonic() + timeout)).body

    async def probe(
        self, target: str, form: Format, *, timeout: float, gzipped: bool = False, collect: Collection[str] = ()
    ) -> Page:
        """Answer a scrape of the page about one miner.

        Args:
            target: The miner's hotkey.
            form: The format of the page.
            timeout: Seconds in which to answer; what has not come by then is older, or left out.
            gzipped: Whether to compress the page.
            collect: Names of the only collectors that are wanted.

        Raises:
            ChoiceError: A collector that is wanted cannot say anything about the target.
        """
        deadline = time.monotonic() + timeout
        seated = await self._is_seated(target, collect, timeout)
        plan = probe_plan(self.settings, target, collect, seated=seated)
        return await self._answer(plan, _Order(target, frozenset(collect), seated, form, gzipped), deadline)

    async def _is_seated(self, target: str, collect: Collection[str], timeout: float) -> bool:
        """Tell whether the API may be asked about a target alone: not for each address that somebody makes up."""
        if target in self.settings.watched:
            return True
        wanted = collect or [name for name, on in self.settings.collectors.items() if on]
        if not any(one.scope == "miner" and one.name in wanted for one in COLLECTORS):
            return False
        snapshot = (await self.read(FeedKey(sources.METAGRAPH, ""), timeout)).reading.snapshot
        return snapshot is not None and any(node.hotkey == target for node in snapshot.value.value)

    async def _answer(self, plan: Plan, order: _Order, deadline: float) -> Page:
        # Making the page takes its time, too, and so do the pages before it. Where that leaves nothing, nobody waits:
        # what is due is asked for all the same, for the next scrape.
        wait = max(deadline - time.monotonic() - self._lag, 0.0)
        # Without a task for each that is known: most scrapes find all of them so.
        reads = {key: Read(hit, 0.0) for key in plan.keys if (hit := self.feeds.hit(key)) is not None}
        due = [key for key in plan.keys if key not in reads]
        reads.update(zip(due, await asyncio.gather(*(self.read(key, wait) for key in due)), strict=True))
        began = time.monotonic()
        # Whoever wants a page that nobody has begun to make yet shares it.
        making = self._orders.get(order)
        if making is None:
            making = self._orders[order] = asyncio.create_task(self._make(plan, order, reads))
        try:
            # A scraper that leaves must not take the page from the others.
            return await asyncio.shield(making)
        finally:
            self._lag = max(time.monotonic() - began, self._lag / 2)

    async def _make(self, plan: Plan, order: _Order, reads: dict[FeedKey, Read]) -> Page:
        # One page is made at a time: scrapes that come together share what is rendered.
        async with self._building:
            self._orders.pop(order, None)
            # Another scrape may have brought newer answers meanwhile, and old ones may have gone: what the page shows
            # and what it says of its freshness are taken at one moment, here on the loop, where nothing else moves.
            reads = {key: self._as_of_now(key, read) for key, read in reads.items()}
            own = Samples(with_created=self.settings.created_timestamps)
            whole = not order.target
            if whole:
                own.add(telemetry.BUILD_INFO, 1, *telemetry.build_labels())
                for hotkey in sorted(self.settings.watched):
                    own.add(telemetry.WATCHED, 1, hotkey)
                own.add(telemetry.RELOAD_GOOD, self.telemetry.reload_good)
                own.add(telemetry.RELOAD_TIMESTAMP, self.telemetry.reloaded_at or self._started)
                self._observations.collect(own)
                self._report_feeds(own)
            rendered = self._renderer.rendered(plan, reads)
            if rendered is not None and rendered <= _FAST_BYTES and len(plan.runs) <= _FAST_RUNS:
                # Where the processor is scarce, each change of threads costs more than that.
                return Page(self._render(plan, order, reads, own), reads)
            # In a thread: requests go on being answered meanwhile.
            return Page(await asyncio.to_thread(self._render, plan, order, reads, own), reads)

    def _render(self, plan: Plan, order: _Order, reads: Mapping[FeedKey, Read], own: Samples) -> bytes:
        families = self._renderer.families(plan, reads, own)
        families.extend(exposition.render(own))
        created = self.settings.created_timestamps
        own_end = b"" if order.target else self.telemetry.render(order.form, created=created)
        page = exposition.assemble(families, own_end, ORDER, order.form)
        return exposition.compress(page) if order.gzipped else b"".join(page)

    def _as_of_now(self, key: FeedKey, read: Read) -> Read:
        snapshot, old = self.feeds.peek(key), read.reading
        if snapshot is old.snapshot:
            return read
        if snapshot is None:
            return Read(Reading(None, "failed", old.error or DeadlineError("it is too old by now")), read.seconds)
        return Read(Reading(snapshot, old.result), read.seconds)

    async def read(self, key: FeedKey, timeout: float) -> Read:
        """Read a feed, waiting for the API for so many seconds at most."""
        started = time.monotonic()
        source = key.source

        async def ask() -> Any:
            return await self._ask(key)

        reading: Reading[Any] = await self.feeds.read(
            key, ask, self.settings.policies[source.name], timeout=timeout, group=source.endpoint
        )
        return Read(reading, time.monotonic() - started)

    async def _ask(self, key: FeedKey) -> Answer[Any]:
        source, last = key.source, self._believed(key)
        answer = await self._request(key)
        if doubted := await self._doubt(key, answer):
            if doubted in doubt.WORTH_ASKING_AGAIN:
                # What the answer was compared with may be older than it.
                for other in source.evidence:
                    if other.endpoint.scope == "signer":
                        self.feeds.expire(FeedKey(other, key.hotkey))
                first, answer = answer, await self._request(key)
                doubted = await self._doubt(key, answer)
                if doubted == "shrunk" and doubt.confirms(answer.listed, first.listed):
                    doubted = self._check(source, answer, last, await self._evidence(key))
            if doubted and last is not None:
                raise doubt.DoubtedError(doubted, self.settings.policies[source.name].ttl)
            answer = replace(answer, doubt=doubted)
        if answer.rejected:
            _log.warning(
                "records left out",
                feed=source.name,
                rejected=answer.rejected,
                kept=answer.count,
                first_error=answer.first_error,
            )
        elif answer.doubt is None:
            self._observe(key, answer)
        return answer

    async def _request(self, key: FeedKey) -> Answer[Any]:
        source, hotkey = key
        try:
            if not source.endpoint.signed:
                params = stats_params(hotkey or None, per_chute=True) if source.per_chute else None
                path = {"hotkey": hotkey} if source.endpoint.scope == "miner" else None
                return await self.client.fetch(source.endpoint, params=params, path=path)
            if hotkey:
                return await self.client.fetch(source.endpoint, key=self._keys[hotkey])
            return await self._ask_with_any_key(source)
        except NotFoundError:
            if source.none is None:
                raise
            last = self.feeds.peek(key)
            if last is not None and last.value.count:
                # Whoever had a history keeps it: the service has lost its cache.
                raise doubt.DoubtedError("no_history", self.settings.policies[source.name].ttl) from None
            return Answer.nothing(source.none)

    def _believed(self, key: FeedKey) -> Snapshot[Any] | None:
        """Return the newest answer that is not doubted. One that is doubted gives way to any newer one."""
        last = self.feeds.peek(key)
        return None if last is None or last.value.doubt is not None else last

    async def _doubt(self, key: FeedKey, answer: Answer[Any]) -> doubt.Reason | None:
        """Return a reason to doubt an answer, or None."""
        last = self._believed(key)
        shrinks = last is not None and doubt.shrinks(answer.listed, last.value.listed)
        if shrinks and "shrunk" in key.source.doubts:
            return "shrunk"
        return self._check(key.source, answer, last, await self._evidence(key))

    @staticmethod
    def _check(
        source: AnySource, answer: Answer[Any], last: Snapshot[Any] | None, evidence: list[Any]
    ) -> doubt.Reason | None:
        # A record that could not be read is missing too, and known to be.
        if source.check is None or answer.rejected:
            return None
        return source.check(answer.value, None if last is None else last.value.value, *evidence)

    async def _evidence(self, key: FeedKey) -> list[Any]:
        """Return what other endpoints say, None for what does not come soon: it must not hold up the answer.

        A miner's own endpoints are asked where needed, the platform's only where that is known or under way.
        """
        snapshots = []
        for source in key.source.evidence:
            signer = source.endpoint.scope == "signer"
            other = FeedKey(source, key.hotkey if signer else "")
            if signer or self.feeds.under_way(other):
                read = await self.read(other, _EVIDENCE_WAIT)
                snapshots.append(read.reading.snapshot if read.reading.error is None else None)
            else:
                snapshots.append(self.feeds.peek(other))
        return [None if snapshot is None else snapshot.value.value for snapshot in snapshots]

    def _observe(self, key: FeedKey, answer: Answer[Any]) -> None:
        # Every good answer passes here once, in order; the last ones of miners that are not watched any more, too.
        if key.hotkey not in self._keys:
            return
        now, offset = answer.received_at, self.client.clock_offset or 0.0
        if key.source is sources.INSTANCES:
            active = self.feeds.peek(FeedKey(sources.ACTIVE_INSTANCES, ""))
            still_active = {one.instance_id for one in active.value.value} if active is not None else set()
            self._observations.see_instances(key.hotkey, answer.value, now, still_active, offset)
        elif key.source is sources.NODES:
            self._observations.see_gpus(key.hotkey, answer.value, now)

    async def _ask_with_any_key(self, source: AnySource) -> Answer[Any]:
        """Ask for what is the same for every miner: a key that is refused must not hide it from the others."""
        *others, last = self._platform_keys
        for key in others:
            try:
                return await self.client.fetch(source.endpoint, key=key)
            except (NotRegisteredError, SignatureRefusedError):
                # The next time another comes first; one that was taken away meanwhile does not come back.
                known = self._platform_keys
                self._platform_keys = [one for one in known if one is not key] + [one for one in known if one is key]
        return await self.client.fetch(source.endpoint, key=last)

    def _report_feeds(self, own: Samples) -> None:
        for key, feed in self.feed_states():
            if key.hotkey and key.hotkey not in self.settings.watched:
                continue  # asked by a probe, whose page says how it went
            labels = (key.source.name, key.hotkey)
            snapshot = self.feeds.peek(key)
            if snapshot is not None:
                own.add(telemetry.FEED_REJECTED, snapshot.value.rejected, *labels)
                own.add(telemetry.FEED_RECORDS, snapshot.value.count, *labels)
            doubted = getattr(feed.last_error, "doubt", None) or (snapshot and snapshot.value.doubt)
            for reason in key.source.doubts:
                own.add(telemetry.FEED_DOUBTED, reason == doubted, *labels, reason)
            own.add(telemetry.FEED_UP, feed.up, *labels)
            if feed.last_error is not None:
                own.add(telemetry.FEED_FAILURE, 1, *labels, getattr(feed.last_error, "reason", "error"))
            own.add(telemetry.FEED_LAST_SUCCESS, feed.last_success, *labels)
            own.add(telemetry.FEED_TTL, feed.policy.ttl, *labels)
            own.add(telemetry.FEED_MAX_AGE, feed.policy.max_age, *labels)
            for result, count in feed.results.items():
                own.add(telemetry.FEED_REQUESTS, count, *labels, result, created=self._started)


def _log_change(key: Hashable, feed: Feed) -> None:
    """Log that a feed went down, in a sentence with what to do, or that it is back."""
    source, hotkey = cast("FeedKey", key)
    context = {"feed": source.name} | ({"hotkey": hotkey} if hotkey else {})
    error = feed.last_error
    if isinstance(error, ApiError):
        _log.warning("feed failed", **context, reason=error.reason, detail=str(error), advice=error.advice)
    elif isinstance(error, doubt.DoubtedError):
        _log.warning("feed doubted", **context, reason=error.doubt, advice="The last good answer stays in use.")
    elif error is not None:
        # No error of the API: a bug, which needs its trace.
        _log.error("feed failed", **context, reason=type(error).__name__, exc_info=error)
    else:
        _log.info("feed is back", **context)
