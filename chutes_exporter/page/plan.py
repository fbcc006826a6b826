"""Plans: which collectors run on a page, for which miners, and which feeds they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from chutes_exporter.collectors import COLLECTORS, Collector, Miners
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.feeds.table import AUDIT_REPORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from chutes_exporter.collectors import MinersChoice
    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.feed import Feed

_FEW = 16
"""Maximum watched hotkeys with which collectors that send a request for each hotkey are on by
default.
"""


@dataclass(frozen=True, eq=False)
class Entry:
    """A collector of a plan, with its feeds by hotkey."""

    collector: Collector
    miners: Miners
    feeds: Mapping[str, tuple[Feed[Any], ...]]


class Plan:
    """Which collectors run on a page, the most important first, and for which miners."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)
        self.feeds = tuple(
            {
                feed: None
                for entry in self.entries
                for feeds in entry.feeds.values()
                for feed in feeds
            }
        )

    @property
    def audited_miners(self) -> frozenset[str] | None:
        """The miners whose data in audit reports is exported. None means all."""
        readers = [
            entry.miners
            for entry in self.entries
            if AUDIT_REPORT.name in entry.collector.source_feeds
        ]
        if any(miners.choice == "all" for miners in readers):
            return None
        return frozenset[str]().union(*(miners.watched for miners in readers))

    @property
    def miners_with_neighbours(self) -> frozenset[str]:
        """The watched miners whose neighbours are exported."""
        readers = [entry.miners for entry in self.entries if entry.miners.choice == "neighbours"]
        return frozenset[str]().union(*(miners.watched for miners in readers))


OffReason = Literal["without_key", "without_hotkey", "without_chain", "by_flag", "by_default"]
"""The reason for which a collector is off."""


def off_reason(collector: Collector, settings: Settings) -> OffReason | None:
    """Return the reason for which a collector is off, or None if it is on.

    A flag that switches it on overrides its default, but not its need for a key, a hotkey or the
    chain.
    """
    choice = settings.collectors.get(collector.name)
    by_default = choice is None
    too_many_miners = collector.default == "few" and len(settings.watched) > _FEW
    if choice is False:
        return "by_flag"
    if collector.needs_chain and not settings.chain_url:
        return "without_chain"
    if not settings.keys and (collector.needs_key or (by_default and collector.default == "key")):
        return "without_key"
    if not settings.watched and (
        collector.scope == "miner" or (by_default and collector.watched_only)
    ):
        return "without_hotkey"
    return "by_default" if by_default and (collector.default == "off" or too_many_miners) else None


def collectors_by_state(settings: Settings) -> dict[str, list[str]]:
    """Return the names of all collectors: under ``on``, or under ``off_`` and the reason."""
    names: dict[str, list[str]] = {"on": []}
    for collector in COLLECTORS:
        reason = off_reason(collector, settings)
        names.setdefault("on" if reason is None else f"off_{reason}", []).append(collector.name)
    return names


def make_plan(settings: Settings) -> Plan:
    """Return the plan of the page: all collectors that are on."""
    collectors = [one for one in COLLECTORS if off_reason(one, settings) is None]
    # Reports are too large to be read only because they name chutes.
    reads_reports = any(AUDIT_REPORT.name in one.source_feeds for one in collectors)
    needless = frozenset[str]() if reads_reports else frozenset({AUDIT_REPORT.name})
    return Plan(_entry(collector, settings, needless) for collector in collectors)


def _entry(collector: Collector, settings: Settings, needless: AbstractSet[str]) -> Entry:
    """Return a collector with its feeds but the needless ones, and with the miners that it has
    samples of.
    """
    choice: MinersChoice = settings.miners
    is_switched_on = settings.collectors.get(collector.name)
    if collector.watched_only and not (choice == "all" and is_switched_on):
        choice = "watched"
    miners = Miners(settings.watched, choice, chutes=settings.chutes, costs=settings.costs)
    # Stats per chute of a single miner are a small answer. For more miners, one large answer needs
    # fewer requests.
    single = (
        next(iter(settings.watched))
        if miners.choice != "all" and len(settings.watched) == 1
        else THE_PLATFORM
    )
    keys = [key.address for key in settings.keys]
    hotkeys = {"platform": [THE_PLATFORM], "signer": keys, "miner": sorted(settings.watched)}
    feeds: dict[str, dict[Feed[Any], None]] = {}
    for part in collector.parts:
        # Without a key, a part that needs one is left out.
        for hotkey in hotkeys[part.scope] if keys or not part.needs_key else ():
            chooses_none = part.chooses_chutes and settings.chutes == "all"
            for feed in part.feeds if chooses_none else part.all_feeds:
                if feed.name in needless or (feed.endpoint.signed and not keys):
                    continue
                about = THE_PLATFORM if feed.endpoint.scope == "platform" else hotkey
                wanted = feed.of(single if feed.per_chute else about).with_lifetimes(
                    settings.ttl, settings.max_age
                )
                feeds.setdefault(hotkey, {})[wanted] = None
    return Entry(collector, miners, {hotkey: tuple(needed) for hotkey, needed in feeds.items()})
