from __future__ import annotations

import pytest

from chutes_exporter.metric import Metric
from deploy.reference import ALL_METRICS


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
    metric = Metric(name, "Help.")
    assert (metric.kind, metric.unit) == (kind, unit)
    assert Metric(name, "Help.", histogram=True).kind == "histogram"


def test_every_metric_is_declared_once_with_all_that_the_docs_need() -> None:
    assert len({metric.name for metric in ALL_METRICS}) == len(ALL_METRICS)
    for metric in ALL_METRICS:
        assert metric.name.startswith("chutes_")
        assert metric.help.endswith(".")
        assert metric.source
        # Prometheus and Kubernetes give targets these labels.
        assert not {"instance", "job", "node", "pod", "namespace", "service", "cluster"} & set(
            metric.labels
        )
        # What spans a sliding window has its label, and a sum of one also its name. A maintenance
        # window is another thing, and the number of unknown losses says how whole a sum is.
        is_no_sum = (
            metric.name.endswith(("_ratio", "_unknown_losses")) or "_average_" in metric.name
        )
        if "_maintenance_window_" not in metric.name and not is_no_sum:
            assert ("_window_" in metric.name) == ("window" in metric.labels)
