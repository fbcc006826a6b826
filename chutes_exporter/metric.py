"""Declarations of metrics: names, help, labels and sources."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

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
        each: The thing that it has series for, such as ``server``. Empty for a metric of the whole platform.
        times: The maximum number of series for each of them.
        whole: Names of the feeds whose answers must be whole. The metric is absent while a record may be missing.
    """

    name: str
    help: str
    labels: tuple[str, ...]
    source: str
    stability: Stability = "stable"
    histogram: bool = False
    each: str = ""
    times: int = 1
    whole: frozenset[str] = frozenset()

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
    """Metrics of one topic, with what those have in common that do not declare something else."""

    def __init__(self, source: str, labels: tuple[str, ...] = (), **common: Any) -> None:
        super().__init__()
        self._common: dict[str, Any] = {"source": source, "labels": labels, **common}

    def declare(self, name: str, help: str, field: str = "", **own: Any) -> Metric:  # noqa: A002 - as on the page
        """Declare a metric, with the field that its value is if it is one, and add it."""
        metric = Metric(name, help, **{**self._common, **own})
        self.append(replace(metric, source=f"{metric.source}: {field}") if field else metric)
        return self[-1]
