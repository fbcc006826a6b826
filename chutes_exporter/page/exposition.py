"""Exposition: the formats that a scraper can ask for, and how a page is written in them.

The formats are Prometheus' text format 0.0.4 and OpenMetrics 1.0.0. Both have the same line for a sample, and different
headers. So lines are rendered once and cached as bytes, and a section of a page adds the headers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import groupby, islice
from typing import TYPE_CHECKING

from chutes_exporter.page.compression import Piece

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from chutes_exporter.collectors.samples import Metric, Samples


class Format(Enum):
    """A format and its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


_OFFERS = (
    (Format.OPENMETRICS, "application", "openmetrics-text", "1.0.0"),
    (Format.TEXT, "text", "plain", "0.0.4"),
)


@dataclass(slots=True, eq=False)
class Family:
    """The rendered samples of one metric.

    Attributes:
        metric: The metric.
        lines: Its lines, each ended by a newline.
        samples: Number of lines.
        openmetrics: Its lines in OpenMetrics if they differ: counters can have created timestamps there.
        section: The section that begins with this family on the newest page.
    """

    metric: Metric
    lines: bytes
    samples: int
    openmetrics: bytes | None = None
    section: Section | None = None

    def lines_for(self, form: Format) -> bytes:
        """Return the lines in a format."""
        return self.openmetrics if form is Format.OPENMETRICS and self.openmetrics is not None else self.lines


class Section:
    """Families that stand together on a page, with their headers.

    Args:
        families: The families, in the order of the page.

    Attributes:
        others: The families after the first one, which refers to this section.
        pieces: The bytes in each format.
    """

    def __init__(self, families: Sequence[Family]) -> None:
        self.others = families[1:]
        self.pieces: dict[Format, Piece] = {}
        for form in Format:
            parts: list[bytes] = []
            for metric, members in groupby(families, key=lambda family: family.metric):
                parts += [header(metric, form).encode(), *(family.lines_for(form) for family in members)]
            self.pieces[form] = Piece(parts)


def sections(families: Iterable[Family], order: Mapping[Metric, str]) -> list[Section]:
    """Divide the families of a page into sections. A section stays the same as long as its families do.

    Args:
        families: Rendered families. Those of one metric are put together, as both formats demand.
        order: Every possible metric, in the order of the page, with the name of its section.
    """
    by_metric: dict[Metric, list[Family]] = {metric: [] for metric in order}
    for family in families:
        by_metric[family.metric].append(family)
    found: list[Section] = []
    for _, metrics in groupby(by_metric, key=order.__getitem__):
        if members := [family for metric in metrics for family in by_metric[metric]]:
            first, *others = members
            if first.section is None or first.section.others != others:
                first.section = Section(members)
            found.append(first.section)
    return found


def negotiate(accept: str) -> Format:
    """Choose the format that an Accept header prefers.

    A scraper gets text unless it names OpenMetrics. It also gets text if it accepts neither, because it can show text.
    """
    best, best_quality = Format.TEXT, 0.0
    for media_range, parameters in _header_items(accept):
        main, _, sub = media_range.partition("/")
        quality = _quality(parameters)
        for offer, offer_main, offer_sub, version in _OFFERS:
            if (main, sub) == (offer_main, offer_sub) and parameters.get("version", version) == version:
                if quality > best_quality:
                    best, best_quality = offer, quality
            elif offer is Format.TEXT and sub == "*" and main in ("*", offer_main) and quality > best_quality:
                best, best_quality = offer, quality
    return best


def accepts_gzip(accept_encoding: str) -> bool:
    """Tell whether an Accept-Encoding header allows gzip."""
    qualities = {coding: _quality(parameters) for coding, parameters in _header_items(accept_encoding)}
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


def _header_items(header: str) -> Iterable[tuple[str, dict[str, str]]]:
    for item in header.split(","):
        value, *parameters = item.split(";")
        pairs = (parameter.partition("=") for parameter in parameters)
        yield (
            value.strip().lower(),
            {name.strip().lower(): text.strip().strip('"') for name, _, text in pairs},
        )


def _quality(parameters: dict[str, str]) -> float:
    try:
        return min(max(float(parameters.get("q", "1")), 0.0), 1.0)
    except ValueError:
        return 0.0


class TooLongError(Exception):
    """The lines have more bytes than allowed."""


def render(samples: Samples, *, max_bytes: float = math.inf) -> list[Family]:
    """Render the lines of samples, family by family.

    Raises:
        TooLongError: The lines have more than ``max_bytes``.
    """
    rendered: list[Family] = []
    for metric, family in samples.families():
        pattern = _pattern(metric)
        lines = _join((pattern % (*map(_escape, labels), number(value)) for labels, value in family.items()), max_bytes)
        max_bytes -= len(lines)
        openmetrics = None
        if metric.kind == "counter":
            # In OpenMetrics, the created line of a series follows its sample.
            created = _pattern(metric, f"{metric.name.removesuffix('_total')}_created")
            openmetrics = _encode(
                pattern % (*map(_escape, labels), number(value))
                + (created % (*map(_escape, labels), number(since)) if since is not None else "")
                for labels, value, since in (
                    (labels, value, samples.created.get((metric, labels))) for labels, value in family.items()
                )
            )
        rendered.append(Family(metric, lines, len(family), openmetrics))
    return rendered


def _join(lines: Iterator[str], max_bytes: float) -> bytes:
    # In portions, because text takes several times the memory of bytes.
    joined = bytearray()
    while some := _encode(islice(lines, 1000)):
        joined += some
        if len(joined) > max_bytes:
            raise TooLongError
    return bytes(joined)


def _encode(lines: Iterable[str]) -> bytes:
    return "".join(lines).encode("utf-8", "replace")


@lru_cache(maxsize=1024)
def _pattern(metric: Metric, name: str = "") -> str:
    name = name or metric.name
    if not metric.labels:
        return f"{name} %s\n"
    labels = ",".join(f'{label}="%s"' for label in metric.labels)
    return f"{name}{{{labels}}} %s\n"


def _escape(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return value


def number(value: float) -> str:
    """Render a number."""
    # repr returns the shortest text that reads back as the same number.
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)  # noqa: PLR2004


def series(name: str, labels: Mapping[str, str]) -> str:
    """Render the identity of a series."""
    if not labels:
        return name
    pairs = ",".join(f'{label}="{_escape(value)}"' for label, value in labels.items())
    return f"{name}{{{pairs}}}"


@lru_cache(maxsize=1024)
def header(metric: Metric, form: Format) -> str:
    """Render the lines above the samples of a metric."""
    name, kind, unit = metric.name, metric.kind, metric.unit
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    if form is Format.TEXT:
        return f"# HELP {name} {text}\n# TYPE {name} {'gauge' if kind == 'info' else kind}\n"
    # In OpenMetrics, the family's name lacks the suffix that its kind implies, and quotes are escaped.
    name = name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, ""))
    text = text.replace('"', r"\"")
    unit_line = f"# UNIT {name} {unit}\n" if unit else ""
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n{unit_line}"
