"""Makes pages: runs collectors whose answers have changed, and keeps the lines of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chutes_exporter.collectors import Answers, Miners
from chutes_exporter.collectors.base import Samples
from chutes_exporter.collectors.ended_instances import COLLECTOR as ENDED_INSTANCES
from chutes_exporter.feeds.definitions import AUDIT_REPORT
from chutes_exporter.page.exposition import END_OF_OPENMETRICS, Compressor, Format, Lines, lines
from chutes_exporter.page.telemetry import own_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.api.client import ChutesClient
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import States
    from chutes_exporter.feeds.fleet import Joined
    from chutes_exporter.page.plan import Entry, Plan
    from chutes_exporter.page.telemetry import Telemetry


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
            self._client.api_clock.offset,
            self._telemetry.request_counters.total,
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
        origin = entry.versions(states), miners.neighbours
        kept = self._kept.get((entry, form))
        # Lines without a body are made again if they fit into the room.
        if (
            kept is not None
            and kept.origin == origin
            and (kept.body is not None or kept.series > room)
        ):
            return kept
        samples = Samples(room)
        failed = run_collector(entry, joined, miners, samples)
        # The lines are made again for each new answer, which may have ends to count.
        audit = joined.platform(AUDIT_REPORT)
        if entry.collector is ENDED_INSTANCES and audit is not None:
            ends = self._telemetry.ends
            ends.watch(miners.watched, audit.value)
            ends.count(joined.ledger)
            samples.add_families(ends.families())
        return Lines(
            origin=origin,
            body=None if samples.overflowed else lines(samples.families(), form),
            series=samples.count,
            failed=failed,
        )


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


def run_collector(entry: Entry, joined: Joined, miners: Miners, out: Samples) -> list[str]:
    """Add what a collector makes of all answers to ``out``. Return the hotkeys that failed."""
    failed = []
    for hotkey, feeds in entry.feeds.items():
        known = joined.about(hotkey)
        answers = {feed.name: known[feed.name] for feed in feeds if feed.name in known}
        miners = replace(miners, hotkey=hotkey)
        if not entry.collector.run(Answers(answers, joined), miners, out):
            failed.append(hotkey)
    return failed
