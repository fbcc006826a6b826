"""The exporter: for each scrape, reads the feeds that the collectors need and makes the page."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.errors import ApiError
from chutes_exporter.api.memory import keep_memory_compact
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.collectors.samples import Samples
from chutes_exporter.feeds.cache import DeadlineError, FeedCache, steady
from chutes_exporter.feeds.doubt import DoubtedError
from chutes_exporter.feeds.requests import Requests
from chutes_exporter.feeds.table import ACTIVE_INSTANCES, INSTANCES, METAGRAPH, NODES
from chutes_exporter.page import exposition, observed, telemetry
from chutes_exporter.page.plan import Plan, main_plan, probe_plan
from chutes_exporter.page.rendering import Renderer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Self

    from chutes_exporter.api.client import Answer
    from chutes_exporter.api.endpoints import Endpoint
    from chutes_exporter.collectors import Collector
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.feeds.feed import Feed, Reading
    from chutes_exporter.page.exposition import Format
    from chutes_exporter.page.rendering import Readings

_log = structlog.get_logger("exporter")

ORDER = (
    *dict.fromkeys(metric for collector in COLLECTORS for metric in collector.metrics),
    *observed.METRICS,
    *telemetry.METRICS,
)
"""Every metric that a page may have, in the order of the page."""

_LEAST_MEMORY = 64_000_000
_MEMORY_PER_SERIES = 256
"""Bytes of memory that the API's answers may take: at least, and for each series that a page may have."""
_FAST_BYTES = 1_000_000
_FAST_ENTRIES = 64
"""Assembling a page that is rendered already takes a few milliseconds up to this size."""


@dataclass(frozen=True, slots=True)
class Page:
    """The bytes of one exposition.

    Attributes:
        body: The bytes.
        readings: What each feed gave.
    """

    body: bytes
    readings: Readings


