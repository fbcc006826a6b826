"""The Helm chart, rendered by Helm's own library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import helm_python

if TYPE_CHECKING:
    from collections.abc import Mapping

CHART: Final = Path(__file__).parent / "helm" / "chutes-exporter"
NAMESPACE: Final = "chutes"
"""The namespace of the miners' own chart, where the Secret with the key is."""


def render(
    values: Mapping[str, Any] | None = None,
    *,
    release: str = "chutes-exporter",
    namespace: str = NAMESPACE,
) -> dict[str, str]:
    """Render the chart as ``helm template`` does.

    Args:
        values: What differs from the chart's own values.
        release: Name of the release.
        namespace: Namespace of the release.

    Returns:
        The text that each template makes, by its file name, with empty ones left out.

    Raises:
        helm_python.HelmValuesError: A value is not as values.schema.json wants it.
        helm_python.HelmRenderError: A template refuses the values.
    """
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(dict(values or {}))
        rendered = chart.render(dict(values or {}), name=release, namespace=namespace)
    return {
        Path(path).name: text.strip("\n") + "\n" for path, text in rendered.items() if text.strip()
    }
