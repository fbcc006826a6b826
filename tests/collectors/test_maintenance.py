from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.servers import MAINTENANCE_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import MAINTENANCE
from tests.collectors.support import collected

# As PostgreSQL writes times.
WINDOW = {"upgrade_window_end": "2026-11-24 13:00:00.500000+00:00"}


@pytest.mark.parametrize(
    ("policy", "is_open"),
    [
        # A window that is over or to come is not open.
        ({"active_window": WINDOW, "window_open": False}, 0),
        ({"active_window": WINDOW, "window_open": None}, None),
        # A deployment of May 2026 lists only open windows.
        ({"active_window": WINDOW}, 1),
        ({"active_window": None}, 0),
    ],
)
def test_the_service_says_whether_the_window_is_open(
    policy: dict[str, Any], is_open: float | None
) -> None:
    made = collected(COLLECTOR, {MAINTENANCE: policy})
    assert made.get("chutes_maintenance_window_open{hotkey=me}") == is_open
