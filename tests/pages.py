"""Pages of metrics as tests read them: values by series."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


Labels = frozenset[tuple[str, str]]
Page = dict[tuple[str, Labels], float]


def series(name: str, /, **labels: str) -> tuple[str, Labels]:
    """Return the identity of a series."""
    return name, frozenset((label, value) for label, value in labels.items() if value)


def labels_without_name(metric: Mapping[str, str]) -> Labels:
    """Return the labels of a series in an answer of Prometheus."""
    labels = {label: value for label, value in metric.items() if label != "__name__"}
    return series("", **labels)[1]


def by_labels(samples: Iterable[tuple[Labels, float]]) -> dict[Labels, float]:
    """Return values by their labels. Two series that differ in their name only fail."""
    values: dict[Labels, float] = {}
    for labels, value in samples:
        assert labels not in values, f"two series have the labels {sorted(labels)}"
        values[labels] = value
    return values


_LABEL = r'([a-zA-Z_]\w*)="((?:[^"\\]|\\[\\"n])*)"'
_SERIES = re.compile(rf"([a-zA-Z_:][\w:]*)(?:\{{({_LABEL}(?:,{_LABEL})*)\}})?", re.ASCII)


@functools.lru_cache(100_000)
def identity(written: str) -> tuple[str, Labels]:
    """Return the identity of a series that is written as on a text page."""
    match = _SERIES.fullmatch(written)
    assert match is not None, written
    labels = {}
    for label, text in re.findall(_LABEL, match[2] or ""):
        labels[label] = re.sub(r"\\(.)", _unescaped, text)
    return series(match[1], **labels)


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def parse_page(text: str) -> Page:
    """Read a text page; a series that stands twice fails.

    The reference parser takes eight times as long.
    """
    page: Page = {}
    for line in text.split("\n"):
        if line and line[0] != "#":
            written, _, value = line.rpartition(" ")
            key = identity(written)
            assert key not in page, f"{key} stands twice"
            page[key] = float(value)
    return page


def names(page: Page) -> set[str]:
    """Return the names of a page's samples."""
    return {name for name, _ in page}


def count_openmetrics(text: str) -> int:
    """Return how many samples the reference parser finds in an OpenMetrics page."""
    families = parse_openmetrics(text)  # type: ignore[no-untyped-call]
    return sum(len(family.samples) for family in families)


def data_of(page: Page) -> Page:
    """Return the samples of a page about the API's data, without the exporter's own metrics."""
    own = (
        "process_",
        "python_",
        "chutes_api_",
        "chutes_feed_",
        "chutes_scrape_",
        "chutes_exporter_",
    )
    samples = {}
    for key, value in page.items():
        name, _ = key
        # Which miners are watched is a setting of the exporter.
        if not name.startswith(own) and name != "chutes_miner_watched":
            samples[key] = value
    return samples


def successes(page: Page) -> dict[str, float]:
    """Return the success of each collector by name."""
    return {
        dict(labels)["collector"]: value
        for (name, labels), value in page.items()
        if name == "chutes_scrape_collector_success"
    }
