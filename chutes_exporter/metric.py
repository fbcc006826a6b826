"""Declarations of metrics: names, help, labels and sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stability = Literal["stable", "experimental"]
_UNITS = ("seconds", "bytes", "ratio", "hertz", "usd", "tao")


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The declaration of a metric.

    Attributes:
        name: The full name of its samples. The end ``_info`` means text in labels with the value 1, and ``_total`` a
            counter.
        source: Its endpoint and field.
        stability: Whether the name, labels and meaning may change before a new major version.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    source: str
    stability: Stability = "stable"
    histogram: bool = False

    @property
    def kind(self) -> Literal["gauge", "counter", "info", "histogram"]:
        """Its type."""
        if self.histogram:
            return "histogram"
        return "info" if self.name.endswith("_info") else "counter" if self.name.endswith("_total") else "gauge"

    @property
    def unit(self) -> str:
        """The base unit that ends the name, or the empty string."""
        stem = self.name.removesuffix("_total")
        return next((unit for unit in _UNITS if stem.endswith(f"_{unit}")), "")


class Metrics(list[Metric]):
    """The metrics of a module, with their endpoint, and the labels of those that declare no others."""

    def __init__(self, source: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._source = source
        self._labels = labels

    def declare(
        self,
        name: str,
        help: str,  # noqa: A002 - the exposition formats call it so
        field: str = "",
        *,
        labels: tuple[str, ...] | None = None,
        source: str = "",
        stability: Stability = "stable",
        histogram: bool = False,
    ) -> Metric:
        """Declare a metric and add it. Its source is the field of the endpoint's answer, unless another is given."""
        source = source or (f"{self._source}: {field}" if field else self._source)
        metric = Metric(name, help, self._labels if labels is None else labels, source, stability, histogram)
        self.append(metric)
        return metric
