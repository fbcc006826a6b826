"""Collectors: pure functions from answers to samples, with their declarations."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chutes_exporter.api.client import Answer
    from chutes_exporter.collectors.samples import Metric, Samples
    from chutes_exporter.feeds.feed import Feed

_log = structlog.get_logger("exporter")

T = TypeVar("T")
R = TypeVar("R")


MinersChoice = Literal["watched", "active", "all"]
"""Miners whose public data is exported: watched ones, watched and earning ones, or all."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The miners whose data a collector exports.

    Attributes:
        watched: The hotkeys that the user named.
        miners: The miners whose public data is exported.
        hotkey: The miner of the answers. Empty for platform-wide answers.
    """

    watched: frozenset[str]
    miners: MinersChoice
    hotkey: str = ""

    def exports(self, hotkey: str, *, active: bool) -> bool:
        """Return whether a miner's public data is exported.

        Args:
            hotkey: The miner.
            active: Whether it earns according to the collector's data.
        """
        return self.miners == "all" or hotkey in self.watched or (active and self.miners == "active")


class Answers:
    """The answers of a collector's feeds.

    Args:
        answers: The answer of each feed by name.
        extra: The known answers of extra feeds by name and hotkey, which is empty for a feed of the platform.
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
        """Return whether the answers of the given feeds, or of all, are whole.

        If not, records may be missing, so that counts, ranks and zeros could be false.
        """
        names = [feed.name for feed in among] or self._answers
        return all(self._answers[name].whole for name in names)

    def optional(self, feed: Feed[T]) -> T | None:
        """Return the answer of an extra feed of the platform, None if it is unknown or not whole."""
        answer = self._extra.get((feed.name, ""))
        return None if answer is None or not answer.whole else answer.value

    def by_hotkey(self, feed: Feed[T]) -> dict[str, T | None]:
        """Return the known answers of an extra feed by hotkey, None for an answer that is not whole."""
        return {
            hotkey: answer.value if answer.whole else None
            for (name, hotkey), answer in self._extra.items()
            if name == feed.name
        }


def distinct(records: list[R], identity: Callable[[R], object], out: Samples) -> list[R]:
    """Return the first record of each identity, and count the others as duplicates."""
    first: dict[object, R] = {}
    for record in records:
        if first.setdefault(identity(record), record) is not record:
            out.duplicates += 1
    return list(first.values())


@dataclass(frozen=True, slots=True)
class Cost:
    """The maximum number of series of a collector.

    Attributes:
        fixed: Series that always exist, once for each hotkey if the answers belong to a hotkey.
        miner: Series for each exported miner.
        chute: Series for each chute of the platform.
        miner_chute: Series for each chute that an exported miner computed on within a week.
        server: Series for each server of a hotkey with a key.
        gpu: Series for each GPU of a hotkey with a key.
        instance: Series for each instance of a hotkey with a key.
        item: Series for each other item that the collector lists (jobs, images, cooldowns).
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
        """Return the cost in words.

        Args:
            each: Words after the fixed part, such as " for each watched hotkey".
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
        """Return the series for the given counts of miners, chutes and so on."""
        return self.fixed * counts.get("fixed", 1) + sum(
            count * int(getattr(self, name)) for name, count in counts.items() if name != "fixed"
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a collector worked on the answers about one miner, or on those about the platform.

    Attributes:
        duplicates: Records and samples that were dropped because they describe the same thing again.
        seconds: Duration.
        failed: Whether the collector failed. The samples that it added before stay.
    """

    duplicates: int
    seconds: float
    failed: bool


_DEFAULTS = {
    "on": "on",
    "off": "off",
    "watched": "on if only configured hotkeys are watched",
    "few": "on if 1 to 16 hotkeys are configured",
    "key": "on if a hotkey's seed is configured (not required)",
}


@dataclass(frozen=True, eq=False)
class Collector:
    """A topic of metrics.

    Attributes:
        name: Name in flags and labels.
        summary: Its topic, for help texts and docs.
        feeds: The feeds that it needs. It runs when all of them have an answer.
        metrics: The metrics that it makes.
        collect: Makes samples from the answers about one miner, or about the platform. It is a pure function.
        cost: The maximum number of series.
        extra: Feeds that it uses if their answers are known: those of the platform, and others for each hotkey with a
            key.
        default: ``on``, ``off``, ``watched`` (on if only named hotkeys are watched, because it is large for all
            miners), ``few`` (on for up to 16 named hotkeys, because it sends a request for each) or ``key`` (on with a
            hotkey's seed, because it shows less without one).
    """

    name: str
    summary: str
    feeds: tuple[Feed[Any], ...]
    metrics: Sequence[Metric]
    collect: Callable[[Answers, Scope, Samples], None]
    cost: Cost
    default: Literal["on", "off", "watched", "few", "key"] = "on"
    extra: tuple[Feed[Any], ...] = ()

    def run(self, answers: Mapping[str, Answers], scope: Scope, out: Samples) -> dict[str, Outcome]:
        """Add the samples of all miners, and return the outcomes by hotkey.

        Args:
            answers: The answers about each miner by hotkey. Those about the platform have an empty hotkey.
            scope: The miners whose data is exported.
            out: Receives the samples.
        """
        return {hotkey: self._run(own, replace(scope, hotkey=hotkey), out) for hotkey, own in answers.items()}

    def _run(self, answers: Answers, scope: Scope, out: Samples) -> Outcome:
        duplicates, started, failed = out.duplicates, time.perf_counter(), False
        try:
            self.collect(answers, scope, out)
        except Exception:  # noqa: BLE001 - a bug, or an unforeseen answer, must not remove the other collectors
            _log.exception("collector failed", collector=self.name, hotkey=scope.hotkey)
            failed = True
        return Outcome(out.duplicates - duplicates, time.perf_counter() - started, failed)

    @property
    def needs_key(self) -> bool:
        """Whether it needs a hotkey's seed."""
        return any(feed.endpoint.signed for feed in self.feeds)

    @property
    def scope(self) -> Literal["platform", "signer", "miner"]:
        """Whether it runs once, once for each hotkey with a seed, or once for each watched hotkey."""
        scopes = {feed.endpoint.scope for feed in self.feeds}
        return "signer" if "signer" in scopes else "miner" if "miner" in scopes else "platform"

    @property
    def default_in_words(self) -> str:
        """The default in words, for help texts and docs."""
        return _DEFAULTS[self.default] + (", with a hotkey's seed" if self.needs_key else "")
