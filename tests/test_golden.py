from __future__ import annotations

from tests.golden import FILES, pages, series_of


async def test_the_whole_exposition_is_as_it_was_reviewed() -> None:
    """After a change that is meant, ``make golden`` writes the pages anew: look at the difference."""
    for form, text in (await pages()).items():
        assert series_of(text) == series_of(FILES[form].read_text())
