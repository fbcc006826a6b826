"""Declared metrics and their samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chutes_exporter.api.errors import scrub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_LABEL_CHARACTERS = 200
_SCRUBBED_LENGTH = 64
"""Only texts of at least this length can contain a signature."""

Stability = Literal["stable", "experimental"]
LabelValue = str | int | bool | None


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The declaration of a metric.

    Attributes:
        name: The full name of its samples, with suffixes.
        help: Its meaning.
        labels: Label names, in the order of the samples' label values.
        source: Its endpoint and field.
        kind: ``gauge``, ``counter``, ``histogram``, or ``info`` (text in labels, value 1).
        stability: Whether the name, labels and meaning may change before a new major version.
        changes: How often the service changes it, if that differs from its collector's feeds.
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
    """The metrics of a module. Each method declares a metric and adds it."""

    def gauge(
        self,
        name: str,
        help: str,  # noqa: A002 - the exposition formats call it so
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
        """Declare text in labels, with the value 1."""
        return self._declare(Metric(name, help, labels, source, "info", changes=changes))

    def _declare(self, metric: Metric) -> Metric:
        self.append(metric)
        return metric


class Samples:
    """Collects samples so that their page is valid.

    Unknown and infinite values are left out. A second sample of a series is dropped and counted.

    Args:
        limit: Maximum number of samples. With more, all are dropped and only counted.
        with_created: Whether to keep the start times of counters.

    Attributes:
        count: Number of samples, including those dropped because of the limit.
        duplicates: Samples dropped because their series had a sample already.
        created: Known start times of counters in Unix time, by metric and label values.
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
            metric: The metric.
            value: The value. Booleans become 1 and 0.
            labels: The label values in the declared order. None is unknown and becomes an empty label.
            created: Unix time at which a counter started.
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
    if len(text) >= _SCRUBBED_LENGTH:
        # The API may echo a signature.
        text = scrub(text)[:MAX_LABEL_CHARACTERS]
    # Prometheus' parser treats NUL as the end of the page.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
