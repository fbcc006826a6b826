"""Declarations of metrics: names, help, labels and sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Stability = Literal["stable", "experimental"]


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
