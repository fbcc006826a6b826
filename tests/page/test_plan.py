from __future__ import annotations

from dataclasses import replace

import pytest

from chutes_exporter.config import Settings, make_settings
from chutes_exporter.page.plan import off_reason
from tests.exporters import watching
from tests.support import HOTKEY, find_collector

EVERYBODY = make_settings()
"""Settings without a hotkey."""
ONE = make_settings(hotkeys=[HOTKEY])
"""Settings with a hotkey, but without its key."""
MINE = watching("http://x")
"""Settings with a hotkey's key."""


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("scores", EVERYBODY, None),
        ("scores", replace(EVERYBODY, collectors={"scores": False}), "by_flag"),
        ("chain", EVERYBODY, "without_chain"),
        ("chain", replace(EVERYBODY, chain_url="http://127.0.0.1:9944"), None),
        ("stats_per_chute", EVERYBODY, "without_hotkey"),
        ("stats_per_chute", ONE, None),
        ("utilization", ONE, None),
        ("servers", replace(ONE, collectors={"servers": True}), "without_key"),
        ("servers", MINE, None),
        ("job_details", MINE, "by_default"),
        ("job_details", replace(MINE, collectors={"job_details": True}), None),
        ("unique_chute_history", EVERYBODY, "without_hotkey"),
        ("unique_chute_history", ONE, None),
    ],
)
def test_collectors_are_on_if_they_can_work_or_the_user_says_so(
    name: str, settings: Settings, reason: str | None
) -> None:
    assert off_reason(find_collector(name), settings) == reason
