from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.config import make_settings
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.cache import FeedState
from chutes_exporter.feeds.definitions import SCORES
from chutes_exporter.fleet.answers import Window
from chutes_exporter.page.gaps import BUG, NotKnown, find_gaps
from tests.fleet.support import make_fleet, make_server

if TYPE_CHECKING:
    from chutes_exporter.rules.maintenance import Measured


def test_what_is_missing_is_a_gap_and_of_one_miner_it_leaves_another_known() -> None:
    first = Hotkey.from_seed("0x" + "01" * 32, source="test")
    second = Hotkey.from_seed("0x" + "02" * 32, source="test")
    fleets = {
        first.address: make_fleet(),
        second.address: make_fleet(hotkey=second.address, known={"servers": True, "gpus": False}),
    }
    # An answer did not come in time, and a collector has a bug.
    states = {SCORES: FeedState(SCORES)}
    settings = make_settings(keys=(first, second))
    gaps = find_gaps(states, [NotKnown("rank", "", *BUG)], fleets, settings, now=0.0)
    assert [(gap.subject, gap.hotkey) for gap in gaps] == [
        ("scores", ""),
        ("rank", ""),
        ("fleet", second.address),
    ]


@pytest.mark.parametrize(
    ("measured", "is_open", "reasons"),
    [
        (None, True, ["the step of tee s1: ", "whether all servers will be upgraded in time"]),
        ("undecided", True, ["the step of tee s1: "]),
        ("measured", True, []),
        # An open window may have none of these servers.
        (
            "measured",
            None,
            ["the step of tee s1: ", "whether all servers will be upgraded in time"],
        ),
    ],
)
def test_a_step_of_maintenance_that_is_not_known_is_a_gap(
    measured: Measured | None, *, is_open: bool | None, reasons: list[str]
) -> None:
    key = Hotkey.from_seed("0x" + "01" * 32, source="test")
    server = make_server("s1", needs_upgrade=True, measured=measured)
    window = Window(is_open=is_open, ends_at=8 * HOUR, slots=1, used_slots=0)
    fleets = {key.address: make_fleet(server, window=window)}
    gaps = find_gaps({}, [], fleets, make_settings(keys=(key,)), now=0.0)
    assert len(gaps) == len(reasons)
    for gap, reason in zip(gaps, reasons, strict=True):
        assert gap.subject == "maintenance"
        assert reason in gap.reason
