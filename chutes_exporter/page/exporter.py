"""The exporter: reads the feeds that a scrape needs, and makes the page."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from chutes_exporter.api.client import ChutesClient
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.collectors.samples import Samples
from chutes_exporter.feeds.cache import DeadlineError, FeedCache, steady
from chutes_exporter.feeds.requests import Requests
from chutes_exporter.feeds.table import METAGRAPH
from chutes_exporter.page import exposition, money, observed, telemetry
from chutes_exporter.page.compression import gzip_page
from chutes_exporter.page.exposition import Format
from chutes_exporter.page.plan import Plan, main_plan, probe_plan
from chutes_exporter.page.process import render_process
from chutes_exporter.page.rendering import SECTIONS, Renderer, collect

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Self

    from chutes_exporter.api.client import Exchange
    from chutes_exporter.collectors import Collector
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.feed import Feed, Reading
    from chutes_exporter.page.exposition import Family
    from chutes_exporter.page.rendering import Collected, Readings, Rendering

_log = structlog.get_logger("exporter")

ORDER = (*SECTIONS, *observed.METRICS, *money.METRICS, *telemetry.METRICS)
"""Every metric of a page, in the order of the page."""
_TELEMETRY_SECTIONS = {
    **dict.fromkeys((*observed.METRICS, *money.METRICS), "exporter"),
    **{metric: "collectors" if "_scrape_" in metric.name else "exporter" for metric in telemetry.METRICS},
}

_FAST_BYTES = 1_000_000
_FAST_ENTRIES = 64
"""Up to this size, assembling and compressing a page whose lines are cached takes a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Page:
    """The bytes of one exposition.

    Attributes:
        parts: The bytes, in parts that pages share.
        readings: The reading of each feed.
    """

    parts: list[bytes]
    readings: Readings

    @property
    def body(self) -> bytes:
        """The bytes in one piece."""
        return b"".join(self.parts)


class _Wanted(NamedTuple):
    """The page that a scrape asks for. Scrapes that ask for the same page share it."""

    target: str
    collect: frozenset[str]
    seated: bool
    form: Format
    gzipped: bool


class _State(NamedTuple):
    """The state of the exporter and its feeds at the moment of a page.

    Attributes:
        key: Differs if the samples differ.
        samples: The samples, or None if the key is that of the page before.
        rendered: The samples of the page before, rendered.
        counts: The readings of each feed since a time, which change with every scrape.
    """

    key: object
    samples: Samples | None
    rendered: list[Family]
    counts: list[tuple[Feed[Any], float, tuple[int, ...]]]


