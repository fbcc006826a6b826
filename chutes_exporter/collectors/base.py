"""What a collector is: a pure function from answers to samples, with a declaration of both ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chutes_exporter.metric import Metric, Samples
    from chutes_exporter.sources import AnySource, Source

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose data a collector shall export.

    Attributes:
        watched: The hotkeys that the user named.
        all_miners: Whether every miner's public data is exported, not only the watched ones'.
        signer: The hotkey whose private data the answers hold; empty for platform-wide answers.
    """

    watched: frozenset[str]
    all_miners: bool
    signer: str = ""

    def exports(self, hotkey: str) -> bool:
        """Tell whether a miner's public data is exported."""
        return self.all_miners or hotkey in self.watched


class Answers:
    """The answers to a collector's sources, typed by source."""

    def __init__(self, values: Mapping[AnySource, Any]) -> None:
        self._values = values

    def __getitem__(self, source: Source[T]) -> T:
        value: T = self._values[source]
        return value


@dataclass(frozen=True, eq=False)
class Collector:
    """A topic of metrics.

    Attributes:
        name: Its name in flags and labels.
        summary: What it is about, for help texts and docs.
        sources: What it needs; it runs when all of them have an answer.
        metrics: What it makes.
        collect: Makes samples of answers. Pure: same answers, same samples.
        default: Whether it is on unless said otherwise.
        watched_only: Whether, unless said otherwise, it is on only where hotkeys are named (too large for all).
    """

    name: str
    summary: str
    sources: tuple[AnySource, ...]
    metrics: tuple[Metric, ...]
    collect: Callable[[Answers, Scope, Samples], None]
    default: bool = True
    watched_only: bool = False

    @property
    def needs_key(self) -> bool:
        """Whether it works only with a hotkey's seed."""
        return any(source.endpoint.signed for source in self.sources)

    @property
    def of_signer(self) -> bool:
        """Whether it runs once for each hotkey with a seed, rather than once."""
        return any(source.of_signer for source in self.sources)
