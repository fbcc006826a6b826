"""The exporter: reads the feeds that a scrape needs, and makes the page."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from chutes_exporter.api.client import ChutesClient
from chutes_exporter.api.clock import steady
from chutes_exporter.chain.node import Node
from chutes_exporter.collectors.base import Samples
from chutes_exporter.feeds.cache import FeedCache
from chutes_exporter.feeds.definitions import AUDIT_REPORT, METAGRAPH
from chutes_exporter.feeds.fleet import FLEET_FEEDS, Joined, known_answers
from chutes_exporter.feeds.reports import PAUSE
from chutes_exporter.feeds.requests import Requests
from chutes_exporter.page import telemetry
from chutes_exporter.page.gaps import BUG, NotKnown, find_gaps
from chutes_exporter.page.maker import PageMaker, exported_miners, run_collector
from chutes_exporter.page.plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any, Self

    from prometheus_client.samples import Sample

    from chutes_exporter.api.records import HourlyAudit
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import States
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.feeds.fleet import JoinedFleets
    from chutes_exporter.fleet.model import Fleet
    from chutes_exporter.page.exposition import Format
    from chutes_exporter.page.plan import Entry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the answers of one moment say about the watched miners.

    Attributes:
        samples: The samples by the name of their metric.
        now: Unix time by the API's clock, to which the times in answers belong.
        gaps: What is not known.
        states: The states of the feeds that were needed.
        fleets: The fleets of the watched miners, by hotkey.
    """

    samples: Mapping[str, Sequence[Sample]]
    now: float
    gaps: Sequence[NotKnown]
    states: States
    fleets: Mapping[str, Fleet]

    def value(self, metric: str, **labels: str) -> float | None:
        """Return the value of the first sample without another value of these labels, None if it
        is unknown.
        """
        for sample in self.samples.get(metric, ()):
            if all(labels.get(name, text) == text for name, text in sample.labels.items()):
                return sample.value
        return None

    def records(self, feed: Feed[list[T]]) -> list[T]:
        """Return the known records of a feed about the platform."""
        state = self.states.get(feed)
        return [] if state is None or state.kept is None else state.kept.answer.value


