"""Pages: the formats that a scraper can ask for, and the bytes that collectors make of answers.

The formats are Prometheus' text format 0.0.4 and OpenMetrics 1.0.0. The client library writes both.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from prometheus_client import Metric as Family
from prometheus_client import disable_created_metrics, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from chutes_exporter.collectors import Answers, Miners
from chutes_exporter.collectors.base import Samples
from chutes_exporter.collectors.ended_instances import COLLECTOR as ENDED_INSTANCES
from chutes_exporter.feeds.definitions import AUDIT_REPORT
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.page.telemetry import clock_offset, own_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.feeds.fleet import Joined
    from chutes_exporter.page.plan import Entry, Plan
    from chutes_exporter.page.telemetry import Telemetry

    States = Mapping[Feed[Any], FeedState]

_QUALITY = re.compile(r"0(\.[0-9]*)?|1(\.0*)?", re.ASCII)
END_OF_OPENMETRICS = b"# EOF\n"
# Prometheus would store each _created line of a counter as an additional series.
disable_created_metrics()  # type: ignore[no-untyped-call] # no types there


class Format(Enum):
    """A format and its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def negotiate(accept: str) -> Format:
    """Choose OpenMetrics if an Accept header names it, and does not prefer text."""
    of_openmetrics = quality(accept, "application/openmetrics-text", "1.0.0")
    of_text = quality(accept, "text/plain", "0.0.4")
    if of_openmetrics and of_openmetrics >= of_text:
        return Format.OPENMETRICS
    return Format.TEXT


def quality(header: str, name: str, version: str = "") -> float:
    """Return the quality from 0 to 1 that an Accept header gives to a name, 0 if it is not there.

    An item of the header with another version or an invalid quality does not count. One without a
    version means any version, and one without a quality has 1.
    """
    highest = 0.0
    for item in header.lower().split(","):
        item_name, *options = [part.strip() for part in item.split(";")]
        values = dict(option.partition("=")[::2] for option in options)
        item_version = values.get("version", version).strip('"')
        item_quality = values.get("q", "1")
        if item_name != name or item_version != version:
            continue
        if _QUALITY.fullmatch(item_quality):
            highest = max(highest, float(item_quality))
    return highest


def lines(families: Iterable[Family], form: Format) -> bytes:
    """Return the lines of families, without the end of a page."""
    if form is Format.TEXT:
        return generate_latest(_Families(families))
    written: bytes = openmetrics.generate_latest(_Families(families))  # type: ignore[no-untyped-call] # no types there
    return written.removesuffix(END_OF_OPENMETRICS)