class _Wanted(NamedTuple):
    """What a scrape wants. Scrapes that want the same share the page."""

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
        self._requests = Requests(self.client, tuned=self._tuned, on_answer=self._observe)
        self.feeds = self._requests.cache = FeedCache(
            self._requests.ask, on_change=self._log_change, clock=clock, monotonic=monotonic
        )
        self._started = clock()
        self._missing: set[Endpoint[Any]] = set()
        self._observations = observed.Observations()
        self._building = asyncio.Lock()
        self._lag = 0.0
        self._adopt(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Watch other miners, or with other keys. The address of the API and the timeouts stay as they were.

        What is known of miners that are not watched any more is forgotten. Collectors that are off because the
        deployment did not have an endpoint try again.
        """
        before, feeds = self.settings.keys, set(self._main.feeds)
        self._adopt(settings)
        self.feeds.forget(feeds - set(self._main.feeds))
        self.feeds.ask_missing_again()
        for hotkey in {key.address for key in before} - {key.address for key in settings.keys}:
            self._observations.forget(hotkey)

    def _adopt(self, settings: Settings) -> None:
        self.settings = settings
        self._requests.use(settings.keys)
        self._main = main_plan(settings)
        self._renderer = Renderer(self._main, settings.max_series)
        self._making: dict[_Wanted, asyncio.Task[Page]] = {}

    def _tuned(self, feed: Feed[Any]) -> Feed[Any]:
        return self.settings.tuned(feed)

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

    def readiness(self) -> tuple[bool, str]:
        """Tell whether a first answer of the API is known, or failed, and say so in words."""
        api = self.settings.api_url
        if not self._main.feeds:
            return True, "ready, with no collector on"
        answered = [state for state in self.feeds.states() if state.up is not None]
        if not answered:
            return False, f"not ready: waiting for a first answer of {api}"
        down = [state.feed.name for state in answered if not state.up]
        return True, f"ready, though {api} fails for {', '.join(dict.fromkeys(down))}" if down else "ready"

    async def warm_up(self) -> None:
        """Ask for everything once, so that what is known is known before the first scrape."""
        await asyncio.gather(*(self.feeds.read(feed, self.settings.api_timeout) for feed in self._main.feeds))

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
        wanted = _Wanted("", frozenset(collect), seated=False, form=form, gzipped=gzipped)
        return (await self._answer(plan, wanted, time.monotonic() + timeout)).body

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
        return await self._answer(plan, _Wanted(target, frozenset(collect), seated, form, gzipped), deadline)

    async def _is_seated(self, target: str, collect: Collection[str], timeout: float) -> bool:
        """Tell whether the API may be asked about a target alone: not for each address that somebody makes up."""
        if target in self.settings.watched:
            return True
        wanted = collect or [name for name, on in self.settings.collectors.items() if on]
        if not any(one.scope == "miner" and one.name in wanted for one in COLLECTORS):
            return False
        snapshot = (await self.feeds.read(self.settings.tuned(METAGRAPH), timeout)).snapshot
        return snapshot is not None and any(node.hotkey == target for node in snapshot.answer.value)

    async def _answer(self, plan: Plan, wanted: _Wanted, deadline: float) -> Page:
        # Making the page takes time too, and so do the pages before it. If that leaves nothing, the scrape does not
        # wait. What is due is requested all the same, for the next scrape.
        wait = max(deadline - time.monotonic() - self._lag, 0.0)
        # Fast path: fresh feeds need no task.
        readings = {feed: hit for feed in plan.feeds if (hit := self.feeds.hit(feed)) is not None}
        due = [feed for feed in plan.feeds if feed not in readings]
        readings.update(zip(due, await asyncio.gather(*(self.feeds.read(feed, wait) for feed in due)), strict=True))
        began = time.monotonic()
        # Scrapes share a page that nobody has begun to make yet.
        making = self._making.get(wanted)
        if making is None:
            making = self._making[wanted] = asyncio.create_task(self._make(plan, wanted, readings))
        try:
            # A scraper that leaves must not take the page from the others.
            return await asyncio.shield(making)
        finally:
            self._lag = max(time.monotonic() - began, self._lag / 2)

    async def _make(self, plan: Plan, wanted: _Wanted, readings: Readings) -> Page:
        # One page is made at a time: scrapes that come together share what is rendered.
        async with self._building:
            self._making.pop(wanted, None)
            # Another scrape may have brought newer answers meanwhile, and old ones may have gone. The data and its
            # freshness are taken at one moment, here on the loop, where nothing else moves.
            readings = {feed: self._as_of_now(feed, reading) for feed, reading in readings.items()}
            own = Samples(with_created=self.settings.created_timestamps)
            if not plan.target:
                self._report(own)
            rendered = self._renderer.rendered(plan, readings)
            if rendered is not None and rendered <= _FAST_BYTES and len(plan.entries) <= _FAST_ENTRIES:
                # A change of threads would take longer than this, most of all where the processor is scarce.
                body = self._render(plan, wanted, readings, own)
            else:
                # In a thread, so that requests are answered meanwhile.
                body = await asyncio.to_thread(self._render, plan, wanted, readings, own)
            return Page(body, readings)

    def _render(self, plan: Plan, wanted: _Wanted, readings: Readings, own: Samples) -> bytes:
        rendering = self._renderer.render(plan, readings)
        telemetry.report(rendering, own, max_series=None if plan.target else self.settings.max_series)
        families = [*rendering.families, *exposition.render(own)]
        created = self.settings.created_timestamps
        own_end = b"" if plan.target else self.telemetry.render(wanted.form, created=created)
        page = exposition.assemble(families, own_end, ORDER, wanted.form)
        return exposition.compress(page) if wanted.gzipped else b"".join(page)

    def _as_of_now(self, feed: Feed[Any], reading: Reading[Any]) -> Reading[Any]:
        snapshot = self.feeds.peek(feed)
        if snapshot is reading.snapshot:
            return reading
        if snapshot is None:
            error = reading.error or DeadlineError("it is too old by now")
            return replace(reading, snapshot=None, result="failed", error=error)
        return replace(reading, snapshot=snapshot, error=None)

    def _observe(self, feed: Feed[Any], answer: Answer[Any]) -> None:
        # Every whole answer passes here once, in order; also the last ones of miners that are not watched any more.
        hotkey = feed.hotkey
        if all(key.address != hotkey for key in self.settings.keys):
            return
        now, offset = answer.received_at, self.client.clock_offset or 0.0
        if feed.name == INSTANCES.name:
            active = self.feeds.peek(ACTIVE_INSTANCES)
            still_active = {one.instance_id for one in active.answer.value} if active is not None else set()
            self._observations.see_instances(hotkey, answer.value, now, still_active, offset)
        elif feed.name == NODES.name:
            self._observations.see_gpus(hotkey, answer.value, now)

    def _report(self, own: Samples) -> None:
        """Add the exporter's own samples."""
        own.add(telemetry.BUILD_INFO, 1, *telemetry.build_labels())
        for hotkey in sorted(self.settings.watched):
            own.add(telemetry.WATCHED, 1, hotkey)
        own.add(telemetry.RELOAD_GOOD, self.telemetry.reload_good)
        own.add(telemetry.RELOAD_TIMESTAMP, self.telemetry.reloaded_at or self._started)
        self._observations.collect(own)
        for state in self.feeds.states():
            # A feed that only a probe asked is reported on the probe's page.
            if not state.feed.hotkey or state.feed.hotkey in self.settings.watched:
                telemetry.report_feed(state, self.feeds.peek(state.feed), own, since=self._started)

    def _log_change(self, state: FeedState) -> None:
        """Log that a feed changed its state. What a deployment does not have is logged once, not for each hotkey."""
        endpoint = state.feed.endpoint
        names = " ".join(one.name for one in COLLECTORS if any(feed.endpoint is endpoint for feed in one.feeds))
        if state.missing:
            if endpoint not in self._missing:
                self._missing.add(endpoint)
                _log.info(
                    "collector off",
                    collector=names,
                    reason=str(state.last_error),
                    advice="Nothing is wrong: this deployment is older or newer. It is asked again every hour.",
                )
        elif endpoint not in self._missing or not state.up:
            _log_change(state)
        elif not any(one.missing and one.feed.endpoint is endpoint for one in self.feeds.states()):
            self._missing.discard(endpoint)
            _log.info("collector on again", collector=names)


def _log_change(state: FeedState) -> None:
    """Log that a feed went down, with what to do, or that it is back."""
    feed, error = state.feed, state.last_error
    context = {"feed": feed.name} | ({"hotkey": feed.hotkey} if feed.hotkey else {})
    if isinstance(error, ApiError):
        _log.warning("feed failed", **context, reason=error.reason, detail=str(error), advice=error.advice)
    elif isinstance(error, DoubtedError):
        _log.warning("feed doubted", **context, reason=error.doubt, advice="The last good answer stays in use.")
    elif error is not None:
        # No error of the API: a bug, which needs its trace.
        _log.error("feed failed", **context, reason=type(error).__name__, exc_info=error)
    else:
        _log.info("feed is back", **context)
