"""Exposition: which format a scraper wants, and writing it.

Two formats: Prometheus' text format 0.0.4 and OpenMetrics 1.0.0. A sample's line is the same in both; only what
stands above and below differs. So lines are rendered once, kept as bytes, and put together for each page.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import prometheus_client

    from chutes_exporter.collectors.samples import Metric, Samples


class Format(Enum):
    """A format and its content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


_OFFERS = (
    (Format.OPENMETRICS, "application", "openmetrics-text", "1.0.0"),
    (Format.TEXT, "text", "plain", "0.0.4"),
)


@dataclass(frozen=True, slots=True)
class Family:
    """The rendered samples of one metric.

    Attributes:
        metric: Which metric.
        lines: Its lines, each ended by a newline.
        samples: How many they are.
        openmetrics: Its lines for OpenMetrics where these differ, which is where counters have created timestamps.
    """

    metric: Metric
    lines: bytes
    samples: int
    openmetrics: bytes | None = None

    def lines_for(self, form: Format) -> bytes:
        """Return the lines in a format."""
        return self.openmetrics if form is Format.OPENMETRICS and self.openmetrics is not None else self.lines


def negotiate(accept: str) -> Format:
    """Choose the format that an Accept header likes best.

    Text is what anybody gets who does not ask for OpenMetrics by name, or asks for nothing that exists: a scraper
    that gets something can at least show it.
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
    """The lines are longer than they may be."""


def render(samples: Samples, *, max_bytes: float = math.inf) -> list[Family]:
    """Render the lines of samples, family by family.

    Raises:
        TooLongError: They have more bytes than they may.
    """
    rendered: list[Family] = []
    for metric, family in samples.families():
        pattern = _pattern(metric)
        lines = _join((pattern % (*map(_escape, labels), number(value)) for labels, value in family.items()), max_bytes)
        max_bytes -= len(lines)
        openmetrics = None
        if metric.kind == "counter":
            # OpenMetrics wants each series' own lines side by side.
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
    # Some at a time: as text they take several times the memory.
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
    # repr is the shortest text that reads back as the same number.
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)  # noqa: PLR2004


def assemble(families: Iterable[Family], own: bytes, order: Sequence[Metric], form: Format) -> list[bytes]:
    """Put a page together; returns its parts.

    Args:
        families: Rendered families; those of one metric are put into one group, as both formats demand.
        own: What stands below them, rendered.
        order: Every metric that may come, in the order in which they shall stand.
        form: The format.
    """
    groups: dict[Metric, list[bytes]] = {metric: [] for metric in order}
    for family in families:
        groups[family.metric].append(family.lines_for(form))
    parts: list[bytes] = []
    for metric, lines in groups.items():
        if lines:
            parts.append(header(metric, form).encode())
            parts.extend(lines)
    parts.append(own)
    if form is Format.OPENMETRICS:
        parts.append(b"# EOF\n")
    return parts


def header(metric: Metric, form: Format) -> str:
    """Render what stands above the samples of a metric."""
    return _header(metric.name, metric.kind, metric.help, metric.unit, form)


def series(name: str, labels: Mapping[str, str]) -> str:
    """Render the identity of a series."""
    if not labels:
        return name
    pairs = ",".join(f'{label}="{_escape(value)}"' for label, value in labels.items())
    return f"{name}{{{pairs}}}"


@lru_cache(maxsize=1024)
def _header(name: str, kind: str, text: str, unit: str, form: Format) -> str:
    """Render what stands above the samples of a metric, given the full name of its samples."""
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    if form is Format.TEXT:
        kind = "gauge" if kind == "info" else kind
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    # OpenMetrics names the family without the suffix that its kind implies, and escapes quotes too.
    name = name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, ""))
    text = text.replace('"', r"\"")
    unit_line = f"# UNIT {name} {unit}\n" if unit else ""
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n{unit_line}"


def render_own(families: Iterable[prometheus_client.Metric], form: Format, *, created: bool = False) -> bytes:
    """Render what prometheus-client counts for us; families without a sample are left out.

    Args:
        families: The families.
        form: The format.
        created: Whether OpenMetrics has the times from which counters count. Text has no such thing.
    """
    lines: list[str] = []
    for metric in families:
        if not metric.samples:
            continue
        full_name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        lines.append(_header(full_name, metric.type, metric.documentation, metric.unit, form))
        for sample in metric.samples:
            if sample.name.endswith("_created") and not (created and form is Format.OPENMETRICS):
                continue
            lines.append(f"{series(sample.name, sample.labels)} {number(float(sample.value))}\n")
    return _encode(lines)


def compress(page: Iterable[bytes]) -> bytes:
    """Compress a page. Level 1: a ninth of the time of the default, for a fifth more bytes."""
    stream = zlib.compressobj(1, wbits=31)
    return b"".join([*map(stream.compress, page), stream.flush()])
