"""Collectors: pure functions from answers to samples, with their declarations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import structlog
from prometheus_client import Metric as Family

from chutes_exporter.api.errors import scrub
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.fleet.answers import first_of_each
from chutes_exporter.metric import Metric
from chutes_exporter.rules.money import Costs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from chutes_exporter.api.answer import Answer
    from chutes_exporter.config import ChutesChoice, MinersChoice
    from chutes_exporter.feeds.feed import Feed
    from chutes_exporter.feeds.fleet import Joined
    from chutes_exporter.metric import Stability

_log = structlog.get_logger("exporter")

T = TypeVar("T")
R = TypeVar("R")

MAX_LABEL_CHARACTERS = 200
_SCRUBBED_LENGTH = 64
"""Only texts of at least this length can contain a signature."""

LabelValue = str | int | bool | None


@dataclass(frozen=True, slots=True)
class Miners:
    """The miners whose data a collector exports, and what the watched miners pay for GPUs.

    Attributes:
        choice: Which miners are exported besides the watched ones.
        hotkey: The miner that the answers are about, or :data:`THE_PLATFORM`.
        neighbours: The present neighbours of the watched miners, none if the choice is another.
        chutes: Which chutes are exported.
    """

    watched: frozenset[str]
    choice: MinersChoice
    hotkey: str = THE_PLATFORM
    neighbours: frozenset[str] = frozenset()
    chutes: ChutesChoice = "all"
    costs: Costs = field(default_factory=Costs)

    def exports(self, hotkey: str) -> bool:
        """Return whether a miner's public data is exported."""
        return self.choice == "all" or hotkey in self.watched or hotkey in self.neighbours


class Answers:
    """The known answers, by the feed's name.

    Attributes:
        joined: What all answers of the page make together.
    """

    def __init__(self, answers: Mapping[str, Answer[Any]], joined: Joined) -> None:
        self._answers = answers
        self.joined = joined

    def __getitem__(self, feed: Feed[T]) -> T:
        value: T = self._answers[feed.name].value
        return value

    def has(self, feeds: Iterable[Feed[Any]]) -> bool:
        """Return whether the answers of all these feeds are known."""
        return all(feed.name in self._answers for feed in feeds)

    def received_at(self, feed: Feed[Any]) -> float:
        """Return the Unix time of an answer, 0 if it is not known."""
        answer = self._answers.get(feed.name)
        return 0.0 if answer is None else answer.received_at

    def complete(self, names: Iterable[str]) -> bool:
        """Return whether no record of these feeds can be missing."""
        return all(self._answers[name].complete for name in names)


class Samples:
    """Collects samples so that their page is valid.

    Unknown and infinite values are left out, and so is a second sample of a series.

    Args:
        limit: Maximum number of samples. With more, all are dropped and only counted.

    Attributes:
        count: Number of samples, including those dropped because of the limit.
        unknown: Metrics to leave out, because records of their feeds may be missing.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self._families: dict[str, Family] = {}
        self._series: set[tuple[str, tuple[str, ...]]] = set()
        self._limit = limit
        self.count = 0
        self.unknown: frozenset[Metric] = frozenset()

    def add(self, metric: Metric, value: float | None, *labels: LabelValue) -> None:
        """Add a sample of any metric but a histogram, unless a rule of this class leaves it out.

        The labels are in the declared order. One that is None is unknown and becomes an empty
        label.
        """
        if value is None or metric in self.unknown or not math.isfinite(value):
            return
        label_values = tuple([_label(label) for label in labels])
        series = (metric.name, label_values)
        if series in self._series:
            return
        self.count += 1
        if self.count > self._limit:
            # Too many: drop all, and every later one, because the count does not fall.
            self._families.clear()
            self._series.clear()
            return
        self._series.add(series)
        family = self._families.get(metric.name)
        if family is None:
            # The library appends the end of an info metric and of a counter itself.
            name = metric.name.removesuffix("_info").removesuffix("_total")
            family = Family(name, metric.help, metric.kind, metric.unit)
            self._families[metric.name] = family
        label_pairs = dict(zip(metric.labels, label_values, strict=True))
        family.add_sample(metric.name, label_pairs, float(value))

    def add_states(
        self, metric: Metric, present: str | None, states: Iterable[str], *labels: LabelValue
    ) -> None:
        """Add a sample for each of the states that a thing can have: 1 for the present one, 0 for
        the others. If the present one is None, it is unknown, and there are none.

        The state is the last label.
        """
        self.add_counts(metric, [present], states, *labels)

    def add_counts(
        self,
        metric: Metric,
        found: Collection[str | None],
        states: Iterable[str],
        *labels: LabelValue,
    ) -> None:
        """Add for each possible state how many things are found in it, unless one is unknown.

        The state is the last label.
        """
        counts = Counter(found)
        if not counts[None]:
            for state in states:
                self.add(metric, counts[state], *labels, state)

    def add_families(self, families: Iterable[Family]) -> None:
        """Add families that the client library has counted."""
        for family in families:
            self._families[family.name] = family
            self.count += len(family.samples)

    def families(self) -> list[Family]:
        """Return the family of each metric that has samples."""
        return list(self._families.values())

    @property
    def overflowed(self) -> bool:
        """Whether the samples were dropped because they were more than the limit."""
        return self.count > self._limit


def _label(value: LabelValue) -> str:
    """Return a label's text: ``true`` or ``false`` for a boolean, and empty if it is unknown."""
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) >= _SCRUBBED_LENGTH:
        # The API may echo a signature.
        text = scrub(text)[:MAX_LABEL_CHARACTERS]
    if not text.isascii():
        # A lone surrogate, which JSON can have, becomes a question mark.
        text = text.encode("utf-8", "replace").decode()
    # Prometheus' parser treats NUL as the end of the page.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


