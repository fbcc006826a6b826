"""Collectors: pure functions from answers to samples, with their declarations."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import structlog
from prometheus_client import Metric as Family

from chutes_exporter.api.errors import scrub
from chutes_exporter.metric import Metric, Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chutes_exporter.api.client import Answer
    from chutes_exporter.feeds.feed import Feed

__all__ = ["Answers", "Collector", "Metric", "Metrics", "MinersChoice", "Samples", "Scope", "distinct"]

_log = structlog.get_logger("exporter")

T = TypeVar("T")
R = TypeVar("R")


MAX_LABEL_CHARACTERS = 200
_SCRUBBED_LENGTH = 64
"""Only texts of at least this length can contain a signature."""

LabelValue = str | int | bool | None
MinersChoice = Literal["watched", "active", "all"]
"""Miners whose public data is exported: watched ones, watched and earning ones, or all."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The miners whose data a collector exports, and the miner of the answers: empty for those of the platform."""

    watched: frozenset[str]
    miners: MinersChoice
    hotkey: str = ""

    def exports(self, hotkey: str, *, active: bool) -> bool:
        """Return whether a miner's public data is exported. An active miner earns according to this data."""
        return self.miners == "all" or hotkey in self.watched or (active and self.miners == "active")


class Answers:
    """The answers of a collector's feeds.

    Args:
        answers: By the feed's name.
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


class Samples:
    """Collects samples so that their page is valid.

    Unknown and infinite values are left out. A second sample of a series is dropped and counted.

    Args:
        limit: Maximum number of samples. With more, all are dropped and only counted.

    Attributes:
        count: Number of samples, including those dropped because of the limit.
        duplicates: Number of records and samples dropped as duplicates.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self._families: dict[Metric, Family] = {}
        self._series: set[tuple[Metric, tuple[str, ...]]] = set()
        self._limit = limit
        self.count = 0
        self.duplicates = 0

    def add(self, metric: Metric, value: float | None, *labels: LabelValue) -> None:
        """Add a sample of a gauge or info metric, unless its value is unknown.

        Args:
            metric: The metric.
            value: Booleans become 1 and 0.
            labels: The label values in the declared order. None is unknown and becomes an empty label.
        """
        if value is None or not math.isfinite(value):
            return
        values = tuple([_label(label) for label in labels])
        if (metric, values) in self._series:
            self.duplicates += 1
            return
        self.count += 1
        if self.count > self._limit:
            self._families.clear()
            self._series.clear()
            return
        self._series.add((metric, values))
        family = self._families.get(metric)
        if family is None:
            name = metric.name.removesuffix("_info")
            family = self._families[metric] = Family(name, metric.help, metric.kind, metric.unit)
        family.add_sample(metric.name, dict(zip(metric.labels, values, strict=True)), float(value))

    def collect(self) -> list[Family]:
        """Return the family of each metric that has samples."""
        return list(self._families.values())

    @property
    def overflowed(self) -> bool:
        """Whether the samples were dropped because they were more than the limit."""
        return self.count > self._limit


def _label(value: LabelValue) -> str:
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) >= _SCRUBBED_LENGTH:
        # The API may echo a signature.
        text = scrub(text)[:MAX_LABEL_CHARACTERS]
    # Prometheus' parser treats NUL as the end of the page.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def distinct(records: list[R], identity: Callable[[R], object], out: Samples) -> list[R]:
    """Return the first record of each identity, and count the others as duplicates."""
    first: dict[object, R] = {}
    for record in records:
        if first.setdefault(identity(record), record) is not record:
            out.duplicates += 1
    return list(first.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a collector worked on the answers about one miner, or about the platform.

    The samples that a collector added before it failed stay.
    """

    duplicates: int
    seconds: float
    failed: bool


_DEFAULTS = {
    "on": "on",
    "off": "off",
    "watched": "on if only configured hotkeys are watched",
    "few": "on if 1 to 16 hotkeys are configured",
    "key": "on if a hotkey's key is configured (not required)",
}


@dataclass(frozen=True, eq=False)
class Collector:
    """A topic of metrics.

    Attributes:
        summary: Its topic, for help texts and docs.
        feeds: It runs when all of them have an answer.
        collect: Makes samples from the answers about one miner, or about the platform. It is a pure function.
        cost: The maximum number of series, in words.
        extra: Feeds that it uses if their answers are known: those of the platform, and others for each hotkey with a
            key.
        default: ``on``, ``off``, ``watched`` (on if only named hotkeys are watched, because it is large for all
            miners), ``few`` (on for up to 16 named hotkeys, because it sends a request for each) or ``key`` (on with a
            hotkey's key, because it shows less without one).
    """

    name: str
    summary: str
    feeds: tuple[Feed[Any], ...]
    metrics: Sequence[Metric]
    collect: Callable[[Answers, Scope, Samples], None]
    cost: str
    default: Literal["on", "off", "watched", "few", "key"] = "on"
    extra: tuple[Feed[Any], ...] = ()

    def run(self, answers: Mapping[str, Answers], scope: Scope, out: Samples) -> dict[str, Outcome]:
        """Add the samples of all answers, which are by hotkey, and return the outcomes. The platform's is empty."""
        outcomes = {}
        for hotkey, of_miner in answers.items():
            duplicates, started, failed = out.duplicates, time.perf_counter(), False
            try:
                self.collect(of_miner, replace(scope, hotkey=hotkey), out)
            except Exception:  # noqa: BLE001 - a bug, or an unforeseen answer, must not remove the other collectors
                _log.exception("collector failed", collector=self.name, hotkey=hotkey)
                failed = True
            outcomes[hotkey] = Outcome(out.duplicates - duplicates, time.perf_counter() - started, failed)
        return outcomes

    @property
    def needs_key(self) -> bool:
        """Whether it needs a hotkey's key."""
        return any(feed.endpoint.signed for feed in self.feeds)

    @property
    def scope(self) -> Literal["platform", "signer", "miner"]:
        """Whether it runs once, once for each hotkey with a key, or once for each watched hotkey."""
        scopes = {feed.endpoint.scope for feed in self.feeds}
        return "signer" if "signer" in scopes else "miner" if "miner" in scopes else "platform"

    @property
    def default_in_words(self) -> str:
        """The default in words, for help texts and docs."""
        return _DEFAULTS[self.default] + (", with a hotkey's key" if self.needs_key else "")
