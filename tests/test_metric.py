from __future__ import annotations

import pytest

from chutes_exporter.metric import Metrics


def test_a_metric_has_what_its_topic_declares_unless_it_declares_something_else() -> None:
    topic = Metrics("GET /things/", ("a", "b"), each="thing", whole=frozenset({"nodes"}))
    plain = topic.declare("chutes_thing", "Help.", "field")
    other = topic.declare("chutes_other", "Help.", labels=(), times=3)
    assert list(topic) == [plain, other]
    assert (plain.source, plain.labels, plain.times) == ("GET /things/: field", ("a", "b"), 1)
    assert (other.source, other.labels, other.times) == ("GET /things/", (), 3)
    assert plain.each == other.each == "thing"
    assert plain.whole == other.whole == {"nodes"}


@pytest.mark.parametrize(
    ("name", "kind", "unit"),
    [
        ("chutes_thing_seconds", "gauge", "seconds"),
        ("chutes_seconds_each", "gauge", ""),
        ("chutes_thing_info", "info", ""),
        ("chutes_waited_seconds_total", "counter", "seconds"),
    ],
)
def test_the_end_of_a_name_is_its_type_and_unit(name: str, kind: str, unit: str) -> None:
    metric = Metrics("test").declare(name, "Help.")
    assert (metric.kind, metric.unit) == (kind, unit)
    assert Metrics("test").declare(name, "Help.", histogram=True).kind == "histogram"