class Exporter:
    """Answers scrapes.

    Args:
        settings: The miners to watch, and the API to request.
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
        self.settings = settings
        self.telemetry = telemetry.Telemetry()
        self.client = ChutesClient(
            settings.api_url,
            timeout=settings.api_timeout,
            watcher=self._note_exchange,
            clock=clock,
        )
        self._requests = Requests(self.client)
        self.feeds = FeedCache(self._requests.fetch, clock=clock, monotonic=monotonic)
        self._started = clock()
        self._observations = observed.Observations()
        self._building = asyncio.Lock()
        self._lag = 0.0
        self._adopt(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Watch other miners, or use other keys. The address of the API and the timeouts stay the same.

        The data of miners that are no longer watched is dropped. Collectors that are off because the deployment did not
        have an endpoint try again.
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
        self._exporter_part: tuple[object, list[Family]] = None, []
        self._collector_part: tuple[object, list[Family]] = None, []
        self._making: dict[_Wanted, asyncio.Task[Page]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel running requests and close all connections."""
        await self.feeds.aclose()
        await self.client.aclose()

    @property
    def collectors(self) -> list[Collector]:
        """The collectors that are on."""
        return self._main.collectors

    def readiness(self) -> tuple[bool, str]:
        """Tell whether a first request to the API has succeeded or failed, and say so in words."""
        api = self.settings.api_url
        if not self._main.feeds:
            return True, "ready, with no collector on"
        answered = [state for state in self.feeds.states() if state.up is not None]
        if not answered:
            return False, f"not ready: waiting for the first answer from {api}"
        down = [state.feed.name for state in answered if not state.up]
        return True, f"ready, but {api} fails for {', '.join(dict.fromkeys(down))}" if down else "ready"

    async def warm_up(self) -> None:
        """Request each feed once, before the first scrape."""
        await asyncio.gather(*(self.feeds.read(feed, self.settings.api_timeout) for feed in self._main.feeds))

    async def samples(self, metrics: Collection[str], *, timeout: float) -> Collected:
        """Request the data of some metrics once, and return their samples, for commands.

        Args:
            metrics: Names of the metrics. Their collectors run if they are on, so other metrics of these collectors are
                returned too.
            timeout: Seconds to wait for the answers.
        """
        wanted = [one.name for one in self.collectors if any(metric.name in metrics for metric in one.metrics)]
        plan = self._main.only(wanted)
        feeds = await asyncio.gather(*(self.feeds.read(feed, timeout) for feed in plan.feeds))
        readings = dict(zip(plan.feeds, feeds, strict=True))
        return collect(plan, readings)

    async def page(
        self, form: Format, *, timeout: float, gzipped: bool = False, collect: Collection[str] = ()
    ) -> bytes:
        """Return the bytes of :meth:`metrics` in one piece."""
        return (await self.metrics(form, timeout=timeout, gzipped=gzipped, collect=collect)).body

    async def metrics(
        self, form: Format, *, timeout: float, gzipped: bool = False, collect: Collection[str] = ()
    ) -> Page:
        """Answer a scrape of the metrics page.

        Args:
            form: The format of the page.
            timeout: Seconds in which to answer. Data that has not arrived by then is older, or left out.
            gzipped: Whether to compress the page.
            collect: Names of the only collectors to show. If empty, all that are on.

        Raises:
            ChoiceError: One of these collectors is not on.
        """
        plan = self._main.only(collect) if collect else self._main
        wanted = _Wanted("", frozenset(collect), seated=False, form=form, gzipped=gzipped)
        return await self._answer(plan, wanted, time.monotonic() + timeout)

    async def probe(
        self, target: str, form: Format, *, timeout: float, gzipped: bool = False, collect: Collection[str] = ()
    ) -> Page:
        """Answer a scrape of the page about one miner.

        Args:
            target: The miner's hotkey.
            form: The format of the page.
            timeout: Seconds in which to answer. Data that has not arrived by then is older, or left out.
            gzipped: Whether to compress the page.
            collect: Names of the only collectors to show.

        Raises:
            ChoiceError: One of these collectors has no data about the target.
        """
        deadline = time.monotonic() + timeout
        seated = await self._is_seated(target, collect, timeout)
        plan = probe_plan(self.settings, target, collect, seated=seated)
        return await self._answer(plan, _Wanted(target, frozenset(collect), seated, form, gzipped), deadline)

    async def _is_seated(self, target: str, collect: Collection[str], timeout: float) -> bool:
        """Return whether requests about this target are allowed. They are not allowed for addresses without a seat."""
        if target in self.settings.watched:
            return True
        wanted = collect or [name for name, on in self.settings.collectors.items() if on]
        if not any(one.scope == "miner" and one.name in wanted for one in COLLECTORS):
            return False
        snapshot = (await self.feeds.read(self.settings.tuned(METAGRAPH), timeout)).snapshot
        return snapshot is not None and any(node.hotkey == target for node in snapshot.answer.value)

    async def _answer(self, plan: Plan, wanted: _Wanted, deadline: float) -> Page:
        # A reload replaces it: a page of the settings before is never shared with later scrapes.
        shared = self._making
        # Making this page and the pages before it takes time too. If no time is left, the scrape does not wait. Due
        # feeds are still requested, for the next scrape.
        wait = max(deadline - time.monotonic() - self._lag, 0.0)
        feeds = await asyncio.gather(*(self.feeds.read(feed, wait) for feed in plan.feeds))
        readings = dict(zip(plan.feeds, feeds, strict=True))
        waited = any(reading.seconds for reading in feeds)
        if not waited and not self._building.locked() and self._is_fast(plan, wanted, readings):
            # A change of tasks or threads would take longer than this, most of all if the processor is busy.
            return Page(self._render(plan, wanted, readings, self._state(plan, readings)), readings)
        began = time.monotonic()
        # Scrapes share a page that is not being made yet.
        making = shared.get(wanted)
        if making is None:
            making = shared[wanted] = asyncio.create_task(self._make(plan, wanted, readings, shared))
        try:
            # A scraper that disconnects must not cancel the page of the others.
            return await asyncio.shield(making)
        finally:
            self._lag = max(time.monotonic() - began, self._lag / 2)

    async def _make(
        self, plan: Plan, wanted: _Wanted, readings: Readings, shared: dict[_Wanted, asyncio.Task[Page]]
    ) -> Page:
        # One page is made at a time: scrapes that come together share the lines.
        async with self._building:
            del shared[wanted]
            # Another scrape may have brought newer answers meanwhile, and old answers may have expired. The data and
            # its freshness are taken at one moment, here on the loop, where nothing else changes them.
            readings = {feed: self._as_of_now(feed, reading) for feed, reading in readings.items()}
            # In a thread, so that requests are answered meanwhile.
            state = self._state(plan, readings)
            return Page(await asyncio.to_thread(self._render, plan, wanted, readings, state), readings)

    def _is_fast(self, plan: Plan, wanted: _Wanted, readings: Readings) -> bool:
        """Tell whether making a page takes a few milliseconds at most."""
        unchanged = self._renderer.unchanged(plan, readings)
        if unchanged is not None:
            # Without compression, the kept lines are only put together.
            return not wanted.gzipped or all(
                section.pieces[wanted.form].is_compressed for section in unchanged.sections
            )
        rendered = self._renderer.rendered(plan, readings)
        return rendered is not None and rendered <= _FAST_BYTES and len(plan.entries) <= _FAST_ENTRIES

    def _render(self, plan: Plan, wanted: _Wanted, readings: Readings, state: _State | None) -> list[bytes]:
        form, created = wanted.form, self.settings.created_timestamps
        rendering = self._renderer.render(plan, readings)
        families = self._collector_families(plan, rendering)
        if state is not None:
            rendered = state.rendered
            if state.samples is not None:
                rendered = exposition.render(state.samples)
                self._exporter_part = state.key, rendered
            families = [*families, *rendered]
        sections = [*rendering.sections, *exposition.sections(families, _TELEMETRY_SECTIONS)]
        pieces = [section.pieces[form] for section in sections]
        rest: list[bytes] = []
        if state is not None:
            pieces.append(self.telemetry.exchanges(form, created=created))
            rest = [telemetry.render_readings(state.counts, form, created=created), render_process(form)]
        if form is Format.OPENMETRICS:
            rest.append(b"# EOF\n")
        if wanted.gzipped:
            return gzip_page(pieces, b"".join(rest))
        return [*chain.from_iterable(piece.parts for piece in pieces), *rest]

    def _as_of_now(self, feed: Feed[Any], reading: Reading[Any]) -> Reading[Any]:
        snapshot = self.feeds.peek(feed)
        if snapshot is reading.snapshot:
            return reading
        if snapshot is None:
            error = reading.error or DeadlineError("its data is too old")
            return replace(reading, snapshot=None, result="failed", error=error)
        return replace(reading, snapshot=snapshot, error=None)

    def _note_exchange(self, exchange: Exchange) -> None:
        """Count and log a request to the API. Paths and headers are not logged, because they can be private."""
        self.telemetry.observe(exchange)
        # Without a configuration, structlog would print these lines too.
        if logging.getLogger("exporter").isEnabledFor(logging.DEBUG):
            seconds = round(exchange.seconds, 3)
            _log.debug(
                "requested", endpoint=exchange.endpoint, status=exchange.code, seconds=seconds, bytes=exchange.size
            )

    def _state(self, plan: Plan, readings: Readings) -> _State | None:
        """Return the state of the exporter and its feeds. The page of a probe does not show it."""
        if plan.target:
            return None
        for watched_key in self.settings.keys:
            self._observations.compare(watched_key.address, self.feeds, self.client.clock_offset or 0.0)
        watched = {"", *self.settings.watched}
        # A feed that only a probe reads is reported on the probe's page.
        states = [state for state in self.feeds.states() if state.feed.hotkey in watched]
        feeds = [
            (state, reading.snapshot if (reading := readings.get(state.feed)) else self.feeds.peek(state.feed))
            for state in states
        ]
        reloads = self.telemetry.reload_good, self.telemetry.reloaded_at or self._started
        key = [self.settings, reloads]
        for state, snapshot in feeds:
            key += [state.feed, state.up, state.last_success, state.last_error, snapshot and snapshot.version]
        samples = None
        # In a thread, a reload could replace the part between the comparison and the use.
        known_key, rendered = self._exporter_part
        if known_key != key:
            samples = Samples(with_created=self.settings.created_timestamps)
            samples.add(telemetry.BUILD_INFO, 1, *telemetry.build_labels())
            for hotkey in sorted(self.settings.watched):
                samples.add(telemetry.WATCHED, 1, hotkey)
            samples.add(telemetry.RELOAD_GOOD, reloads[0])
            samples.add(telemetry.RELOAD_TIMESTAMP, reloads[1])
            self._observations.collect(samples)
            money.report(self.settings, samples)
            for state, snapshot in feeds:
                telemetry.report_feed(state, snapshot, samples)
        counts = [(state.feed, state.since, tuple(state.results.values())) for state in states if not state.missing]
        return _State(key, samples, rendered, counts)

    def _collector_families(self, plan: Plan, rendering: Rendering) -> list[Family]:
        """Return the results of a page's collectors, rendered again only if they changed."""
        key = [rendering.cut, rendering.series, *rendering.outcomes]
        known_key, families = self._collector_part
        if plan is not self._main or known_key != key:
            samples = Samples()
            telemetry.report(rendering, samples, max_series=None if plan.target else self.settings.max_series)
            families = exposition.render(samples)
            if plan is self._main:
                self._collector_part = key, families
        return families
