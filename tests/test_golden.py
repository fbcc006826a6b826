from __future__ import annotations

from chutes_exporter.page.exposition import Format
from tests.golden import PAGE, pages, steady
from tests.support import count_openmetrics, parse_page


async def test_the_whole_exposition_is_as_it_was_reviewed() -> None:
    """After a change that is meant, ``make golden`` writes the page anew: look at the
    difference.
    """
    found = await pages()
    assert steady(found[Format.TEXT]) == PAGE.read_text()
    # The other form has the same samples.
    assert count_openmetrics(found[Format.OPENMETRICS]) == len(parse_page(found[Format.TEXT]))