class _Families(Collector):
    """Families as the library's writers take them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


class Compressor:
    """Compresses pages, and keeps the compressed start until it changes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._begin()

    def _begin(self) -> None:
        # Level 1 takes a ninth of the time of the default level, for a fifth more bytes. With these
        # bits, the format is that of gzip.
        self._stream = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
        self._compressed = self._stream.compress(b"".join(self._parts))

    def compress(self, parts: list[bytes], end: bytes) -> bytes:
        """Return a page as one gzip member (RFC 1952). The end is kept for no other page."""
        if parts != self._parts:
            self._parts = parts
            self._begin()
        # The next page continues the stream after the same parts.
        stream = self._stream.copy()
        return self._compressed + stream.compress(end) + stream.flush()


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines that a collector made.

    Attributes:
        origin: The versions of the answers of which they were made, and the neighbours of the
            watched miners at that time.
        body: The lines as bytes, None if the page has no room for them.
        series: Their number of series, also without a body.
        succeeded: Whether the collector succeeded, by hotkey.
    """

    origin: object
    body: bytes | None
    series: int
    succeeded: Mapping[str, bool]


class PageMaker:
    """Makes the pages of a plan, and keeps the lines of its collectors in each format."""

    def __init__(
        self, plan: Plan, settings: Settings, telemetry: Telemetry, client: ChutesClient
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._telemetry = telemetry
        self._client = client
        self._compressors = {form: Compressor() for form in Format}
        self._kept: dict[tuple[Entry, Format], Lines] = {}
        self._own: dict[Format, tuple[object, bytes]] = {}

    def make(self, states: States, joined: Joined, form: Format, *, gzipped: bool) -> bytes:
        """Return a page: the lines of collectors, then the exporter's own metrics.

        A page that would be too large loses whole collectors. The most important ones come first,
        and each collector that still fits stays, so that a collector that is too large does not
        remove the others.
        """
        lines_by_entry: dict[Entry, Lines] = {}
        parts: list[bytes] = []
        room = self._settings.max_series
        for entry in self._plan.entries:
            made = self._lines_of(entry, states, joined, form, room)
            if made.series > room:
                # It stays without its body, and is made again once there is room.
                made = replace(made, body=None)
            if made.body is not None:
                room -= made.series
                parts.append(made.body)
            lines_by_entry[entry] = self._kept[entry, form] = made
        # What changes with every page comes last.
        end = self._own_lines(lines_by_entry, states, form)
        end += lines(self._telemetry.registry.collect(), form)
        if form is Format.OPENMETRICS:
            end += END_OF_OPENMETRICS
        if gzipped:
            return self._compressors[form].compress(parts, end)
        return b"".join([*parts, end])

    def _own_lines(
        self, lines_by_entry: Mapping[Entry, Lines], states: States, form: Format
    ) -> bytes:
        """Return the lines about the exporter, the kept ones until something has happened."""
        origin = (
            lines_by_entry,
            # Without the kept answers, so that old answers can leave memory.
            [replace(state, kept=None) for state in states.values()],
            dict(self._client.changes),
            clock_offset(self._client),
            self._telemetry.requests.total,
        )
        if form not in self._own or self._own[form][0] != origin:
            own = own_metrics(self._telemetry, self._settings, self._client, lines_by_entry, states)
            self._own[form] = origin, lines(own, form)
        return self._own[form][1]

    def _lines_of(
        self, entry: Entry, states: States, joined: Joined, form: Format, room: int
    ) -> Lines:
        """Return the kept lines if no answer and no exported neighbour has changed, or make new
        ones.

        ``room`` is the number of series that the page can still take.
        """
        miners = exported_miners(self._settings, joined)
        origin = _versions(entry, states), miners.neighbours
        kept = self._kept.get((entry, form))
        # Lines without a body are made again if they fit into the room.
        if (
            kept is not None
            and kept.origin == origin
            and (kept.body is not None or kept.series > room)
        ):
            return kept
        samples = Samples(room)
        succeeded = collect(entry, states, joined, miners, samples)
        # The lines are made again for each new answer, which may have ends to count.
        reports = joined.about(THE_PLATFORM).get(AUDIT_REPORT.name)
        if entry.collector is ENDED_INSTANCES and reports is not None:
            ends = self._telemetry.ends
            samples.add_families(ends.families(miners.watched, reports.value, joined.ledger))
        return Lines(
            origin=origin,
            body=None if samples.overflowed else lines(samples.collect(), form),
            series=samples.count,
            succeeded=succeeded,
        )


def _versions(entry: Entry, states: States) -> tuple[int, ...]:
    """Return the version of each answer that a collector reads, 0 for a missing one."""
    versions = []
    for feeds in (*entry.feeds.values(), entry.feeds_of_fleets):
        for feed in feeds:
            kept = states[feed].kept if feed in states else None
            versions.append(0 if kept is None else kept.version)
    return tuple(versions)


def exported_miners(settings: Settings, joined: Joined) -> Miners:
    """Return which miners and chutes the collectors export at the moment."""
    neighbours = joined.neighbours if settings.miners == "neighbours" else frozenset()
    return Miners(
        settings.watched,
        settings.miners,
        neighbours=neighbours,
        chutes=settings.chutes,
        costs=settings.costs,
    )


def collect(
    entry: Entry, states: States, joined: Joined, miners: Miners, out: Samples
) -> dict[str, bool]:
    """Add what a collector makes of all known answers to ``out``, and return by hotkey whether that
    succeeded.
    """
    succeeded = {}
    for hotkey, feeds in entry.feeds.items():
        answers = {}
        for feed in feeds:
            state = states.get(feed)
            if state is not None and state.kept is not None:
                answers[feed.name] = state.kept.answer
        miners = replace(miners, hotkey=hotkey)
        succeeded[hotkey] = entry.collector.run(Answers(answers, joined), miners, out)
    return succeeded
