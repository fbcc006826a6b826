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
and text in its labels. An unknown value has no sample. Labels have ids. To add the name of a chute,
write `* on(chute_id) group_left(name) chutes_chute_info`. [How a miner earns](earnings.md) explains
the rules behind scores, windows and multipliers.

**States.** A state has one series for each of its possible values, in the label `state`: 1 for the
present value, 0 for the others. A decision has the label `decision` instead. All are absent while
the state is unknown. At one exporter, `sum by (state) (...)` counts the things in each state.

**Sliding windows.** A count or sum over a past time is a gauge with `_window_` in its name and the
label `window`: `15m`, `1h`, `6h`, `1d` or `7d`. Do not use `rate()` on it. Ratios, averages and
`chutes_miner_unknown_losses` have only the label. A score share has neither, because the service
has only that of a day. `chutes_maintenance_window_...` is about maintenance windows.

The name, labels and meaning of a metric change only with a new major version. Metrics that are
marked as experimental may change with any version. The last column names the requests behind a
metric, and the field of the answer if that is its value.

A metric has a series for each thing that its labels name, such as each server.
`chutes_scrape_series` counts the series of all collectors. If they exceed `--max-series` together,
the exporter keeps the collectors that fit, in the order of this list, and leaves out the others.
"""


def reference() -> str:
    """Return the reference as Markdown."""
    parts = [_INTRODUCTION, _overview()]
    parts.extend(_section(collector) for collector in COLLECTORS)
    parts.append(
        "## The exporter itself\n\nThese metrics are always on the page. A feed is an endpoint of "
        "the API whose answers are kept. A collector makes metrics of them. The page also has the "
        "usual `process_` and `python_` metrics.\n\n" + _table(telemetry.OWN_METRICS)
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
