"""What a page shows: which collectors run, for whom, and the feeds that they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chutes_exporter.collectors import COLLECTORS, Collector, Scope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from chutes_exporter.config import Settings
    from chutes_exporter.feeds.feed import Feed

_EVERYBODY = Scope(frozenset(), "watched")
"""The scope of collectors whose samples are the same for everybody: with one scope all pages share them."""
_FEW = 16
"""Most watched hotkeys for which collectors that ask for each of them are on by default."""


class ChoiceError(ValueError):
    """A collector that was asked for by name and cannot bring anything, with the reason in a sentence."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One collector of a plan.

    Attributes:
        collector: The collector.
        scope: Whose data it exports.
        feeds: Its feeds.
        extra: Feeds whose answers it also uses where they are known.
        whole: Whether series that belong to no miner are shown too.
    """

    collector: Collector
    scope: Scope
    feeds: tuple[Feed[Any], ...]
    extra: tuple[Feed[Any], ...] = ()
    whole: bool = True


class Plan:
    """Which collectors run, for whom, on a page.

    Args:
        entries: The collectors, those of one kind side by side, the most important first.
        target: The miner of a probe; empty for the metrics page, which also has the exporter's own metrics.

    Attributes:
        feeds: The feeds that it needs, each once.
    """

    def __init__(self, entries: Iterable[Entry], *, target: str = "") -> None:
        self.entries = tuple(entries)
        self.feeds = tuple(dict.fromkeys(feed for entry in self.entries for feed in (*entry.feeds, *entry.extra)))
        self.target = target

    @property
    def collectors(self) -> list[Collector]:
        """Its collectors, each once."""
        return list(dict.fromkeys(entry.collector for entry in self.entries))

    def only(self, collect: Collection[str]) -> Plan:
        """Return a plan of some of its collectors.

        Raises:
            ChoiceError: A collector that is wanted is not among them.
        """
        for name in collect:
            _require_known(name)
            if all(collector.name != name for collector in self.collectors):
                raise ChoiceError(f"the collector {name} is not on: see --collector.{name}, and whether it needs a key")
        return Plan(entry for entry in self.entries if entry.collector.name in collect)


def enabled(collector: Collector, settings: Settings) -> bool:
    """Tell whether a collector is on: as the user said, or by default, where it can work."""
    if (collector.needs_key and not settings.keys) or (collector.scope == "miner" and not settings.watched):
        return False
    default = {
        "on": True,
        "off": False,
        "watched": settings.miners == "watched",
        "few": len(settings.watched) <= _FEW,
        "key": bool(settings.keys),
    }
    return settings.collectors.get(collector.name, default[collector.default])


def main_plan(settings: Settings) -> Plan:
    """Return what the metrics page shows: all collectors that are on."""
    return Plan(_main_entries(settings, [collector for collector in COLLECTORS if enabled(collector, settings)]))


def _main_entries(settings: Settings, collectors: Iterable[Collector]) -> Iterator[Entry]:
    hotkeys = {
        "platform": [""],
        "signer": [key.address for key in settings.keys],
        "miner": sorted(settings.watched),
    }
    # Stats per chute: for one miner a small answer; for more, one large answer is still one request.
    single = next(iter(settings.watched)) if len(settings.watched) == 1 and settings.miners == "watched" else ""
    for collector in collectors:
        for hotkey in hotkeys[collector.scope]:
            scope = Scope(settings.watched, settings.miners, hotkey) if tells_of_miners(collector) else _EVERYBODY
            yield Entry(collector, scope, _feeds(collector, settings, hotkey, single), _extra(collector, settings))


def probe_plan(settings: Settings, target: str, collect: Collection[str] = (), *, seated: bool = True) -> Plan:
    """Return what a page about one miner shows: its own series, and all of what is asked for by name.

    Args:
        settings: Which keys there are, and which collectors are on.
        target: The miner's hotkey.
        collect: Names of the only collectors that are wanted; where it is empty, all that can say something about
            the target without asking the API once for each target.
        seated: Whether the target is watched or has a seat: only then the API is asked about it alone.

    Raises:
        ChoiceError: A collector that is wanted cannot say anything.
    """
    for name in collect:
        _require_known(name)
    return Plan(_probe_entries(settings, target, collect, seated), target=target)


def _probe_entries(settings: Settings, target: str, collect: Collection[str], seated: bool) -> Iterator[Entry]:  # noqa: FBT001
    for collector in COLLECTORS:
        if collect and collector.name not in collect:
            continue
        trouble = _probe_trouble(collector, settings, target)
        if collector.scope == "miner" and not seated:
            trouble = f"the collector {collector.name} asks for each miner, and {target} is not known to have a seat"
        if collect and trouble:
            raise ChoiceError(trouble)
        if trouble or not (collect or _probed_by_default(collector, settings)):
            continue
        hotkey = "" if collector.scope == "platform" else target
        scope = Scope(frozenset({target}), "watched", hotkey) if tells_of_miners(collector) else _EVERYBODY
        feeds = _feeds(collector, settings, hotkey, single="")
        yield Entry(collector, scope, feeds, _extra(collector, settings), whole=bool(collect))


def tells_of_miners(collector: Collector) -> bool:
    """Tell whether some of a collector's series are miners' own: otherwise its samples are the same for everybody."""
    return any("hotkey" in metric.labels for metric in collector.metrics)


def _probe_trouble(collector: Collector, settings: Settings, target: str) -> str:
    """Say why a collector cannot tell anything about a target, or nothing where it can."""
    name = collector.name
    if settings.collectors.get(name) is False:
        return f"the collector {name} is switched off"
    if collector.scope == "signer" and all(key.address != target for key in settings.keys):
        return f"the collector {name} needs the target's own seed, which is not configured here"
    if collector.needs_key and not settings.keys:
        return f"the collector {name} needs a hotkey's seed, and none is configured here"
    return ""


def _probed_by_default(collector: Collector, settings: Settings) -> bool:
    if not tells_of_miners(collector):
        return False
    by_default = collector.default == "on" or (collector.default == "key" and bool(settings.keys))
    return settings.collectors.get(collector.name, by_default)


def _require_known(name: str) -> None:
    names = [collector.name for collector in COLLECTORS]
    if name not in names:
        raise ChoiceError(f"there is no collector {name[:40]!r}: choose of {', '.join(names)}")


def _feeds(collector: Collector, settings: Settings, hotkey: str, single: str) -> tuple[Feed[Any], ...]:
    def of(feed: Feed[Any]) -> str:
        if feed.per_chute:
            return single
        return "" if feed.endpoint.scope == "platform" else hotkey

    return tuple(settings.tuned(feed.of(of(feed))) for feed in collector.feeds)


def _extra(collector: Collector, settings: Settings) -> tuple[Feed[Any], ...]:
    return tuple(settings.tuned(feed.of(key.address)) for feed in collector.extra for key in settings.keys)
