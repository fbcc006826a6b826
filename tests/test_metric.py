from __future__ import annotations

import pytest

from chutes_exporter.metric import Metrics

METRICS = Metrics("GET /things/", ("a", "b"))


def test_a_metric_has_the_source_and_the_labels_of_its_module_unless_it_declares_others() -> None:
    plain = METRICS.declare("chutes_thing", "Help.", "field")
    other = METRICS.declare("chutes_other", "Help.", labels=(), source="elsewhere")
    assert [(metric.source, metric.labels) for metric in METRICS] == [
        ("GET /things/: field", ("a", "b")),
        ("elsewhere", ()),
    ]
    assert list(METRICS) == [plain, other]


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
