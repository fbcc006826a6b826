from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.servers import MAINTENANCE_COLLECTOR as COLLECTOR
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.definitions import MAINTENANCE
from tests.collectors.support import collected
from tests.support import NOON

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


@pytest.mark.parametrize(
    ("window", "ends"), [(WINDOW, [NOON + HOUR + 0.5]), (None, [])], ids=["window", "none"]
)
def test_a_window_has_an_end_in_unix_time(window: dict[str, Any] | None, ends: list[float]) -> None:
    made = collected(COLLECTOR, {MAINTENANCE: {"active_window": window}})
    assert [value for key, value in made.items() if "_end_" in key] == ends


def test_slots_of_older_windows_are_not_counted_while_a_server_is_left_out() -> None:
    servers: list[dict[str, Any]] = [
        {"server_id": "a", "maintenance_status": "pending"},
        {"server_id": "b", "maintenance_status": "pending"},
    ]
    policy = {"active_window": WINDOW, "current_slots": 0, "servers": servers}
    slots = "chutes_maintenance_older_slots_in_use{hotkey=me}"
    assert collected(COLLECTOR, {MAINTENANCE: policy})[slots] == 2
    # A record with an id that is no text cannot be read.
    servers[1] = {"server_id": 5}
    assert slots not in collected(COLLECTOR, {MAINTENANCE: policy})
