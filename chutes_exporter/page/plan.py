"""Plans: which collectors run on a page, for which miners, and which feeds they need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from chutes_exporter.collectors import COLLECTORS, Collector, Scope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.feed import Feed

_FEW = 16
"""Maximum watched hotkeys with which collectors that send a request for each hotkey are on by default."""


class ChoiceError(ValueError):
    """A requested collector cannot give any data. The message says why."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One collector of a plan.

    Attributes:
        feeds: Its feeds by the hotkey of their miner. Feeds of the platform have an empty hotkey.
        extra: Feeds that it uses if their answers are known.
        whole: Whether to show series that belong to no miner, too.
    """

    collector: Collector
    scope: Scope
    feeds: Mapping[str, tuple[Feed[Any], ...]]
    extra: tuple[Feed[Any], ...] = ()
    whole: bool = True

    @cached_property
    def all_feeds(self) -> tuple[Feed[Any], ...]:
        """Its feeds, also the extra ones."""
        return tuple(dict.fromkeys((*chain.from_iterable(self.feeds.values()), *self.extra)))


class Plan:
    """Which collectors run on a page, the most important first, and for which miners.

    Args:
        entries: The collectors.
        target: The miner of a probe. Empty for the metrics page, which also has the exporter's own metrics.
    """

    def __init__(self, entries: Iterable[Entry], *, target: str = "") -> None:
        self.entries = tuple(entries)
        self.feeds = tuple(dict.fromkeys(feed for entry in self.entries for feed in entry.all_feeds))
        self.target = target

    @property
    def collectors(self) -> list[Collector]:
        """Its collectors."""
        return [entry.collector for entry in self.entries]

    def only(self, collect: Collection[str]) -> Plan:
        """Return a plan with only these collectors.

        Raises:
            ChoiceError: The plan does not have one of them.
        """
        _require_known(collect)
        for name in collect:
            if all(collector.name != name for collector in self.collectors):
                raise ChoiceError(f"the collector {name} is off: add --collector.{name}, and a key if it needs one")
        return Plan(entry for entry in self.entries if entry.collector.name in collect)


OffReason = Literal["without_key", "without_hotkey", "by_flag", "by_default"]
"""The reason for which a collector is off."""


def off_reason(collector: Collector, settings: Settings) -> OffReason | None:
    """Return the reason for which a collector is off, or None if it is on."""
    choice = settings.collectors.get(collector.name)
    if choice is False:
        return "by_flag"
    wants_key = collector.default == "key" and choice is None
    if (collector.needs_key or wants_key) and not settings.keys:
        return "without_key"
    if collector.scope == "miner" and not settings.watched:
        return "without_hotkey"
    off = {"off": True, "watched": settings.miners != "watched", "few": len(settings.watched) > _FEW}
    return "by_default" if not choice and off.get(collector.default) else None


def main_plan(settings: Settings) -> Plan:
    """Return the plan of the metrics page: all collectors that are on."""
    hotkeys = {
        "platform": [""],
        "signer": [key.address for key in settings.keys],
        "miner": sorted(settings.watched),
    }
    # Stats per chute: request only the miner if there is just one. For more, one large answer needs fewer requests.
    single = next(iter(settings.watched)) if len(settings.watched) == 1 and settings.miners == "watched" else ""
    scope = Scope(settings.watched, settings.miners)
    return Plan(
        Entry(
            collector,
            scope,
            {hotkey: _feeds(collector, settings, hotkey, single) for hotkey in hotkeys[collector.scope]},
            _extra(collector, settings),
        )
        for collector in COLLECTORS
        if off_reason(collector, settings) is None
    )


def probe_plan(settings: Settings, target: str, collect: Collection[str] = (), *, seated: bool = True) -> Plan:
    """Return the plan of a page about one miner.

    The named collectors run, with all their series. Without names, all run that have series about the target and do not
    need a request for each target. Unless the target is watched or has a seat, no request is sent for it alone.

    Raises:
        ChoiceError: A requested collector cannot give any data.
    """
    _require_known(collect)
    entries = []
    for collector in COLLECTORS:
        if collect and collector.name not in collect:
            continue
        problem = _probe_problem(collector, settings, target, seated=seated)
        if collect and problem:
            raise ChoiceError(f"the collector {collector.name} {problem}")
        if not problem and (collect or _probed_by_default(collector, settings)):
            hotkey = "" if collector.scope == "platform" else target
            feeds = {hotkey: _feeds(collector, settings, hotkey)}
            scope = Scope(frozenset({target}), "watched")
            entries.append(Entry(collector, scope, feeds, _extra(collector, settings), whole=bool(collect)))
    return Plan(entries, target=target)


def _probe_problem(collector: Collector, settings: Settings, target: str, *, seated: bool) -> str:
    """Return why a collector cannot give data about a target, or an empty text."""
    if settings.collectors.get(collector.name) is False:
        return f"is switched off: remove --no-collector.{collector.name}"
    if collector.scope == "signer" and all(key.address != target for key in settings.keys):
        return "needs the target's key: add --hotkey-file for this miner"
    if collector.needs_key and not settings.keys:
        return "needs a hotkey's key: add --hotkey-file"
    if collector.scope == "miner" and not seated:
        return f"cannot be used for {target}: the miner is not registered, or the metagraph is not available yet"
    return ""


def _probed_by_default(collector: Collector, settings: Settings) -> bool:
    if not any("hotkey" in metric.labels for metric in collector.metrics):
        return False
    by_default = collector.default == "on" or (collector.default == "key" and bool(settings.keys))
    return settings.collectors.get(collector.name, by_default)


def _require_known(collect: Collection[str]) -> None:
    names = [collector.name for collector in COLLECTORS]
    if unknown := [name for name in collect if name not in names]:
        raise ChoiceError(f"there is no collector {unknown[0][:40]!r}: use {', '.join(names)}")


def _feeds(collector: Collector, settings: Settings, hotkey: str, single: str = "") -> tuple[Feed[Any], ...]:
    return tuple(
        settings.tuned(feed.of(single if feed.per_chute else "" if feed.endpoint.scope == "platform" else hotkey))
        for feed in collector.feeds
    )


def _extra(collector: Collector, settings: Settings) -> tuple[Feed[Any], ...]:
    return tuple(
        settings.tuned(feed.of(hotkey))
        for feed in collector.extra
        if settings.keys or not feed.endpoint.signed
        for hotkey in ([""] if feed.endpoint.scope == "platform" else [key.address for key in settings.keys])
    )