Scope = Literal["platform", "signer", "miner"]
_SCOPES: Final[tuple[Scope, ...]] = ("platform", "miner", "signer")
"""A part has the last of the scopes of its feeds."""
AddSamples = Callable[[Answers, Miners, Samples], None]
"""Adds samples of the answers about one miner, or about the platform. It is a pure function."""


class Part:
    """Metrics of a collector that need the same feeds.

    Args:
        feeds: The part has samples when all of them have an answer.
        also: Feeds without which it still has a part of its samples.
        scope: ``miner`` if it is collected for each watched hotkey although its feeds are about the
            platform.

    Attributes:
        scope: Whether it is about the platform, about each hotkey with a key (``signer``), or about
            each watched hotkey (``miner``).
        metrics: All that it may export.
        of_chutes: Whether it has samples only of exported chutes.
    """

    of_chutes = False

    def __init__(
        self, *feeds: Feed[Any], also: Iterable[Feed[Any]] = (), scope: Scope = "platform"
    ) -> None:
        self.feeds = feeds
        self.all_feeds = (*feeds, *also)
        scopes = [scope, *(feed.scope for feed in self.all_feeds)]
        self.scope = max(scopes, key=_SCOPES.index)
        self.metrics: list[Metric] = []
        self._functions: list[AddSamples] = []

    def metric(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...] = (),
        *,
        fields: str = "",
        complete: Iterable[Feed[Any]] = (),
        stability: Stability = "stable",
    ) -> Metric:
        """Declare a metric of this part.

        ``complete`` are feeds whose answers must be complete. While a record of one may be missing,
        the metric is left out, whatever the function adds. ``fields`` are for its documentation.
        """
        source = ", ".join(feed.source for feed in self.all_feeds)
        if fields:
            source += f": {fields}"
        metric = Metric(
            *(name, text, labels, source, stability),
            complete=frozenset(feed.name for feed in complete),
        )
        self.metrics.append(metric)
        return metric

    def function(self, function: AddSamples) -> AddSamples:
        """Decorate a function that adds samples. Several functions add theirs in this order."""
        self._functions.append(function)
        return function

    def add_samples(self, answers: Answers, miners: Miners, out: Samples) -> None:
        """Add the samples of all its functions."""
        for function in self._functions:
            function(answers, miners, out)

    @property
    def needs_key(self) -> bool:
        """Whether it has no sample without a hotkey's key."""
        # A part without ``feeds`` is about a miner's fleet, which public answers alone do not show.
        needed = self.feeds or self.all_feeds
        return any(feed.signed for feed in needed)


Need = Literal["chain", "key", "hotkey"]
_NEEDS: Final[dict[Need, str]] = {
    "chain": "--chain.url",
    "key": "a hotkey's key",
    "hotkey": "a hotkey",
}


@dataclass(frozen=True, eq=False)
class Collector:
    """A topic of metrics.

    Attributes:
        summary: Its topic, for help texts and docs.
        parts: What makes its samples.
        on: Whether it is on by default, if nothing that it needs is missing.
    """

    name: str
    summary: str
    parts: Sequence[Part]
    on: bool = True

    def run(self, answers: Answers, miners: Miners, out: Samples) -> bool:
        """Add the samples of each part whose answers are known, and return whether that succeeded.

        The answers are about a miner, or about the platform, and so are the parts that run. A
        failure is logged. The samples before it and of the other parts stay.
        """
        succeeded = True
        is_about_platform = miners.hotkey == THE_PLATFORM
        for part in self.parts:
            is_asked = (part.scope == "platform") == is_about_platform
            if not is_asked or not answers.has(part.feeds):
                continue
            out.unknown = frozenset(
                metric for metric in part.metrics if not answers.complete(metric.complete)
            )
            try:
                part.add_samples(answers, miners, out)
            except Exception:  # noqa: BLE001 - a bug, or an unforeseen answer, must not remove the other parts
                _log.exception("collector failed", collector=self.name, hotkey=miners.hotkey)
                succeeded = False
        return succeeded

    @property
    def feeds(self) -> tuple[Feed[Any], ...]:
        """The feeds of its parts, each once."""
        feeds: list[Feed[Any]] = []
        for part in self.parts:
            feeds += part.all_feeds
        return tuple(dict.fromkeys(feeds))

    @property
    def needed_feeds(self) -> frozenset[str]:
        """Names of the feeds without which one of its parts has no samples."""
        names: set[str] = set()
        for part in self.parts:
            names.update(feed.name for feed in part.feeds)
        return frozenset(names)

    @property
    def metrics(self) -> list[Metric]:
        """The metrics of its parts. If two parts have the same one, that of the first."""
        metrics: list[Metric] = []
        for part in self.parts:
            metrics += part.metrics
        return [*first_of_each(metrics, "name").values()]

    @property
    def needs(self) -> list[Need]:
        """What the user must configure for it."""
        needs: list[Need] = []
        if any(feed.name == "chain" for feed in self.feeds):
            needs.append("chain")
        if all(part.needs_key for part in self.parts):
            needs.append("key")
        if self.parts[0].scope == "miner":
            needs.append("hotkey")
        return needs

    @property
    def default_in_words(self) -> str:
        """Whether it is on by default, and what it needs for that, for help texts and docs."""
        words = "on" if self.on else "off"
        needs = " and ".join(_NEEDS[need] for need in self.needs)
        return f"{words}, with {needs}" if needs else words
