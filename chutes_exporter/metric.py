"""Declarations of metrics: names, help, labels and sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

T = TypeVar("T")

Stability = Literal["stable", "experimental"]
_UNITS = ("seconds", "bytes", "ratio", "hertz", "usd", "tao")


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The declaration of a metric.

    Attributes:
        name: The full name of its samples. The end ``_info`` means text in labels with the value 1,
            and ``_total`` a counter.
        source: Its endpoint and field.
        stability: Whether the name, labels and meaning may change before a new major version.
        complete: Names of the feeds whose answers must be complete. The metric is absent while a
            record may be missing.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    source: str = "exporter"
    stability: Stability = "stable"
    histogram: bool = False
    complete: frozenset[str] = frozenset()

    @property
    def kind(self) -> Literal["gauge", "counter", "info", "histogram"]:
        """Its type, which the end of the name tells, except for a histogram."""
        if self.histogram:
            return "histogram"
        if self.name.endswith("_info"):
            return "info"
        return "counter" if self.name.endswith("_total") else "gauge"

    @property
    def unit(self) -> str:
        """The base unit at the end of the name, before ``_total``. Empty without one."""
        name = self.name.removesuffix("_total")
        for unit in _UNITS:
            if name.endswith(f"_{unit}"):
                return unit
        return ""

    def register(self, kind: Callable[..., T], registry: CollectorRegistry, **options: Any) -> T:
        """Return a Counter, Gauge or Histogram of the client library for this metric."""
        return kind(self.name, self.help, self.labels, unit=self.unit, registry=registry, **options)
