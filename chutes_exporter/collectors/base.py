"""What a collector is: a pure function from answers to samples, with a declaration of both ends."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chutes_exporter.api.client import Answer
    from chutes_exporter.collectors.samples import Metric, Samples
    from chutes_exporter.feeds.feed import Feed

T = TypeVar("T")
R = TypeVar("R")


MinersChoice = Literal["watched", "active", "all"]
"""Whose public data is exported: the named hotkeys', theirs and that of all miners that earn, or everybody's."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose data a collector shall export.

    Attributes:
        watched: The hotkeys that the user named.
        miners: Which other miners' public data is exported.
        hotkey: The miner that the answers are about; empty for platform-wide answers.
    """

    watched: frozenset[str]
    miners: MinersChoice
    hotkey: str = ""

    def exports(self, hotkey: str, *, active: bool) -> bool:
        """Tell whether a miner's public data is exported.

        Args:
            hotkey: The miner.
            active: Whether it earns, by what the collector at hand knows.
        """
        return self.miners == "all" or hotkey in self.watched or (active and self.miners == "active")


class Answers:
    """The answers to a collector's feeds, typed by feed.

    Args:
        answers: By the feed's name, one for each feed that the collector needs.
        extra: By the feed's name and hotkey, the known ones of the collector's extra feeds.
    """

    def __init__(
        self, answers: Mapping[str, Answer[Any]], extra: Mapping[tuple[str, str], Answer[Any]] | None = None
    ) -> None:
        self._answers = answers
        self._extra = extra or {}

    def __getitem__(self, feed: Feed[T]) -> T:
        value: T = self._answers[feed.name].value
        return value

    def complete(self, *among: Feed[Any]) -> bool:
        """Tell whether the answers of the named feeds, or of all, are whole: every record read, none doubted.

        Otherwise nothing may be concluded from a record that is missing: no count, no rank, no zero.
        """
        names = [feed.name for feed in among] or self._answers
        return all(self._answers[name].whole for name in names)

    def by_hotkey(self, feed: Feed[T]) -> dict[str, T | None]:
        """Return the known answers of an extra feed by hotkey; None for one that is not whole."""
        return {
            hotkey: one.value if one.whole else None for (name, hotkey), one in self._extra.items() if name == feed.name
        }


def distinct(records: list[R], identity: Callable[[R], object], out: Samples) -> list[R]:
    """Return the first record of each identity; the others describe the same thing again and are counted."""
    found: dict[object, R] = {}
    for record in records:
        if found.setdefault(identity(record), record) is not record:
            out.duplicates += 1
    return list(found.values())


def total(values: Sequence[float | None]) -> float | None:
    """Add up, unless a part is unknown: then the sum is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


@dataclass(frozen=True, slots=True)
class Cost:
    """How many series a collector makes at most, by what they grow with.

    Attributes:
        fixed: Series that are there in any case, once for each hotkey where the answers are a hotkey's own.
        miner: Series for each exported miner.
        chute: Series for each chute of the platform.
        miner_chute: Series for each chute that an exported miner computed on within a week.
        server: Series for each server of a hotkey with a key.
        gpu: Series for each GPU of a hotkey with a key.
        instance: Series for each instance of a hotkey with a key.
        item: Series for each of what the collector lists besides (jobs, images, cooldowns).
    """

    fixed: int = 0
    miner: int = 0
    chute: int = 0
    miner_chute: int = 0
    server: int = 0
    gpu: int = 0
    instance: int = 0
    item: int = 0

    def in_words(self, each: str = "") -> str:
        """Say the cost in words.

        Args:
            each: What the fixed part is there once for.
        """
        words = {
            "fixed": each,
            "miner_chute": " for each chute of each miner",
            "gpu": " for each GPU",
        }
        return ", ".join(
            f"{count}{words.get(name, f' for each {name}')}" for name, count in asdict(self).items() if count
        )

    def series(self, **counts: int) -> int:
        """Return the series for given counts (of ``miner``, ``chute`` and so on)."""
        return self.fixed * counts.get("fixed", 1) + sum(
            count * int(getattr(self, name)) for name, count in counts.items() if name != "fixed"
        )


_DEFAULTS = {
    "on": "on",
    "off": "off",
    "watched": "on where only named hotkeys are watched",
    "few": "on where 1 to 16 hotkeys are named",
    "key": "on with a hotkey's seed",
}


@dataclass(frozen=True, eq=False)
class Collector:
    """A topic of metrics.

    Attributes:
        name: Its name in flags and labels.
        summary: What it is about, for help texts and docs.
        feeds: The feeds that it needs. It runs when all of them have an answer.
        metrics: What it makes.
        collect: Makes samples of answers. Pure: same answers, same samples.
        cost: How many series it makes.
        extra: Feeds that it also uses where their answers are known: one for each hotkey with a key.
        default: Whether it is on unless said otherwise: ``on``, ``off``, ``watched`` (where hotkeys are named: for
            all miners it is large), ``few`` (where a few hotkeys are named: it asks for each) or ``key`` (where there
            is a hotkey's seed: without one it says less).
    """

    name: str
    summary: str
    feeds: tuple[Feed[Any], ...]
    metrics: Sequence[Metric]
    collect: Callable[[Answers, Scope, Samples], None]
    cost: Cost
    default: Literal["on", "off", "watched", "few", "key"] = "on"
    extra: tuple[Feed[Any], ...] = ()

    @property
    def needs_key(self) -> bool:
        """Whether it works only with a hotkey's seed."""
        return any(feed.endpoint.signed for feed in self.feeds)

    @property
    def scope(self) -> Literal["platform", "signer", "miner"]:
        """Whether it runs once, once for each hotkey with a seed, or once for each watched hotkey."""
        scopes = {feed.endpoint.scope for feed in self.feeds}
        return "signer" if "signer" in scopes else "miner" if "miner" in scopes else "platform"

    @property
    def default_in_words(self) -> str:
        """When it is on unless said otherwise, for help texts and docs."""
        return _DEFAULTS[self.default] + (", with a hotkey's seed" if self.needs_key else "")
