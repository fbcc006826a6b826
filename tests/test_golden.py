from __future__ import annotations

from chutes_exporter.page.exporter import ORDER
from chutes_exporter.page.reference import reference
from tests.golden import FILES, pages
from tests.support import RECORDINGS

DOCS = RECORDINGS.parent.parent / "docs"


async def test_the_whole_exposition_is_as_it_was_reviewed() -> None:
    """After a change that is meant, ``make golden`` writes the pages anew: look at the difference."""
    for form, text in (await pages()).items():
        assert text == FILES[form].read_text()


def test_the_metric_reference_is_made_of_the_declarations_as_they_are() -> None:
    """After a change that is meant, ``make docs`` writes it anew."""
    text = (DOCS / "metrics.md").read_text()
    assert text == reference()
    for metric in ORDER:
        assert f"| `{metric.name}` |" in text
