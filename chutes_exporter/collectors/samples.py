"""The samples of one collection, as families of Prometheus' client library."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from chutes_exporter.api.errors import scrub
from chutes_exporter.metric import Metric, Metrics

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

__all__ = ["MAX_LABEL_CHARACTERS", "LabelValue", "Metric", "Metrics", "Samples"]

MAX_LABEL_CHARACTERS = 200
_SCRUBBED_LENGTH = 64
"""Only texts of at least this length can contain a signature."""

LabelValue = str | int | bool | None


class Samples:
    """Collects samples so that their page is valid.

    Unknown and infinite values are left out. A second sample of a series is dropped and counted.

    Args:
        limit: Maximum number of samples. With more, all are dropped and only counted.

    Attributes:
        count: Number of samples, including those dropped because of the limit.
        duplicates: Samples dropped because their series had a sample already.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self._families: dict[Metric, GaugeMetricFamily | CounterMetricFamily | InfoMetricFamily] = {}
        self._series: set[tuple[Metric, tuple[str, ...]]] = set()
        self._limit = limit
        self.count = 0
        self.duplicates = 0

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
            family = self._families[metric] = _family(metric)
        if isinstance(family, GaugeMetricFamily):
            family.add_metric(values, number)
        elif isinstance(family, CounterMetricFamily):
            family.add_metric(values, number, created)
        else:
            family.add_metric(values, {})

    def collect(self) -> list[Family]:
        """Return the family of each metric that has samples."""
        return list(self._families.values())

    @property
    def overflowed(self) -> bool:
        """Whether the samples were dropped because they were more than the limit."""
        return self.count > self._limit


def _family(metric: Metric) -> GaugeMetricFamily | CounterMetricFamily | InfoMetricFamily:
    if metric.kind == "info":
        return InfoMetricFamily(metric.name.removesuffix("_info"), metric.help, labels=metric.labels)
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.name, metric.help, labels=metric.labels, unit=metric.unit)


def _label(value: LabelValue) -> str:
    if isinstance(value, str):
        text = value
    elif value is None:
        return ""
    else:
        text = ("false", "true")[value] if isinstance(value, bool) else str(value)
    if len(text) >= _SCRUBBED_LENGTH:
        # The API may echo a signature.
        text = scrub(text)[:MAX_LABEL_CHARACTERS]
    # Prometheus' parser treats NUL as the end of the page.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
