"""Exposition: the formats that a scraper can ask for, and the lines of metrics in them.

The formats are Prometheus' text format 0.0.4 and OpenMetrics 1.0.0. The client library writes both.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from prometheus_client import Metric as Family
from prometheus_client import disable_created_metrics, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

END_OF_OPENMETRICS = b"# EOF\n"
# Prometheus would store each _created line of a counter as an additional series.
disable_created_metrics()  # type: ignore[no-untyped-call] # no types there


class Format(Enum):
    """A format and its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def negotiate(accept: str) -> Format:
    """Choose OpenMetrics if an Accept header names its version 1.0.0 or no version of it, otherwise text."""
    named = [item for item in accept.lower().split(",") if "application/openmetrics-text" in item]
    is_openmetrics = any("version=" not in item or "version=1.0.0" in item for item in named)
    return Format.OPENMETRICS if is_openmetrics else Format.TEXT


def lines(families: Iterable[Family], form: Format) -> bytes:
    """Return the lines of families, without the end of a page."""
    if form is Format.TEXT:
        return generate_latest(_Families(families))
    written: bytes = openmetrics.generate_latest(_Families(families))  # type: ignore[no-untyped-call] # no types there
    return written.removesuffix(END_OF_OPENMETRICS)


class _Families(Collector):
    """Families as the library's writers take them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families
