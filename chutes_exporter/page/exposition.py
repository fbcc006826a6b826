"""The formats of pages: Prometheus' text format 0.0.4 and OpenMetrics 1.0.0.

The client library writes both.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from prometheus_client import Metric as Family
from prometheus_client import disable_created_metrics, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_QUALITY = re.compile(r"0(\.[0-9]*)?|1(\.0*)?", re.ASCII)
END_OF_OPENMETRICS = b"# EOF\n"
# Prometheus would store each _created line of a counter as an additional series.
disable_created_metrics()  # type: ignore[no-untyped-call] # no types there


class Format(Enum):
    """A format and its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def negotiate(accept: str) -> Format:
    """Choose OpenMetrics if an Accept header names it, and does not prefer text."""
    of_openmetrics = quality(accept, "application/openmetrics-text", "1.0.0")
    of_text = quality(accept, "text/plain", "0.0.4")
    if of_openmetrics and of_openmetrics >= of_text:
        return Format.OPENMETRICS
    return Format.TEXT


def quality(header: str, name: str, version: str = "") -> float:
    """Return the quality from 0 to 1 that an Accept header gives to a name, 0 if it is not there.

    An item of the header with another version or an invalid quality does not count. One without a
    version means any version, and one without a quality has 1.
    """
    highest = 0.0
    for item in header.lower().split(","):
        item_name, *options = [part.strip() for part in item.split(";")]
        values = dict(option.partition("=")[::2] for option in options)
        item_version = values.get("version", version).strip('"')
        item_quality = values.get("q", "1")
        if item_name != name or item_version != version:
            continue
        if _QUALITY.fullmatch(item_quality):
            highest = max(highest, float(item_quality))
    return highest


def lines(families: Iterable[Family], form: Format) -> bytes:
    """Return the lines of families, without the end of a page."""
    if form is Format.TEXT:
        return generate_latest(_Families(families))
    written: bytes = openmetrics.generate_latest(_Families(families))  # type: ignore[no-untyped-call] # no types there
    return written.removesuffix(END_OF_OPENMETRICS)


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines that a collector made.

    Attributes:
        origin: The versions of the answers of which they were made, and the neighbours of the
            watched miners at that time.
        body: The lines as bytes, None if the page has no room for them.
        series: Their number of series, also without a body.
        failed: The hotkeys for which the collector failed.
    """

    origin: object
    body: bytes | None
    series: int
    failed: Sequence[str]


class _Families(Collector):
    """Families as the library's writers take them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


class Compressor:
    """Compresses pages, and keeps the compressed start until it changes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._begin()

    def _begin(self) -> None:
        # Level 1 takes a ninth of the time of the default level, for a fifth more bytes. With these
        # bits, the format is that of gzip.
        self._stream = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)
        self._compressed = self._stream.compress(b"".join(self._parts))

    def compress(self, parts: list[bytes], end: bytes) -> bytes:
        """Return a page as one gzip member (RFC 1952). The end is kept for no other page."""
        if parts != self._parts:
            self._parts = parts
            self._begin()
        # The next page continues the stream after the same parts.
        stream = self._stream.copy()
        return self._compressed + stream.compress(end) + stream.flush()
