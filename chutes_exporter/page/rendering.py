"""Rendering: the lines that collectors make of answers, kept as long as the answers are the
same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from chutes_exporter.collectors import Answers, neighbours
from chutes_exporter.collectors.base import Samples
from chutes_exporter.collectors.ended_instances import COLLECTOR as ENDED_INSTANCES
from chutes_exporter.collectors.neighbours import Neighbours
from chutes_exporter.feeds.definitions import AUDIT_REPORT
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.page.exposition import lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.feeds.fleet import Joined
    from chutes_exporter.page.end_counters import EndCounters
    from chutes_exporter.page.exposition import Format
    from chutes_exporter.page.plan import Entry, Plan

    States = Mapping[Feed[Any], FeedState]

_log = structlog.get_logger("page")


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines that a collector made.

    Attributes:
        versions: The versions of the answers of which they were made, 0 for a missing one.
        neighbours: The neighbours of the watched miners at that time.
        body: The lines as bytes, None if the page has no room for them.
        series: Their number of series, also without a body.
        succeeded: Whether the collector succeeded, by hotkey.
    """

    versions: tuple[int, ...]
    neighbours: frozenset[str]
    body: bytes | None
    series: int
    succeeded: Mapping[str, bool]

    def are_current(self, versions: tuple[int, ...], neighbours: frozenset[str], room: int) -> bool:
        """Return whether the collector would make the same lines now.

        Lines without a body are made again if they fit into the room, which is a number of series.
        """
        if self.versions != versions or self.neighbours != neighbours:
            return False
        return self.body is not None or self.series > room


class Renderer:
    """Renders the samples of a plan's collectors, and keeps the lines in each format."""

    def __init__(self, plan: Plan, max_series: int, ends: EndCounters) -> None:
        self._plan = plan
        self._max_series = max_series
        self._ends = ends
        self._kept: dict[tuple[Entry, Format], Lines] = {}
        self._neighbours = Neighbours()
        # The names of collectors that were left out last time.
        self._left_out: list[str] = []

    def render(self, states: States, joined: Joined, form: Format) -> dict[Entry, Lines]:
        """Return the lines of each collector.

        A page that would be too large loses whole collectors. The most important ones come first,
        and each collector that still fits stays, so that a collector that is too large does not
        remove the others.
        """
        self._find_neighbours(states)
        lines_by_entry: dict[Entry, Lines] = {}
        room = self._max_series
        for entry in self._plan.entries:
            rendered = self._lines_of(entry, states, joined, form, room)
            # What does not fit stays without its body, and is made again once there is room.
            if rendered.series > room:
                rendered = replace(rendered, body=None)
            else:
                room -= rendered.series
            lines_by_entry[entry] = rendered
            self._kept[entry, form] = rendered
        self._log_left_out(lines_by_entry)
        return lines_by_entry

    def _log_left_out(self, lines_by_entry: Mapping[Entry, Lines]) -> None:
        """Log which collectors are left out, when that changes."""
        left_out = [
            entry.collector.name for entry, lines in lines_by_entry.items() if lines.body is None
        ]
        if left_out == self._left_out:
            return
        self._left_out = left_out
        if not left_out:
            _log.info("no collector is left out any more")
            return
        _log.warning(
            "collectors left out",
            collectors=" ".join(left_out),
            series=sum(lines.series for lines in lines_by_entry.values()),
            limit=self._max_series,
            advice="raise --max-series, watch fewer miners, or switch a collector off",
        )

    def _find_neighbours(self, states: States) -> None:
        """Find the neighbours anew, if the plan exports any."""
        watched = self._plan.miners_with_neighbours
        if watched:
            # While an answer is missing, the neighbours that it decides stay as they were.
            answers = _known_answers(neighbours.FEEDS, states)
            self._neighbours = neighbours.find_neighbours(answers, watched, self._neighbours)

    def _lines_of(
        self, entry: Entry, states: States, joined: Joined, form: Format, room: int
    ) -> Lines:
        """Return the kept lines if no answer and no exported neighbour has changed, or make new
        ones.

        ``room`` is the number of series that the page can still take.
        """
        versions = _versions(entry, states)
        near = frozenset[str]()
        if entry.miners.choice == "neighbours":
            near = self._neighbours.hotkeys
        kept = self._kept.get((entry, form))
        if kept is not None and kept.are_current(versions, near, room):
            return kept
        samples = Samples(room)
        succeeded = collect(entry, states, joined, samples, near)
        # The lines are made again for each new answer, which may have ends to count.
        if entry.collector is ENDED_INSTANCES and joined.ledger is not None:
            reports = joined.about(THE_PLATFORM)[AUDIT_REPORT.name].value
            self._ends.add_samples(reports, joined.ledger, samples)
        return Lines(
            versions=versions,
            neighbours=near,
            body=None if samples.overflowed else lines(samples.collect(), form),
            series=samples.count,
            succeeded=succeeded,
        )


def _versions(entry: Entry, states: States) -> tuple[int, ...]:
    """Return the version of each answer that a collector reads, 0 for a missing one."""
    versions = []
    for feeds in (*entry.feeds.values(), entry.feeds_of_fleets):
        for feed in feeds:
            snapshot = states[feed].snapshot if feed in states else None
            versions.append(0 if snapshot is None else snapshot.version)
    return tuple(versions)


def collect(
    entry: Entry,
    states: States,
    joined: Joined,
    out: Samples,
    near: frozenset[str] = frozenset(),
) -> dict[str, bool]:
    """Add what a collector makes of all known answers to ``out``, and return by hotkey whether that
    succeeded.

    ``near`` are the neighbours of watched miners that are exported with them.
    """
    succeeded = {}
    for hotkey, feeds in entry.feeds.items():
        miners = replace(entry.miners, hotkey=hotkey, neighbours=near)
        answers = _known_answers(feeds, states, joined)
        succeeded[hotkey] = entry.collector.run(answers, miners, out)
    return succeeded


def _known_answers(
    feeds: Iterable[Feed[Any]], states: States, joined: Joined | None = None
) -> Answers:
    """Return the answers of these feeds, without those that are not known."""
    answers_by_name = {}
    for feed in feeds:
        state = states.get(feed)
        if state is not None and state.snapshot is not None:
            answers_by_name[feed.name] = state.snapshot.answer
    return Answers(answers_by_name, joined)
