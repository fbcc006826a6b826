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
    from chutes_exporter.demo.replay import Replay

OPEN = AT_22 - 15.5 * HOUR
"""06:30, in the window: hugin and freya wait for their upgrade, and idun cannot come back."""


async def maintenance(replay: Replay) -> tuple[dict[str, Any], set[str], str]:
    """Return the window, what is not known, and the screen."""
    _, output, _ = await run(replay, "status", "--json", variables=MINE)
    found = json.loads(output)
    (miner,) = found["miners"]
    unknown = {gap["subject"] for gap in found["not_known"]}
    _, screen, _ = await run(replay, "status", variables=MINE)
    return miner["window"], unknown, " ".join(screen.split())


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("active_window.max_concurrent_per_miner", "Free upgrade slots: -."),
        ("current_slots", "Free upgrade slots: -."),
        ("active_window.upgrade_window_end", "and ends -."),
        ("active_window.target_measurement_version", "Target version: -."),
        ("window_open", "Whether a maintenance window is open or announced is not known."),
    ],
)
async def test_a_field_of_the_window_that_is_not_known_is_said(
    replay: Replay, clock: Clock, path: str, words: str
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
    window, gaps, screen = await maintenance(replay)
    assert "upgrades" in gaps
    assert window["late"] is None
    assert words in screen
    assert "All will make it" not in screen
