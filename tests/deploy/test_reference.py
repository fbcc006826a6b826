from __future__ import annotations

from deploy.reference import METRICS, reference
from tests.support import RECORDINGS

DOCS = RECORDINGS.parent.parent / "docs"


def test_the_metric_reference_is_made_of_the_declarations_as_they_are() -> None:
    """After a change that is meant, ``make docs`` writes it anew."""
    text = (DOCS / "metrics.md").read_text()
    assert text == reference()
    for metric in METRICS:
        assert f"| `{metric.name}` |" in text
