from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.api.errors import UndecodableError
from chutes_exporter.collectors.maintenance import COLLECTOR
from chutes_exporter.feeds.table import MAINTENANCE
from tests.collectors.support import HOUR, NOON, Collected, answer, collected

# As PostgreSQL writes times.
WINDOW = {
    "id": "w",
    "target_measurement_version": "0.3.0",
    "upgrade_window_start": "2026-11-24 11:00:00+00:00",
    "upgrade_window_end": "2026-11-24 13:00:00.500000+00:00",
    "max_concurrent_per_miner": 2,
}
OLD = {"server_id": "old", "name": "a", "version": "0.2.9", "needs_upgrade": True, "in_maintenance": True}
NEW = {"server_id": "new", "name": "b", "version": "0.3.0", "needs_upgrade": False, "in_maintenance": False}
SLOTS = "chutes_maintenance_slots_in_use{hotkey=me}"
OPEN = "chutes_maintenance_window_open{hotkey=me}"


def run(window: dict[str, Any] | None, *servers: dict[str, Any], **more: Any) -> Collected:
    policy = {"active_window": window, "window_open": True, "current_slots": 1, "servers": list(servers)} | more
    return collected(COLLECTOR, {MAINTENANCE: policy})


def test_a_window_that_is_over_or_to_come_is_not_open() -> None:
    made = run(WINDOW, window_open=False).samples
    assert made[OPEN] == 0
    assert made["chutes_maintenance_window_end_timestamp_seconds{hotkey=me}"] == NOON + HOUR + 0.5


def test_a_deployment_of_may_2026_lists_only_open_windows() -> None:
    for window, is_open in ((WINDOW, 1), (None, 0)):
        made = collected(COLLECTOR, {MAINTENANCE: {"active_window": window, "current_slots": 1, "servers": []}})
        assert made.samples[OPEN] == is_open
    assert OPEN not in run(WINDOW, window_open=None).samples


@pytest.mark.parametrize("body", [{}, {"detail": "x"}, [], {"active_window": 5}, {"servers": {}}])
def test_another_answer_is_no_policy(body: Any) -> None:
    with pytest.raises(UndecodableError):
        answer(MAINTENANCE, body)
