from __future__ import annotations

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.config import make_settings
from chutes_exporter.page.exporter import Collected
from chutes_exporter.page.gaps import find_gaps
from tests.fleet.support import make_fleet


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
