from __future__ import annotations

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.config import make_settings
from chutes_exporter.fleet.model import Window
from chutes_exporter.page.exporter import Collected
from chutes_exporter.page.gaps import find_gaps
from tests.fleet.support import make_fleet, make_server


def test_a_gpu_of_one_miner_in_an_unknown_state_leaves_the_gpus_of_another_known() -> None:
    first, second = (Hotkey.from_seed("0x" + digits * 32, source="test") for digits in ("01", "02"))
    fleets = {
        first.address: make_fleet(),
        second.address: make_fleet(known={"servers": True, "gpus": False}),
    }
    collected = Collected({}, [], {}, fleets)
    gaps, counted = find_gaps(collected, make_settings(keys=(first, second)))
    assert counted == {first.address}
    assert [(gap.feed, gap.hotkey) for gap in gaps] == [("fleet", second.address)]


def test_that_a_server_may_not_come_back_from_the_open_window_is_a_gap() -> None:
    key = Hotkey.from_seed("0x" + "01" * 32, source="test")
    found = []
    for measured, window in (
        (None, Window(is_open=True)),
        (None, Window(is_open=False)),
        ("measured", Window(is_open=True)),
        ("undecided", Window(is_open=True)),
    ):
        server = make_server("s1", needs_upgrade=True, measured=measured)
        fleets = {key.address: make_fleet(server, window=window)}
        gaps, _ = find_gaps(Collected({}, [], {}, fleets), make_settings(keys=(key,)))
        found.append([gap.reason for gap in gaps])
    reason = "the answers do not say whether tee s1 can come back from the upgrade"
    assert found == [[reason], [], [], []]
