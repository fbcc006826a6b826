"""The maintenance in ``status`` when something is missing. tests/fleet/test_upgrades.py tests the
plan, and tests/test_golden.py has whole outputs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from chutes_exporter.duration import HOUR
from tests.commands.support import MINE, run
from tests.support import AT_22, Clock

if TYPE_CHECKING:
    from tests.replay import Replay

OPEN = AT_22 - 15.5 * HOUR
"""06:30, in the window: hugin and freya wait for their upgrade, and idun cannot come back."""


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("active_window.max_concurrent_per_miner", "free_slots"),
        ("current_slots", "free_slots"),
        ("active_window.upgrade_window_end", "ends_at"),
        ("active_window.target_measurement_version", "target_version"),
        ("window_open", "window"),
    ],
)
async def test_a_field_of_the_window_that_is_not_known_is_said(
    replay: Replay, clock: Clock, path: str, name: str
) -> None:
    clock.now = OPEN

    def forget(policy: Any) -> Any:
        *parents, field = path.split(".")
        record = policy
        for parent in parents:
            record = record[parent]
        record[field] = None
        return policy

    replay.edits["maintenance"] = forget
    _, output, _ = await run(replay, "status", "--json", variables=MINE)
    found = json.loads(output)
    assert "maintenance" in {gap["subject"] for gap in found["not_known"]}
    window = found["miners"][0]["window"]
    assert (window["late"], window[name]) == (None, None)
