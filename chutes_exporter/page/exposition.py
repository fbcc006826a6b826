"""Exposition: the formats that a scraper can ask for, and the lines of metrics in them.

The formats are Prometheus' text format 0.0.4 and OpenMetrics 1.0.0. The client library writes both.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from prometheus_client import Metric as Family
from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

END_OF_OPENMETRICS = b"# EOF\n"


class Format(Enum):
    """A format and its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


_BY_MEDIA_RANGE = {
    "application/openmetrics-text": (Format.OPENMETRICS, "1.0.0"),
    "text/plain": (Format.TEXT, "0.0.4"),
    "text/*": (Format.TEXT, ""),
    "*/*": (Format.TEXT, ""),
}
"""The format of each media range, and the only version that a scraper may name with it."""


def negotiate(accept: str) -> Format:
    """Choose the format that an Accept header prefers.

    A scraper gets text unless it names OpenMetrics. It also gets text if it accepts neither, because it can show text.
    The client library's ``choose_encoder`` takes the first known format of the header, also one with the quality 0.
    """
    best, best_quality = Format.TEXT, 0.0
    for media_range, parameters in _header_items(accept):
        if media_range not in _BY_MEDIA_RANGE:
            continue
        form, version = _BY_MEDIA_RANGE[media_range]
        quality = _quality(parameters)
        if parameters.get("version", version) == version and quality > best_quality:
            best, best_quality = form, quality
    return best


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether an Accept-Encoding header allows gzip."""
    qualities = {coding: _quality(parameters) for coding, parameters in _header_items(accept_encoding)}
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


def _header_items(header: str) -> Iterable[tuple[str, dict[str, str]]]:
    for item in header.split(","):
        value, *parameters = item.lower().split(";")
        pairs = (parameter.partition("=") for parameter in parameters)
        yield value.strip(), {name.strip(): text.strip().strip('"') for name, _, text in pairs}


def _quality(parameters: dict[str, str]) -> float:
    try:
        return float(parameters.get("q", "1"))
    except ValueError:
        return 0.0


def lines(families: Iterable[Family], form: Format, *, created: bool = False) -> bytes:
    """Return the lines of families, without the end of a page. Only OpenMetrics has created timestamps."""
    shown = list(families) if created and form is Format.OPENMETRICS else [_without_created(one) for one in families]
    if form is Format.TEXT:
        return generate_latest(_Families(shown))
    written: bytes = openmetrics.generate_latest(_Families(shown))  # type: ignore[no-untyped-call] # no types there
    return written.removesuffix(END_OF_OPENMETRICS)


class _Families(Collector):
    """Families as the library's writers take them."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families


def _without_created(family: Family) -> Family:
    if family.type not in ("counter", "histogram"):
        return family
    without = Family(family.name, family.documentation, family.type, family.unit)
    without.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return without
