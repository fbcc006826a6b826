"""The metric reference, docs/metrics.md, made of the declarations: ``python -m chutes_exporter.page.reference``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.collectors.instances import BACKFILLED
from chutes_exporter.page import money, observed, telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chutes_exporter.collectors import Collector
    from chutes_exporter.collectors.samples import Metric

_INTRODUCTION = """\
# Metrics

Made from the declarations in the code by `make docs`; do not edit. Types: a gauge rises and falls, a counter only
rises while the process lives, an info's value is always 1 and its labels are the message. A metric whose value is not
known has no sample. Sums over sliding windows are gauges with the label `window` (`1h`, `1d`, `7d`): no `rate()` on
them. Ids identify series; names are on info metrics, to be joined with
`* on(chute_id) group_left(name) chutes_chute_info`.

**Stability**: the name, labels and meaning of a *stable* metric change only with a new major version; those of an
*experimental* one may change with any version, said in the changelog.

**Cost** is the number of series at most. Collectors are listed by importance: where all together would have more
series than `--max-series`, each is kept, in this order, that still fits, and the others are left out whole
(`chutes_scrape_collector_cut`).
[sizes.md](sizes.md) has measured pages.

[earnings.md](earnings.md) explains the rules behind scores, windows and multipliers. [fields.md](fields.md) lists the
fields that are left out, and why.
"""


def reference() -> str:
    """Return the reference as Markdown."""
    parts = [_INTRODUCTION, _overview()]
    parts.extend(_section(collector) for collector in COLLECTORS)
    parts.append(
        "## Observed events\n\nCounted by the exporter itself, from one good answer to the next, with the collectors "
        "`instances` and `nodes`. "
        "A restart starts from zero (OpenMetrics' created timestamps say when). "
        f"Cost: {len(observed.METRICS)} for each hotkey with a key.\n\n" + _table(observed.METRICS)
    )
    parts.append(
        "## Costs and prices\n\n"
        "The figures of `--gpu.cost`, `--subnet.daily-emission` and `--alpha.price`, as the user gave them. "
        "Without a flag its metric is absent. [money.md](money.md) describes what the recording rules make of them. "
        "Cost: 2, and 1 for each model with a cost.\n\n" + _table(money.METRICS, "at a restart")
    )
    parts.append(
        "## Backfilled\n\nNot on any page: `backfill --compute-history` writes it for `promtool`. "
        "Cost: at most 168 samples for each instance.\n\n" + _table(BACKFILLED, "hourly")
    )
    parts.append(
        "## The exporter itself\n\n"
        "Never left out. Feeds are the questions that the exporter asks; collectors turn their answers into metrics. "
        "Besides these there are the usual `process_` and `python_` metrics.\n\n"
        + _table([*telemetry.METRICS, *telemetry.API_METRICS])
    )
    return "\n".join(parts)


def _overview() -> str:
    rows = ["| collector | what it is about | needs a key | default | cost |", "|---|---|---|---|---|"]
    rows.extend(
        f"| [`{one.name}`](#{one.name}) | {one.summary} | {'yes' if one.needs_key else 'no'} | "
        f"{one.default_in_words} | {_cost(one)} |"
        for one in COLLECTORS
    )
    return "\n".join(rows) + "\n"


def _cost(collector: Collector) -> str:
    each = {"signer": " for each hotkey with a key", "miner": " for each watched hotkey", "platform": ""}
    return collector.cost.in_words(each[collector.scope])


def _section(collector: Collector) -> str:
    feeds = ", ".join(
        f"`{feed.name}` (fresh for {feed.ttl:.0f} s, dropped after {feed.max_age:.0f} s)" for feed in collector.feeds
    )
    return (
        f"## {collector.name}\n\n{collector.summary[0].upper()}{collector.summary[1:]}. Feeds: {feeds}. "
        f"Key: {'needed' if collector.needs_key else 'not needed'}. Default: {collector.default_in_words}. "
        f"Cost: {_cost(collector)}.\n\n{_table(collector.metrics, _changes(collector))}"
    )


def _changes(collector: Collector) -> str:
    return ", ".join(dict.fromkeys(feed.changes for feed in collector.feeds))


def _table(metrics: Iterable[Metric], changes: str = "live") -> str:
    return "\n".join(_rows(metrics, changes)) + "\n"


def _rows(metrics: Iterable[Metric], changes: str) -> Iterator[str]:
    yield "| metric | type | unit | labels | meaning | source | changes | stability |"
    yield "|---|---|---|---|---|---|---|---|"
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        cells = (
            f"`{metric.name}`",
            metric.kind,
            metric.unit,
            labels,
            metric.help,
            metric.source,
            metric.changes or changes,
            metric.stability,
        )
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.stdout.write(reference())
