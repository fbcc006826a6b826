"""Evaluates rules and queries for many pages at once: in one real Prometheus, each has a day of its
own, an era.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from grafana.boards import BOARDS
from tests.grafana.answers import filled_in
from tests.grafana.display import committed, panels
from tests.grafana.timeline import (
    ABOUT_ALERTS,
    ALERTS,
    RECORDINGS,
    RULES,
    Alert,
    Timeline,
    alert_samples,
    encoded,
    move_alerts,
)
from tests.support import Labels, Prometheus, labels_without_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.support import Page

MINUTE: Final = 60
HOUR: Final = 3600
LENGTH: Final = 30 * HOUR
"""Seconds of an era. No query looks back to the one before."""
TICKS: Final = tuple(-minutes * MINUTE for minutes in (120, 60, 30, 20, 10, 0))
"""When a page is scraped, in seconds before the end of its era.

A series that is gone is not seen at the next one.
"""
PAST: Final = tuple(-hours * HOUR for hours in range(24, 2, -1))
"""When the pages of the day before are scraped."""


def _queries() -> dict[tuple[str, str, str], str]:
    """Return the queries of the boards by board, panel and legend, without the board of the
    exporter, which shows the feeds themselves.
    """
    queries = {}
    for board in BOARDS:
        if board.uid == "chutes-exporter":
            continue
        for panel in panels(committed(board.uid)):
            for target in panel["targets"]:
                legend = f"{target['refId']} {target['legendFormat']}"
                queries[board.uid, panel["title"], legend] = target["expr"]
    return queries


QUERIES: Final = _queries()
"""The queries of the boards, by board, panel and legend."""
_TEXTS: Final = " ".join([*(rule["expr"] for rule in RULES), *QUERIES.values()])
_READ: Final = set(re.findall(r"\w+", _TEXTS))
"""The metrics that a rule or a board reads."""
_READ_LATER: Final = {
    name
    for name, past in re.findall(r"(\w+)(?:\{[^}]*\})?((?:\[\w+\])?(?: offset \w+)?)", _TEXTS)
    if re.search("[hd]", past)
}
"""Those that are read an hour later, or even later."""

_MILLISECONDS: Final = 1e12
"""A greater value is a time. Times on a board are in milliseconds."""
Found = dict[Labels, float]


@dataclass
class Era:
    """The end of a day, and what is found then.

    Attributes:
        page: The page in the last two hours.
        unknown: Hours before the end, from and to, without a scrape.
        recorded: The recordings at the end, by name.
        conditions: The alerts whose conditions were true, by name and severity, with their labels.
        firing: Those that fire at the end.
        shown: The results of the boards' queries at the end.
        alerts: For each rule of ``ALERTS``, its pending and firing alerts by their labels.
    """

    page: Page
    unknown: tuple[float, float] | None = None
    recorded: dict[str, Found] = field(default_factory=dict)
    conditions: set[tuple[str, str, Labels]] = field(default_factory=set)
    firing: set[tuple[str, str, Labels]] = field(default_factory=set)
    shown: dict[str, Found] = field(default_factory=dict)
    alerts: list[dict[Labels, Alert]] = field(default_factory=lambda: [{} for _ in ALERTS])

    def knows(self, tick: int) -> bool:
        """Return whether there was a scrape at a tick, which is in seconds and negative before the
        end.
        """
        if self.unknown is None:
            return True
        hours_before_end = -tick / HOUR
        first, last = self.unknown
        return not last < hours_before_end <= first

    def note(self, rule: Mapping[str, Any], true_for: Iterable[Labels]) -> None:
        """Note for which labels the condition of an alert is true."""
        alert, severity = rule["alert"], rule["labels"]["severity"]
        self.conditions |= {(alert, severity, labels) for labels in true_for}

    def fire(self, rule: Mapping[str, Any], firing: Iterable[Labels]) -> None:
        """Note for which labels an alert fires now."""
        alert, severity = rule["alert"], rule["labels"]["severity"]
        others = {one for one in self.firing if one[:2] != (alert, severity)}
        self.firing = others | {(alert, severity, labels) for labels in firing}


class Eras:
    """Eras one after the other.

    Args:
        eras: By name. Those with unknown hours come first, then the one from which nothing is taken
            away.
        past: The pages of the first and of the second half of the day before.
        end: The end of the first era.
        hotkeys: The miners that are chosen on boards.
    """

    CONFIGURATION: ClassVar = {"storage": {"tsdb": {"out_of_order_time_window": "1000d"}}}
    FLAGS: ClassVar = (
        "--storage.tsdb.min-block-duration=1000d",
        "--storage.tsdb.max-block-duration=1000d",
    )
    """Prometheus keeps all in its head."""

    def __init__(
        self,
        prometheus: Prometheus,
        eras: Mapping[str, Era],
        past: Sequence[Page],
        end: float,
        hotkeys: list[str],
    ) -> None:
        self._prometheus, self._timeline = prometheus, Timeline(f"{prometheus.url}/api/v1/write")
        self._eras, self._end, self._hotkeys = [*eras.values()], end, hotkeys
        self._whole = [*eras].index("whole")
        self._write_pages(past)

    def evaluate(self) -> None:
        """Evaluate all rules, and in the end the queries of the boards."""
        recordings = [rule for rule in RECORDINGS if rule not in ABOUT_ALERTS]
        for rule in recordings:
            self._record_past(rule["record"], rule["expr"])
        for tick in TICKS:
            for rule in recordings:
                self._record(rule["record"], rule["expr"], tick)
            self._alert(tick)
            for rule in ABOUT_ALERTS:
                self._record(rule["record"], rule["expr"], tick)
        for expression in set(QUERIES.values()):
            self._show(expression)
        self._timeline.close()

    def _show(self, expression: str) -> None:
        """Evaluate a query of a board at the end of each era."""
        # Each end is asked as by an instant query, which is always "at the end". In the range query
        # over all eras, these words would mean the end of the last era.
        query = filled_in(expression, self._hotkeys).replace(" @ end()", "")
        for number, result in enumerate(self._query(query, 0)):
            shown: Found = {}
            for labels, value in result.items():
                is_time = value > _MILLISECONDS
                # A time is shown as it would be in the first era.
                shown[labels] = value - 1000 * number * LENGTH if is_time else value
            self._eras[number].shown[expression] = shown

    def _at(self, number: int, tick: float) -> float:
        """Return the Unix time of a tick in the era of a number."""
        return self._end + number * LENGTH + tick

    def _write(self, samples: Mapping[bytes, Iterable[tuple[float, float]]]) -> None:
        """Write the times and values of series."""
        if not samples:
            return
        encoded_values = {}
        for identity, values in samples.items():
            encoded_values[identity] = [(at, struct.pack("<d", value)) for at, value in values]
        self._timeline.send(encoded_values)

    def _write_pages(self, past: Sequence[Page]) -> None:
        """Write the scrapes of all eras: two pages for the day before, then their own.

        The eras after the whole one only get the past of metrics that are read an hour later or
        more.
        """
        first, second = past
        first_half = [tick for tick in PAST if tick < -12 * HOUR]
        second_half = [tick for tick in PAST if tick >= -12 * HOUR]
        samples: dict[tuple[str, Labels], list[tuple[float, float]]] = defaultdict(list)
        for number, era in enumerate(self._eras):
            names = _READ if number <= self._whole else _READ_LATER
            self._add_scrapes(samples, number, first_half, first, names)
            self._add_scrapes(samples, number, second_half, second, names)
            self._add_scrapes(samples, number, TICKS, era.page, _READ)
        target = {"job": "chutes", "instance": "exporter:9109"}.items()
        encoded_samples = {}
        for (name, labels), values in samples.items():
            encoded_samples[encoded(name, [*labels, *target])] = values
        self._write(encoded_samples)

    def _add_scrapes(
        self,
        samples: dict[tuple[str, Labels], list[tuple[float, float]]],
        number: int,
        ticks: Sequence[int],
        page: Page,
        names: set[str],
    ) -> None:
        """Add the samples of some metrics of a page, for each time at which an era had a scrape.

        Args:
            samples: The times and values of each series, to which these are added.
            number: The era.
            ticks: When the page was scraped, unless the era does not know that time.
            page: The page.
            names: The metrics.
        """
        era = self._eras[number]
        times = [self._at(number, tick) for tick in ticks if era.knows(tick)]
        samples["up", frozenset()] += [(at, 1) for at in times]
        for key, value in page.items():
            if key[0] not in names:
                continue
            # A page tells its times as of the end of the first era.
            if key[0].endswith("_timestamp_seconds"):
                samples[key] += [(at, value + at - self._end) for at in times]
            else:
                samples[key] += [(at, value) for at in times]

    def _query(self, expression: str, tick: float) -> list[Found]:
        """Return the result of a query in each era, at some seconds before its end."""
        results: list[Found] = [{} for _ in self._eras]
        last = len(self._eras) - 1
        # A range query with a step of one era, which has one time in each of them.
        for labels, values in self._range(expression, 0, last, tick, LENGTH).items():
            for at, value in values.items():
                number = round((at - self._at(0, tick)) / LENGTH)
                results[number][labels] = value
        return results

    def _range(
        self, expression: str, first: int, last: int, tick: float, step: float
    ) -> dict[Labels, dict[float, float]]:
        """Return the values of each series in a range query, by their Unix times.

        The query is from a tick of the era ``first`` to that of ``last``, which are numbers of
        eras. ``step`` are the seconds from one time to the next.
        """
        answer = self._prometheus.api(
            "query_range",
            query=expression,
            start=self._at(first, tick),
            end=self._at(last, tick),
            step=step,
        )
        assert answer["status"] == "success", answer
        values_of_series = {}
        for row in answer["data"]["result"]:
            values = {at: float(value) for at, value in row["values"]}
            values_of_series[labels_without_name(row["metric"])] = values
        return values_of_series

    def _record_past(self, name: str, expression: str) -> None:
        """Evaluate a recording in the past of the eras up to the whole one.

        The eras after the whole one have the same past, so they get a copy of its values.
        """
        samples: dict[bytes, list[tuple[float, float]]] = defaultdict(list)
        start = self._at(0, PAST[0])
        for labels, values in self._range(expression, 0, self._whole + 1, PAST[0], HOUR).items():
            times_and_values = []
            for at, value in values.items():
                number, seconds = divmod(round(at - start), LENGTH)
                tick = PAST[0] + seconds
                if tick not in PAST:
                    continue
                # All later eras have the same past as the whole one.
                end = len(self._eras) if number == self._whole else number + 1
                times_and_values += [(self._at(era, tick), value) for era in range(number, end)]
            samples[encoded(name, labels)] += sorted(times_and_values)
        self._write(samples)

    def _record(self, name: str, expression: str, tick: int) -> None:
        """Evaluate a recording at a tick of each era."""
        samples: dict[bytes, list[tuple[float, float]]] = defaultdict(list)
        for number, result in enumerate(self._query(expression, tick)):
            self._eras[number].recorded[name] = result
            for labels, value in result.items():
                samples[encoded(name, labels)].append((self._at(number, tick), value))
        self._write(samples)

    def _alert(self, tick: int) -> None:
        """Evaluate all alerts at a tick of each era."""
        samples: dict[bytes, list[tuple[float, float]]] = defaultdict(list)
        for index, rule in enumerate(ALERTS):
            for number, result in enumerate(self._query(rule["expr"], tick)):
                at, era = self._at(number, tick), self._eras[number]
                alerts = era.alerts[index]
                era.note(rule, result)
                move_alerts(rule, alerts, result.keys(), at)
                for identity, value in alert_samples(rule, alerts).items():
                    samples[identity].append((at, value))
                era.fire(rule, [labels for labels, alert in alerts.items() if alert.fires])
        self._write(samples)
