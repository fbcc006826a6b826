"""Runs promtool: tests of rules, and questions about series that a test invents."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from tests.pages import Labels, by_labels
from tests.prometheus.rule_files import EVALUATION_ORDER, FILES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

Answer = dict[Labels, float]
"""The result of a query: a value for each set of labels. The names of metrics are left out."""
FIRING: Final = 'ALERTS{alertstate="firing",severity!="none"}'
"""The query for all alerts that fire. The Watchdog, which always does, has the severity none."""

_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_LABEL: Final = re.compile(rf"(\w+)=({_STRING})(?:, )?")
_LABELS: Final = rf"\{{((?:\w+={_STRING}(?:, )?)*)\}}"
_SAMPLE: Final = re.compile(rf"{_LABELS} ([-+\w.]+)(?:, )?")
_ALERT: Final = re.compile(rf"\d+:\s+Labels:{_LABELS}\s+Annotations:{_LABELS}(?:,\s+)?")
# What promtool got stands in the line itself, or in more lines, which have a deeper indent.
_COMPLAINT: Final = re.compile(
    rf"    (alertname|expr): (\w+|{_STRING}), time: (\w+), ?\n"
    r"        exp: ?(?:nil|\[\], )\n"
    r"        got: ?(.*(?:\n {12}.*)*)\n"
)
_CONTROL: Final = "vector(1)"
_DURATION: Final = re.compile(r"(\d+)([dhms])")
_MINUTES: Final = {"d": 24 * 60, "h": 60, "m": 1, "s": 0}


def run_promtool(**tests: Any) -> None:
    """Run tests, by default of all rules. They must succeed."""
    result = _run(tests)
    assert result.returncode == 0, result.stdout + result.stderr


def _run(tests: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    rules = {"rule_files": [*map(str, FILES)], "group_eval_order": EVALUATION_ORDER}
    return subprocess.run(
        ["promtool", "test", "rules", "/dev/stdin"],
        # Collecting garbage less often saves a third of promtool's time.
        env=os.environ | {"GOGC": "400"},
        input=json.dumps(rules | dict(tests)),
        capture_output=True,
        text=True,
        check=False,
    )


def sequence(values: Iterable[str]) -> str:
    """Write the values of a series, one for each interval, in promtool's notation. ``_`` is none.

    ``3+0x4`` is five times a 3, and ``_x4`` is no value for 4 intervals. A series that ends gets
    the marker ``stale``, as after a scrape without it.
    """
    parts: list[str] = []
    for value, repeated in groupby(values):
        count = len(list(repeated))
        if value != "_":
            parts.append(f"{value}+0x{count - 1}")
        elif parts:
            parts.append(f"stale _x{count - 1}")
        else:
            parts.append(f"_x{count}")
    return " ".join(parts)


@dataclass(frozen=True)
class Answers:
    """What Prometheus answers.

    Attributes:
        queries: The answer to each query by the minutes at which it was asked.
        alerts: The annotations of each alert that fires, by minute and by the alert's labels.
    """

    queries: dict[str, dict[int, Answer]]
    alerts: dict[int, dict[Labels, dict[str, str]]]


def ask(
    series: Iterable[Mapping[str, str]],
    queries: Mapping[str, Collection[int]],
    alerts: Mapping[str, Collection[int]],
    *,
    begin: int = 0,
    **options: Any,
) -> Answers:
    """Ask Prometheus about invented series.

    promtool prints no answers, but complains about each one that a test does not expect. So all
    tests here expect nothing, and the complaints are the answers. Without one, the answer is empty.

    A complaint that is overlooked would look like an empty answer. So promtool may say nothing
    else, and a query that always has an answer is asked last.

    Args:
        series: One value a minute, as promtool reads them.
        queries: The minutes at which each query is asked.
        alerts: The minutes at which the annotations of alerts are read, by the alerts' name.
        begin: The minute of the first value.
        options: More for :func:`run_promtool`.

    Raises:
        ValueError: promtool fails, or says something else.
    """
    queries = {**queries, _CONTROL: [begin]}
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": _expecting_nothing("expr", queries, begin),
        "alert_rule_test": _expecting_nothing("alertname", alerts, begin),
    }
    answers = _read(_run({"tests": [test], **options}).stderr, begin)
    for query, minutes in queries.items():
        for minute in minutes:
            answers.queries[query].setdefault(minute, {})
    if answers.queries.pop(_CONTROL) != {begin: {frozenset(): 1}}:
        raise ValueError("promtool did not answer")
    return answers


def _expecting_nothing(
    kind: str, asked: Mapping[str, Iterable[int]], begin: int
) -> list[dict[str, str]]:
    tests = []
    for text, minutes in asked.items():
        tests += [{kind: text, "eval_time": f"{minute - begin}m"} for minute in minutes]
    return tests


def _read(output: str, begin: int) -> Answers:
    """Read promtool's complaints. Where there is none, there is no answer yet."""
    answers = Answers(defaultdict(dict), defaultdict(dict))
    for kind, asked, time, got in _matches(_COMPLAINT, output.removeprefix("  FAILED:\n")):
        duration = _matches(_DURATION, time)
        minute = begin + sum(int(number) * _MINUTES[unit] for number, unit in duration)
        if kind == "expr":
            samples = _matches(_SAMPLE, got)
            answers.queries[json.loads(asked)][minute] = by_labels(
                (_labels(labels), float(value)) for labels, value in samples
            )
        else:
            # They stand in brackets, one below the other.
            alerts = _matches(_ALERT, got.strip("[] \n"))
            answers.alerts[minute] |= {
                _labels(labels): dict(_labels(notes)) for labels, notes in alerts
            }
    return answers


def _labels(written: str) -> Labels:
    pairs = _matches(_LABEL, written)
    return frozenset((name, json.loads(value)) for name, value in pairs if name != "__name__")


def _matches(pattern: re.Pattern[str], text: str) -> list[tuple[str, ...]]:
    """Return the groups of all matches, which must use up the text."""
    if rest := pattern.sub("", text):
        raise ValueError(f"promtool says: {rest[:10_000]}")
    return pattern.findall(text)
