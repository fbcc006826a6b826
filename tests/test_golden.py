from __future__ import annotations

from tests.golden import FILES, pages


async def test_the_whole_exposition_is_as_it_was_reviewed() -> None:
    """After a change that is meant, ``make golden`` writes the pages anew: look at the
    difference.
    """
    for form, text in (await pages()).items():
        assert text == FILES[form].read_text()
