from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.grafana.answers import answers
from tests.grafana.display import GRAFANAS, Seen, see

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture(scope="session", params=GRAFANAS)
def grafana(request: pytest.FixtureRequest) -> str:
    """The Grafana whose code is run."""
    return str(request.param)


@pytest.fixture(scope="session")
def seen(grafana: str) -> Mapping[str, Seen]:
    """The contents of every panel at every moment."""
    return see(grafana, answers())
