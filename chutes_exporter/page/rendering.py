"""Rendering: the lines that collectors make of answers, kept as long as the answers are the
same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chutes_exporter.collectors import Answers, neighbours
from chutes_exporter.collectors.base import Samples
from chutes_exporter.collectors.neighbours import Neighbours
from chutes_exporter.page.exposition import lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.page.exposition import Format
    from chutes_exporter.page.plan import Entry, Plan

    States = Mapping[Feed[Any], FeedState]


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines that a collector made of answers of certain versions, with certain neighbours of
    the watched miners.

    Without room for it, there is no body.
    """

    versions: tuple[int, ...]
    neighbours: frozenset[str]
    body: bytes | None
    series: int
    succeeded: Mapping[str, bool]


class Renderer:
    """Renders the samples of a plan's collectors, and keeps the lines in each format."""

    def __init__(self, plan: Plan, max_series: int) -> None:
        self._plan = plan
        self._max_series = max_series
        self._kept: dict[tuple[Entry, Format], Lines] = {}
        self._neighbours = Neighbours()

    def render(self, states: States, form: Format) -> dict[Entry, Lines]:
        """Return the lines of each collector.

        A page that would be too large loses whole collectors. The most important ones come first,
        and each collector that still fits stays, so that a collector that is too large does not
        remove the others.
        """
        self._find_neighbours(states)
        made: dict[Entry, Lines] = {}
        room = self._max_series
        for entry in self._plan.entries:
            rendered = self._kept_or_made(entry, states, form, room)
            if rendered.series > room:
                rendered = replace(rendered, body=None)
            else:
                room -= rendered.series
            made[entry] = self._kept[entry, form] = rendered
        return made

    def _find_neighbours(self, states: States) -> None:
        watched = self._plan.miners_with_neighbours
        if watched:
            answers = _known_answers(neighbours.FEEDS, states)
            self._neighbours = neighbours.find_neighbours(answers, watched, self._neighbours)

    def _kept_or_made(self, entry: Entry, states: States, form: Format, room: int) -> Lines:
        """Return the kept lines if no answer and no exported neighbour has changed.

        Lines without a body are made again if they fit now.
        """
        known = [states[feed].snapshot for feeds in entry.feeds.values() for feed in feeds]
        versions = tuple([0 if snapshot is None else snapshot.version for snapshot in known])
        near = frozenset[str]()
        if entry.miners.choice == "neighbours":
            near = self._neighbours.hotkeys
        kept = self._kept.get((entry, form))
        if (
            kept is not None
            and kept.versions == versions
            and kept.neighbours == near
            and (kept.body is not None or kept.series > room)
        ):
            return kept
        samples = Samples(room)
        succeeded = collect(entry, states, samples, near)
        body = None if samples.overflowed else lines(samples.collect(), form)
        return Lines(versions, near, body, samples.count, succeeded)


def collect(
    entry: Entry, states: States, out: Samples, near: frozenset[str] = frozenset()
) -> dict[str, bool]:
    """Add the samples of all known answers, and return by hotkey whether that succeeded.

    ``near`` are the neighbours of watched miners that are exported with them.
    """
    succeeded = {}
    for hotkey, feeds in entry.feeds.items():
        miners = replace(entry.miners, hotkey=hotkey, neighbours=near)
        succeeded[hotkey] = entry.collector.run(_known_answers(feeds, states), miners, out)
    return succeeded


def _known_answers(feeds: Iterable[Feed[Any]], states: States) -> Answers:
    known = {}
    for feed in feeds:
        state = states.get(feed)
        if state is not None and state.snapshot is not None:
            known[feed.name] = state.snapshot.answer
    return Answers(known)
