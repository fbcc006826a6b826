from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.grafana.answers import answers
from tests.grafana.display import Seen, see

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture(scope="session")
def seen() -> Mapping[str, Seen]:
    """The contents of every panel at every moment."""
    return see(answers())
