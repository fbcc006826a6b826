"""Makes docs/metrics.md from the metrics' declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.page import telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chutes_exporter.collectors import Collector
    from chutes_exporter.metric import Metric

ALL_METRICS = (
    *(metric for collector in COLLECTORS for metric in collector.metrics),
    *telemetry.OWN_METRICS,
)
"""Every metric of a page."""

_INTRODUCTION = """\
# Metrics

`make generate` generates this file from the code. Do not edit it.

A gauge rises and falls. A counter only rises while the process runs. An info metric has the value 1
and text in its labels. An unknown value has no sample. Ids identify series. Join names with
`* on(chute_id) group_left(name) chutes_chute_info`. [How a miner earns](earnings.md) explains the
rules behind scores, windows and multipliers.

**States.** A state has one series for each value that it can have, in the label `state`: 1 for the
present one, 0 for the others. A decision has the label `decision` instead. All are absent while it
is unknown. At one exporter, `sum by (state) (...)` counts the things in each state.

**Sliding windows.** What the service counts or sums over the past time is a gauge with `_window_`
in its name, and with the label `window`: `15m`, `1h`, `6h`, `1d` or `7d`. Do not use `rate()` on
it. Ratios and averages over a window have the label, but not the name, because they are no sums,
and so has `chutes_miner_unknown_losses`, which says how whole a sum is. A score share has neither:
the service has only that of a day. `chutes_maintenance_window_...` is about another kind of window.

The name, labels and meaning of a metric change only with a new major version. Metrics that are
marked as experimental may change with any version. The last column names the requests that a metric
is made of, and the field if its value is one.

A metric has a series for each thing that its labels name, such as each server.
`chutes_scrape_series` counts the series of all collectors. Collectors are listed by importance. If
they exceed `--max-series` together, the exporter keeps those that fit, in this order, and leaves
out the others.
"""


def reference() -> str:
    """Return the reference as Markdown."""
    parts = [_INTRODUCTION, _overview()]
    parts.extend(_section(collector) for collector in COLLECTORS)
    parts.append(
        "## The exporter itself\n\nThese metrics are always on the page. A feed is a question "
        "that the exporter asks "
        "the API. A collector turns the answers into metrics. The page also has the usual "
        "`process_` and `python_` "
        "metrics.\n\n" + _table(telemetry.OWN_METRICS)
    )
    return "\n".join(parts)


def _overview() -> str:
    rows = ["| collector | topic | needs a key | default |", "|---|---|---|---|"]
    rows.extend(
        f"| [`{one.name}`](#{one.name}) | {one.summary} | {'yes' if 'key' in one.needs else 'no'} "
        f"| {one.default_in_words} |"
        for one in COLLECTORS
    )
    return "\n".join(rows) + "\n"


def _section(collector: Collector) -> str:
    feeds = ", ".join(
        f"`{feed.name}` (fresh for {feed.ttl:.0f} s, dropped after {feed.max_age:.0f} s)"
        for feed in collector.feeds
    )
    summary = collector.summary[0].upper() + collector.summary[1:]
    return f"## {collector.name}\n\n{summary}. Feeds: {feeds}.\n\n{_table(collector.metrics)}"


def _table(metrics: Iterable[Metric]) -> str:
    return "\n".join(_rows(metrics)) + "\n"


def _rows(metrics: Iterable[Metric]) -> Iterator[str]:
    yield "| metric | type and labels | meaning | from |"
    yield "|---|---|---|---|"
    for metric in metrics:
        experimental = ", experimental" if metric.stability == "experimental" else ""
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        type_and_labels = f"{metric.kind}{experimental}{': ' if labels else ''}{labels}"
        cells = (f"`{metric.name}`", type_and_labels, metric.help, metric.source)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
