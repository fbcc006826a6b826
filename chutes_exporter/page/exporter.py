"""The exporter: reads the feeds that a scrape needs, and makes the page."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from chutes_exporter.api.client import ChutesClient
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.collectors.base import Samples
from chutes_exporter.feeds.cache import FeedCache, steady
from chutes_exporter.feeds.requests import Requests
from chutes_exporter.feeds.table import METAGRAPH
from chutes_exporter.page import exposition, rendering, telemetry
from chutes_exporter.page.exposition import Format
from chutes_exporter.page.plan import Plan, main_plan, probe_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Self

    from chutes_exporter.collectors import Collector
    from chutes_exporter.config import Settings
    from chutes_exporter.page.rendering import Snapshots
    from chutes_exporter.page.telemetry import Readings, States


@dataclass(frozen=True, slots=True)
class Page:
    """The bytes of one exposition, in parts that pages share, and the reading of each feed."""

    parts: list[bytes]
    readings: Readings

    @property
    def body(self) -> bytes:
        """The bytes in one piece."""
        return b"".join(self.parts)


@dataclass(frozen=True, slots=True)
class Collected:
    """Samples of the collectors of a plan.

    Attributes:
        samples: Labels and value of each sample, by the metric's name.
        failed: The name and the hotkey of each collector that failed.
    """

    samples: Mapping[str, list[tuple[dict[str, str], float]]]
    failed: list[tuple[str, str]]
    readings: Readings


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
        self.telemetry = telemetry.Telemetry(started_at=clock())
        self.client = ChutesClient(
            settings.api_url,
            timeout=settings.api_timeout,
            counters=self.telemetry.exchanges,
            clock=clock,
        )
        self._requests = Requests(self.client)
        self.feeds = FeedCache(self._requests.fetch, clock=clock, monotonic=monotonic)
        self._rendering = asyncio.Lock()
        self._adopt(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Watch other miners, or use other keys. The address of the API and the timeouts stay the same.

        The data of miners that are no longer watched is dropped.
        """
        feeds = set(self._main.feeds)
        self._adopt(settings)
        self.feeds.forget(feeds - set(self._main.feeds))

    def _adopt(self, settings: Settings) -> None:
        self.settings = settings
        self._requests.use(settings.keys)
        self._main = main_plan(settings)
        self._renderer = rendering.Renderer(self._main, settings.max_series, created=settings.created_timestamps)

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
        await self.feeds.read_all(self._main.feeds, self.settings.api_timeout)

    async def samples(self, metrics: Collection[str], *, timeout: float) -> Collected:
        """Request the data of some metrics once, and return their samples, for commands.

        Args:
            metrics: Names of the metrics. Their collectors run if they are on, so other metrics of these collectors are
                returned too.
            timeout: Seconds to wait for the answers. 0 sends no request.
        """
        plan = Plan(
            entry for entry in self._main.entries if any(metric.name in metrics for metric in entry.collector.metrics)
        )
        readings = await self.feeds.read_all(plan.feeds, timeout) if timeout else {}
        snapshots = {feed: self.feeds.peek(feed) for feed in plan.feeds}
        samples: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        failed: list[tuple[str, str]] = []
        for entry in plan.entries:
            out = Samples()
            outcomes = rendering.collect(entry, snapshots, out)
            failed += [(entry.collector.name, hotkey) for hotkey, outcome in outcomes.items() if outcome.failed]
            for family in out.collect():
                samples[family.samples[0].name] += [(sample.labels, sample.value) for sample in family.samples]
        return Collected(samples, failed, readings)

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
        return await self._answer(plan, form, timeout, gzipped=gzipped)

    async def probe(
        self, target: str, form: Format, *, timeout: float, gzipped: bool = False, collect: Collection[str] = ()
    ) -> Page:
        """Answer a scrape of the page about one miner. The arguments besides its hotkey are those of :meth:`metrics`.

        Raises:
            ChoiceError: One of these collectors has no data about the target.
        """
        deadline = time.monotonic() + timeout
        seated = await self._is_seated(target, collect, timeout)
        plan = probe_plan(self.settings, target, collect, seated=seated)
        return await self._answer(plan, form, max(deadline - time.monotonic(), 0.0), gzipped=gzipped)

    async def _is_seated(self, target: str, collect: Collection[str], timeout: float) -> bool:
        """Return whether requests about this target are allowed. They are not allowed for addresses without a seat."""
        if target in self.settings.watched:
            return True
        wanted = collect or [name for name, on in self.settings.collectors.items() if on]
        if not any(collector.scope == "miner" and collector.name in wanted for collector in COLLECTORS):
            return False
        snapshot = (await self.feeds.read(self.settings.tuned(METAGRAPH), timeout)).snapshot
        return snapshot is not None and any(node.hotkey == target for node in snapshot.answer.value)

    async def _answer(self, plan: Plan, form: Format, timeout: float, *, gzipped: bool) -> Page:
        readings = await self.feeds.read_all(plan.feeds, timeout)
        # A scraper that disconnects must not release the lock while the thread works.
        parts = await asyncio.shield(asyncio.create_task(self._render(plan, readings, form, gzipped=gzipped)))
        return Page(parts, readings)

    async def _render(self, plan: Plan, readings: Readings, form: Format, *, gzipped: bool) -> list[bytes]:
        """Make a page, one at a time, in a thread, so that requests are answered meanwhile."""
        async with self._rendering:
            # At one moment on the event loop, where nothing else changes them. Another scrape may have brought newer
            # answers since the readings, and old answers may have expired.
            snapshots = {feed: self.feeds.peek(feed) for feed in plan.feeds}
            watched = {"", *self.settings.watched}
            # A feed that only a probe reads is reported on the probe's page.
            states = [
                (replace(state), snapshots.get(state.feed) or self.feeds.peek(state.feed))
                for state in ([] if plan.target else self.feeds.states())
                if state.feed.hotkey in watched
            ]
            return await asyncio.to_thread(self._parts, plan, readings, snapshots, states, form, gzipped=gzipped)

    def _parts(
        self, plan: Plan, readings: Readings, snapshots: Snapshots, states: States, form: Format, *, gzipped: bool
    ) -> list[bytes]:
        made = self._renderer.render(plan, snapshots, form)
        parts = [lines.part for lines in made.values() if lines.part is not None]
        rows = [*telemetry.collector_rows(made, readings, snapshots)]
        if plan.target:
            families = telemetry.families_of(rows)
        else:
            exchanges = self.telemetry.exchanges
            rows += [
                (telemetry.SERIES, sum(lines.series for lines in made.values())),
                (telemetry.SERIES_LIMIT, self.settings.max_series),
                *telemetry.feed_rows(states),
                *telemetry.exporter_rows(self.settings, self.client),
            ]
            parts += [
                self._renderer.own("rows", rows, form, partial(telemetry.families_of, rows)),
                self._renderer.own("exchanges", exchanges.total, form, exchanges.registry.collect),
            ]
            families = [telemetry.reading_family(states), *self.telemetry.registry.collect()]
        rest = exposition.render(families, form, created=self.settings.created_timestamps)
        if form is Format.OPENMETRICS:
            rest += exposition.END_OF_OPENMETRICS
        return exposition.gzip_page(parts, rest) if gzipped else [*(part.plain for part in parts), rest]
