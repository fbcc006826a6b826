"""Plans: which collectors run on a page, for which miners, and which feeds they need."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import TYPE_CHECKING, Any, Final

from chutes_exporter.collectors import COLLECTORS, Collector
from chutes_exporter.config import NEEDS_MINER, ConfigError
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.feeds.fleet import FLEET_FEEDS, RELEVANCE_FEEDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from chutes_exporter.collectors.base import Scope
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.cache import States
    from chutes_exporter.feeds.feed import Feed


@dataclass(frozen=True, eq=False)
class Entry:
    """A collector of a plan.

    Attributes:
        feeds: Its feeds by hotkey, those about the platform under :data:`THE_PLATFORM`.
    """

    collector: Collector
    feeds: Mapping[str, Iterable[Feed[Any]]]

    @classmethod
    def of(cls, collector: Collector, settings: Settings, relevance: Iterable[Feed[Any]]) -> Entry:
        """Return a collector with its feeds. Those of relevance tell which chutes are exported."""
        # Parts share feeds. The inner dictionary has each feed of a hotkey once, in order.
        feeds: dict[str, dict[Feed[Any], None]] = defaultdict(dict)
        for part in collector.parts:
            for hotkey in hotkeys_of(part.scope, settings, needs_key=part.needs_key):
                feeds_of_part = [feed.of(hotkey) for feed in part.all_feeds]
                if part.of_chutes:
                    feeds_of_part += relevance
                for feed in feeds_of_part:
                    # Without a key, a part has only the answers that need none.
                    if settings.keys or not feed.signed:
                        feeds[hotkey][feed] = None
        return cls(collector, feeds)

    @cached_property
    def sources(self) -> list[Feed[Any]]:
        """The feeds whose answers the collector reads, also as a part of a miner's fleet."""
        fleets = product(self.feeds.keys() - {THE_PLATFORM}, FLEET_FEEDS)
        feeds_of_fleets = [feed.of(hotkey) for hotkey, feed in fleets]
        return [*chain(*self.feeds.values()), *feeds_of_fleets]

    def versions(self, states: States) -> tuple[int, ...]:
        """Return the version of each answer that the collector reads, 0 for a missing one."""
        versions = []
        for feed in self.sources:
            kept = states[feed].kept if feed in states else None
            versions.append(0 if kept is None else kept.version)
        return tuple(versions)


class Plan:
    """Which collectors run on a page, the most important first, and for which miners."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)
        # A dictionary keeps the order, and each feed once.
        feeds_in_order: dict[Feed[Any], None] = {}
        for entry in self.entries:
            for feeds in entry.feeds.values():
                feeds_in_order.update(dict.fromkeys(feeds))
        self.feeds = tuple(feeds_in_order)

    def of_metrics(self, names: Collection[str]) -> Plan:
        """Return the collectors that have one of these metrics."""

        def is_asked(entry: Entry) -> bool:
            return any(metric.name in names for metric in entry.collector.metrics)

        return Plan(filter(is_asked, self.entries))

    def feeds_named(self, names: Collection[str]) -> list[Feed[Any]]:
        """Return the feeds with these names."""
        return [feed for feed in self.feeds if feed.name in names]


_NEEDS: Final = {
    "without_key": "needs a hotkey's key: add --hotkey-file",
    "without_hotkey": NEEDS_MINER,
    "without_chain": "needs a node of the chain: add --chain.url",
}


def require_what_collectors_need(settings: Settings) -> None:
    """Raise ConfigError if a collector that the user switched on lacks a setting.

    Any other collector that lacks something is off, without an error.
    """
    for collector in COLLECTORS:
        reason = off_reason(collector, settings)
        if settings.collectors.get(collector.name) and reason is not None:
            raise ConfigError(f"--collector.{collector.name} {_NEEDS[reason]}")


def off_reason(collector: Collector, settings: Settings) -> str | None:
    """Return the reason for which a collector is off, or None if it is on.

    A flag that switches it on overrides its default, but not its need for a key, a hotkey or the
    chain.
    """
    # None without a flag.
    is_switched_on = settings.collectors.get(collector.name)
    if is_switched_on is False:
        return "by_flag"
    given = {"chain": settings.chain_url, "key": settings.keys, "hotkey": settings.watched}
    for need in collector.needs:
        if not given[need]:
            return f"without_{need}"
    return None if collector.on or is_switched_on else "by_default"


def collectors_by_state(settings: Settings) -> dict[str, list[str]]:
    """Return the names of all collectors: under ``on``, or under ``off_`` and the reason."""
    names_by_state: dict[str, list[str]] = {"on": []}
    for collector in COLLECTORS:
        reason = off_reason(collector, settings)
        state = "on" if reason is None else f"off_{reason}"
        names_by_state.setdefault(state, []).append(collector.name)
    return names_by_state


def make_plan(settings: Settings) -> Plan:
    """Return the plan of the page: all collectors that are on."""
    on = [collector for collector in COLLECTORS if off_reason(collector, settings) is None]
    relevance: list[Feed[Any]] = []
    if settings.chutes == "relevant":
        for hotkey in sorted(settings.watched):
            relevance += [feed.of(hotkey) for feed in RELEVANCE_FEEDS]
    return Plan(Entry.of(collector, settings, relevance) for collector in on)


def hotkeys_of(scope: Scope, settings: Settings, *, needs_key: bool) -> list[str]:
    """Return the hotkeys that something is asked for, none if it needs a key and there is none.

    What is about the platform is asked for once, for :data:`THE_PLATFORM`.
    """
    with_key = [key.address for key in settings.keys]
    if needs_key and not with_key:
        return []
    by_scope = {"platform": [THE_PLATFORM], "signer": with_key, "miner": sorted(settings.watched)}
    return by_scope[scope]
