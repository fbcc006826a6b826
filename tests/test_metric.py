from __future__ import annotations

import pytest

from chutes_exporter.metric import Metrics


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
