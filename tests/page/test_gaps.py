from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.config import make_settings
from chutes_exporter.feeds.cache import FeedState
from chutes_exporter.feeds.definitions import SCORES
from chutes_exporter.fleet.model import Window
from chutes_exporter.page.exporter import Collected
from chutes_exporter.page.gaps import find_gaps
from tests.fleet.support import make_fleet, make_server

if TYPE_CHECKING:
    from chutes_exporter.rules.maintenance import Measured


def test_what_is_missing_is_a_gap_and_of_one_miner_it_leaves_another_known() -> None:
    first = Hotkey.from_seed("0x" + "01" * 32, source="test")
    second = Hotkey.from_seed("0x" + "02" * 32, source="test")
    fleets = {
        first.address: make_fleet(),
        second.address: make_fleet(known={"servers": True, "gpus": False}),
    }
    # An answer did not come in time, and a collector has a bug.
    states = {SCORES: FeedState(SCORES)}
    collected = Collected(samples={}, failed=[("rank", "")], states=states, fleets=fleets)
    gaps, counted = find_gaps(collected, make_settings(keys=(first, second)))
    assert counted == {first.address}
    assert [(gap.subject, gap.hotkey) for gap in gaps] == [
        ("scores", ""),
        ("rank", ""),
        ("fleet", second.address),
    ]


@pytest.mark.parametrize(
    ("measured", "is_open", "reasons"),
    [
        (None, True, ["the answers do not say whether tee s1 can come back from the upgrade"]),
        (None, False, []),
        ("measured", True, []),
        ("undecided", True, []),
    ],
)
def test_that_a_server_may_not_come_back_from_the_open_window_is_a_gap(
    measured: Measured | None, *, is_open: bool, reasons: list[str]
) -> None:
    # None is what the answers do not say. It matters only while the window is open.
    key = Hotkey.from_seed("0x" + "01" * 32, source="test")
    server = make_server("s1", needs_upgrade=True, measured=measured)
    fleets = {key.address: make_fleet(server, window=Window(is_open=is_open))}
    collected = Collected(samples={}, failed=[], states={}, fleets=fleets)
    gaps, _ = find_gaps(collected, make_settings(keys=(key,)))
    assert [gap.reason for gap in gaps] == reasons
