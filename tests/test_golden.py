from __future__ import annotations

import pytest

from tests.golden import CASES, golden, outputs_of


@pytest.mark.parametrize("case", CASES)
async def test_the_page_and_the_commands_are_as_they_were_reviewed(case: str) -> None:
    """After a change that is meant, ``make generate`` writes them anew."""
    assert await outputs_of(CASES[case]) == golden()[case]
