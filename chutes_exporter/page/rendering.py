"""Rendering: the lines that collectors make of answers, kept as long as the answers are the
same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chutes_exporter.collectors import Answers
from chutes_exporter.collectors.base import Samples
from chutes_exporter.page.exposition import lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chutes_exporter.feeds.cache import FeedState
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.page.exposition import Format
    from chutes_exporter.page.plan import Entry, Plan

    States = Mapping[Feed[Any], FeedState]


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines that a collector made of answers of certain versions.

    Without room for it, there is no body.
    """

    versions: tuple[int, ...]
    body: bytes | None
    series: int
    succeeded: Mapping[str, bool]


class Renderer:
    """Renders the samples of a plan's collectors, and keeps the lines in each format."""

    def __init__(self, plan: Plan, max_series: int) -> None:
        self._plan = plan
        self._max_series = max_series
        self._kept: dict[tuple[Entry, Format], Lines] = {}

    def render(self, states: States, form: Format) -> dict[Entry, Lines]:
        """Return the lines of each collector.

        A page that would be too large loses whole collectors. The most important ones come first,
        and each collector that still fits stays, so that a collector that is too large does not
        remove the others.
        """
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

    def _kept_or_made(self, entry: Entry, states: States, form: Format, room: int) -> Lines:
        """Return the kept lines if no answer has changed.

        Lines without a body are made again if they fit now.
        """
        known = [states[feed].snapshot for feeds in entry.feeds.values() for feed in feeds]
        versions = tuple([0 if snapshot is None else snapshot.version for snapshot in known])
        kept = self._kept.get((entry, form))
        if (
            kept is not None
            and kept.versions == versions
            and (kept.body is not None or kept.series > room)
        ):
            return kept
        samples = Samples(room)
        succeeded = collect(entry, states, samples)
        body = None if samples.overflowed else lines(samples.collect(), form)
        return Lines(versions, body, samples.count, succeeded)


def collect(entry: Entry, states: States, out: Samples) -> dict[str, bool]:
    """Add the samples of all known answers, and return by hotkey whether that succeeded."""
    succeeded = {}
    for hotkey, feeds in entry.feeds.items():
        known = {
            feed.name: snapshot.answer
            for feed in feeds
            if (snapshot := states[feed].snapshot) is not None
        }
        succeeded[hotkey] = entry.collector.run(
            Answers(known), replace(entry.miners, hotkey=hotkey), out
        )
    return succeeded