class Exporter:
    """Answers scrapes. It is an asynchronous context manager."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = steady,
    ) -> None:
        self.telemetry = telemetry.Telemetry()
        counters = self.telemetry.request_counters
        self.client = ChutesClient(
            settings.api_url,
            timeout=settings.api_timeout,
            counters=counters,
            clock=clock,
            monotonic=monotonic,
        )
        self._node = None
        if settings.chain_url is not None:
            self._node = Node(
                settings.chain_url,
                timeout=settings.api_timeout,
                counters=counters,
                # The local clock may be wrong.
                clock=self.client.api_clock,
                monotonic=monotonic,
            )
        self._requests = Requests(self.client, self._node)
        self.feeds = FeedCache(
            self._requests.fetch,
            clock=self.client.api_clock,
            monotonic=monotonic,
        )
        # One page is made at a time, and no other collectors run meanwhile.
        self._rendering = asyncio.Lock()
        # asyncio's own threads may all wait for a name server that does not answer.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="page")
        # The next page of each format, compressed or not, until it begins to be made.
        self._pages: dict[tuple[Format, bool], asyncio.Task[bytes]] = {}
        self._adopt(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Watch other miners, or use other keys. The addresses and the timeouts stay the same.

        What fails or is missing is requested again.
        """
        self._adopt(settings)
        self.feeds.keep_only(self.plan.feeds)

    def _adopt(self, settings: Settings) -> None:
        self.settings = settings
        self._requests.use(settings.keys)
        self.plan = make_plan(settings)
        if self._requests.report_reader.watch(settings.watched):
            self.feeds.forget([AUDIT_REPORT])
        # A reading under way is about the feeds of the old plan, so the next scrape starts another.
        self._reading: asyncio.Task[None] | None = None
        self._fleets: JoinedFleets = {}
        self._maker = PageMaker(self.plan, settings, self.telemetry, self.client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.feeds.aclose()
        await self.client.aclose()
        if self._node is not None:
            await self._node.aclose()
        self._thread.shutdown(wait=False)

    def readiness(self) -> tuple[bool, str]:
        """Return whether the exporter is ready, and a sentence for the user.

        It is ready as soon as a first request has ended, even if that failed.
        """
        api = self.settings.api_url
        if not self.plan.feeds:
            return True, "Ready, with no collector on."
        # An endpoint that the API does not have counts neither as an answer nor as a failure.
        states = self.feeds.states().values()
        if not any(state.last_success is not None or state.up is False for state in states):
            return False, f"Not ready: waiting for the first answer from {api}."
        # Feeds of several miners have the same name, which is shown once.
        failing = dict.fromkeys(state.feed.name for state in states if state.up is False)
        if failing:
            return True, f"Ready, but {api} fails for {', '.join(failing)}."
        return True, "Ready."

    async def warm_up(self) -> None:
        """Request each feed once, before the first scrape."""
        await self.feeds.read_all(self.plan.feeds, self.settings.api_timeout)

    async def read_older_reports(self) -> None:
        """Read the audit reports of the past day, one after another, without waiting for scrapes.

        Each request of the feed reads one more report. It never ends, because other miners can be
        watched later, and then all reports are read again.
        """
        while True:
            await asyncio.sleep(PAUSE)
            kept = self.feeds.peek(AUDIT_REPORT)
            if kept is not None and kept.answer.value.unread > 0:
                self.feeds.expire(AUDIT_REPORT)
                await self.feeds.read_all([AUDIT_REPORT], self.settings.api_timeout)

    async def snapshot(
        self,
        metrics: Collection[str] = (),
        feeds: Iterable[Feed[Any]] | None = None,
        *,
        timeout: float | None = None,
        reports: Sequence[HourlyAudit] | None = None,
        gaps: Iterable[NotKnown] = (),
    ) -> Snapshot:
        """Return the fleets, what is not known, and the samples of all collectors that have one of
        the metrics and are on.

        It needs the feeds of these collectors, and those of ``feeds`` that the plan has, by default
        all of the fleets. ``reports`` replace the audit reports of the feed, which reads one with
        each request, and ``gaps`` are what is not known of them. Without a timeout, it takes the
        cached answers, and sends no request.
        """
        plan = self.plan.of_metrics(metrics)
        if feeds is None:
            # Without a key, nothing but the seat of a miner is known.
            feeds = FLEET_FEEDS if self.settings.keys else (METAGRAPH, AUDIT_REPORT)
        names = {feed.name for feed in feeds}
        if reports is not None:
            names.discard(AUDIT_REPORT.name)
        # A dictionary keeps the order, and each feed once.
        wanted = dict.fromkeys(plan.feeds)
        wanted |= dict.fromkeys(self.plan.feeds_named(names))
        if timeout is not None:
            await self.feeds.read_all(list(wanted), timeout)
        async with self._rendering:
            all_states = self.feeds.states(wanted)
            states = {feed: all_states[feed] for feed in wanted}
            make = partial(self._snapshot_of, plan.entries, states, reports, gaps)
            return await self._in_thread(make)

    def _snapshot_of(
        self,
        entries: Sequence[Entry],
        states: States,
        reports: Sequence[HourlyAudit] | None,
        gaps: Iterable[NotKnown],
    ) -> Snapshot:
        joined = Joined(known_answers(states), self.settings.watched, self._fleets, reports)
        miners = exported_miners(self.settings, joined)
        out = Samples()
        failed: list[NotKnown] = []
        for entry in entries:
            hotkeys = run_collector(entry, joined, miners, out)
            failed += [NotKnown(entry.collector.name, hotkey, *BUG) for hotkey in hotkeys]
        samples: dict[str, list[Sample]] = defaultdict(list)
        for family in out.families():
            for sample in family.samples:
                samples[sample.name].append(sample)
        watched = sorted(self.settings.watched)
        fleets = {hotkey: joined.fleet(hotkey) for hotkey in watched}
        now = self.client.api_clock()
        found = find_gaps(states, failed, fleets, self.settings, now)
        return Snapshot(samples, now, [*found, *gaps], states, fleets)

    async def metrics(self, form: Format, *, timeout: float, gzipped: bool = False) -> bytes:
        """Answer a scrape. Data that has not arrived at the timeout is older, or left out."""
        # Scrapes share the reading under way and the next page, so that many cost no more than few.
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(
                self.feeds.read_all(self.plan.feeds, self.settings.api_timeout)
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._reading)
        page = self._pages.get((form, gzipped))
        if page is None:
            page = asyncio.create_task(self._make(form, gzipped=gzipped))
            self._pages[form, gzipped] = page
        # A scraper that disconnects must not cancel the page of others.
        return await asyncio.shield(page)

    async def _make(self, form: Format, *, gzipped: bool) -> bytes:
        """Make a page in a thread, so that requests are answered meanwhile."""
        async with self._rendering:
            # Later scrapes get a later page, because this one has the answers of this moment.
            del self._pages[form, gzipped]
            states = self.feeds.states(self.plan.feeds)
            joined = Joined(known_answers(states), self.settings.watched, self._fleets)
            make = partial(self._maker.make, states, joined, form, gzipped=gzipped)
            return await self._in_thread(make)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)
