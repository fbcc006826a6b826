from __future__ import annotations

import pytest

from chutes_exporter.metric import Metric, Metrics

METRICS = Metrics()
GAUGE = METRICS.gauge("chutes_thing_seconds", "Help.", ("a", "b"), "test")
COUNTER = METRICS.counter("chutes_events_total", "Events.", (), "test")
HISTOGRAM = METRICS.histogram("chutes_waits_seconds", "Waits.", (), "test")
INFO = METRICS.info("chutes_thing_info", "Text.", ("text",), "test", changes="once")


def test_declaring_a_metric_adds_it() -> None:
    assert list(METRICS) == [GAUGE, COUNTER, HISTOGRAM, INFO]
    assert [metric.kind for metric in METRICS] == ["gauge", "counter", "histogram", "info"]
    assert [metric.changes for metric in METRICS] == ["", "", "", "once"]


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        (GAUGE, "seconds"),
        (COUNTER, ""),
        (Metric("chutes_waited_seconds_total", "Help.", kind="counter"), "seconds"),
        (Metric("chutes_waited_seconds_total", "Help."), ""),
        (Metric("chutes_seconds_each", "Help."), ""),
    ],
)
def test_the_unit_is_the_last_word_of_a_name(metric: Metric, unit: str) -> None:
    assert metric.unit == unit
