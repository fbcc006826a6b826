"""Metrics as declarations, and the samples made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chutes_exporter.api.errors import scrub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_LABEL_CHARACTERS = 200
"""Longer text is cut: it is there to be recognised, not to be read in full."""

_LONG = 64

Stability = Literal["stable", "experimental"]
LabelValue = str | int | bool | None


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The declaration of a metric: its name, meaning and origin, once.

    Attributes:
        name: The full name of its samples, suffixes included.
        help: What it means, in a sentence.
        labels: Label names, in the order of the values that samples bring.
        source: The endpoint and field that it comes from.
        kind: ``gauge``, ``counter``, ``histogram``, or ``info`` (text in labels; the value is always 1).
        stability: Whether name, labels and meaning are promised to stay.
        changes: How often the service changes it, where that differs from its collector's sources.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    source: str = ""
    kind: Literal["gauge", "counter", "info", "histogram"] = "gauge"
    stability: Stability = "stable"
    changes: str = ""

    @property
    def unit(self) -> str:
        """The base unit that ends the name, or the empty string."""
        stem = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return next(
            (unit for unit in ("seconds", "bytes", "ratio", "hertz", "usd", "tao") if stem.endswith(f"_{unit}")), ""
        )


class Metrics(list[Metric]):
    """The metrics of a module, declared once each: declaring one adds it."""

    def gauge(
        self,
        name: str,
        help: str,  # noqa: A002 - the formats' own word
        labels: tuple[str, ...] = (),
        source: str = "",
        *,
        stability: Stability = "stable",
        changes: str = "",
    ) -> Metric:
        """Declare a value that rises and falls."""
        return self._declare(Metric(name, help, labels, source, "gauge", stability, changes))

    def counter(
        self,
        name: str,
        help: str,  # noqa: A002
        labels: tuple[str, ...] = (),
        source: str = "",
        *,
        stability: Stability = "stable",
    ) -> Metric:
        """Declare a value that only rises while the process lives."""
        return self._declare(Metric(name, help, labels, source, "counter", stability))

    def histogram(self, name: str, help: str, labels: tuple[str, ...] = (), source: str = "") -> Metric:  # noqa: A002
        """Declare a distribution."""
        return self._declare(Metric(name, help, labels, source, "histogram"))

    def info(self, name: str, help: str, labels: tuple[str, ...], source: str, *, changes: str = "") -> Metric:  # noqa: A002
        """Declare text in labels; the value is always 1."""
        return self._declare(Metric(name, help, labels, source, "info", changes=changes))

    def _declare(self, metric: Metric) -> Metric:
        self.append(metric)
        return metric


class Samples:
    """Collects samples, in such a way that any page made of them is valid.

    Unknown values (None, or not finite) make no sample; a second sample of one series is dropped and counted.

    Args:
        limit: Most samples to keep. With more all are dropped, and only their number is known.
        with_created: Whether to keep the times from which counters count.

    Attributes:
        count: How many samples there are, those that were dropped because of the limit included.
        duplicates: Samples dropped because their series had one already.
        created: Unix time from which on counters count, by metric and label values, where it is known and kept.
    """

    def __init__(self, limit: float = math.inf, *, with_created: bool = False) -> None:
        self._families: dict[Metric, dict[tuple[str, ...], float]] = {}
        self._limit = limit
        self._with_created = with_created
        self.count = 0
        self.duplicates = 0
        self.created: dict[tuple[Metric, tuple[str, ...]], float] = {}

    def add(self, metric: Metric, value: float | None, *labels: LabelValue, created: float | None = None) -> None:
        """Add a sample, unless its value is unknown.

        Args:
            metric: What it is a sample of.
            value: Its value; booleans are 1 and 0.
            labels: The label values, in the declared order. None is unknown: an empty label.
            created: Of a counter, the Unix time from which on it counts.
        """
        if value is None:
            return
        number = float(value)
        if not math.isfinite(number):
            return
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}, not {len(labels)} values")
        if self.count >= self._limit:
            self._families.clear()
            self.count += 1
            return
        values = tuple([_label(label) for label in labels])
        family = self._families.setdefault(metric, {})
        if values in family:
            self.duplicates += 1
        else:
            family[values] = number
            self.count += 1
            if created is not None and self._with_created:
                self.created[metric, values] = created

    def families(self) -> Iterator[tuple[Metric, Mapping[tuple[str, ...], float]]]:
        """Return the samples of each metric that has any."""
        return iter(self._families.items())

    @property
    def overflowed(self) -> bool:
        """Whether the samples were dropped because they were more than the limit."""
        return self.count > self._limit

    def __len__(self) -> int:
        return sum(map(len, self._families.values()))


def _label(value: LabelValue) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if len(text) >= _LONG:
        # An API that echoes a signature must not bring it onto the page.
        text = scrub(text)[:MAX_LABEL_CHARACTERS]
    # Prometheus' parser takes NUL for the end of the page.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
