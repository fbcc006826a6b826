from __future__ import annotations

from dataclasses import replace

import pytest
from bittensor_core import encode_ss58

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.config import NodeUrl, Settings, make_settings
from chutes_exporter.feeds.feed import THE_PLATFORM
from chutes_exporter.page.plan import Plan, make_plan, off_reason
from tests.support import HOTKEY, find_collector, watching

OTHER_KEY = Hotkey.from_seed("22" * 32)


EVERYBODY = make_settings()
"""Settings without a hotkey."""
ONE = make_settings(hotkeys=[HOTKEY])
"""Settings with a hotkey, but without its key."""
MINE = watching("http://x")
"""Settings with a hotkey's key."""
MANY = make_settings(hotkeys=[encode_ss58(bytes([number] * 32)) for number in range(17)])
"""Settings with one hotkey more than collectors with a request for each are on for by default."""


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("scores", EVERYBODY, None),
        ("scores", replace(EVERYBODY, collectors={"scores": False}), "by_flag"),
        ("chain", EVERYBODY, "without_chain"),
        ("chain", replace(EVERYBODY, chain_url=NodeUrl("http://127.0.0.1:9944")), None),
        ("stats_per_chute", EVERYBODY, "without_hotkey"),
        ("stats_per_chute", replace(EVERYBODY, collectors={"stats_per_chute": True}), None),
        ("stats_per_chute", ONE, None),
        ("utilization", ONE, None),
        ("servers", replace(ONE, collectors={"servers": True}), "without_key"),
        ("servers", MINE, None),
        ("job_details", MINE, "by_default"),
        ("job_details", replace(MINE, collectors={"job_details": True}), None),
        ("unique_chute_history", EVERYBODY, "without_hotkey"),
        ("unique_chute_history", ONE, None),
        ("unique_chute_history", MANY, "by_default"),
        ("unique_chute_history", replace(MANY, collectors={"unique_chute_history": True}), None),
        ("rolling_updates", ONE, "without_key"),
        ("rolling_updates", replace(ONE, collectors={"rolling_updates": True}), None),
        ("rolling_updates", MINE, None),
    ],
)
def test_collectors_are_on_if_they_can_work_or_the_user_says_so(
    name: str, settings: Settings, reason: str | None
) -> None:
    assert off_reason(find_collector(name), settings) == reason


def hotkeys(plan: Plan, collector: str) -> list[str]:
    """Return the miners that a collector runs for, as a plan has them."""
    (entry,) = (entry for entry in plan.entries if entry.collector.name == collector)
    return list(entry.feeds)


def feeds(plan: Plan) -> list[tuple[str, str]]:
    """Return the names and hotkeys of the feeds that a plan needs."""
    return [(feed.name, feed.hotkey) for feed in plan.feeds]


def test_without_a_key_nothing_that_must_be_signed_is_asked() -> None:
    assert make_plan(ONE).feeds
    assert not [feed.name for feed in make_plan(ONE).feeds if feed.endpoint.signed]


def test_stats_per_chute_of_a_single_watched_miner_are_requested_for_that_miner_alone() -> None:
    two = make_settings(hotkeys=[HOTKEY, OTHER_KEY.address])
    assert ("stats_per_chute", HOTKEY) in feeds(make_plan(ONE))
    assert ("stats_per_chute", THE_PLATFORM) in feeds(make_plan(two))


def test_collectors_that_are_large_for_others_export_no_neighbours() -> None:
    # This collector is large for others. Its user must want all miners, and switch it on.
    switched_on = {"stats_per_chute": True}
    for settings, choice in (
        (make_settings(hotkeys=[HOTKEY]), "watched"),
        (make_settings(hotkeys=[HOTKEY], collectors=switched_on), "watched"),
        (make_settings(hotkeys=[HOTKEY], miners="all"), "watched"),
        (make_settings(hotkeys=[HOTKEY], miners="all", collectors=switched_on), "all"),
    ):
        plan = make_plan(settings)
        choices = {entry.collector.name: entry.miners.choice for entry in plan.entries}
        assert choices["stats_per_chute"] == choice
        # Other collectors follow the settings alone.
        assert choices["scores"] == settings.miners
