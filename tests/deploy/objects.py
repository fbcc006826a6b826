"""Kubernetes objects, and what makes them valid."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
CUSTOM = {"ServiceMonitor", "PrometheusRule"}
"""Kinds that the Prometheus Operator defines."""


def validate(kubernetes_object: Object) -> None:
    """Compare an object with Kubernetes' own schema, if Kubernetes defines it.

    Raises:
        kubernetes_validate.ValidationError: A field is unknown, missing or of a wrong type.
    """
    if kubernetes_object["kind"] not in CUSTOM:
        import kubernetes_validate  # noqa: PLC0415 - it takes a second, in each process that collects the tests

        kubernetes_validate.validate(kubernetes_object, "1.33", strict=True)
