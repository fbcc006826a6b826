from __future__ import annotations

from deploy.reference import ALL_METRICS


def test_every_metric_is_declared_once_with_all_that_the_docs_need() -> None:
    assert len({metric.name for metric in ALL_METRICS}) == len(ALL_METRICS)
    for metric in ALL_METRICS:
        assert metric.name.startswith("chutes_")
        assert metric.help.endswith(".")
        assert len(metric.help) <= 200
        assert metric.source
        # Prometheus and Kubernetes give targets these labels.
        assert not {"instance", "job", "node", "pod", "namespace", "service", "cluster"} & set(
            metric.labels
        )
        # What spans a sliding window has its label, and a sum of one also its name.
        is_no_sum = (
            metric.name.endswith(("_ratio", "_unknown_losses")) or "_average_" in metric.name
        )
        if "_maintenance_window_" not in metric.name and not is_no_sum:
            assert ("_window_" in metric.name) == ("window" in metric.labels)
