from __future__ import annotations

from chutes_exporter.api.keys import Hotkey
from chutes_exporter.config import make_settings
from chutes_exporter.page.exporter import Collected
from chutes_exporter.page.gaps import find_gaps


def test_a_gpu_of_one_miner_in_an_unknown_state_leaves_the_gpus_of_another_known() -> None:
    first, second = (Hotkey.from_seed("0x" + digits * 32, source="test") for digits in ("01", "02"))
    of_first, of_second = (
        {"hotkey": one.address, "gpu": gpu} for one, gpu in ((first, "h200"), (second, "b200"))
    )
    samples = {
        "chutes_fleet_gpus": [(of_first, 1.0)],
        "chutes_gpu_info": [(of_first, 1.0), (of_second, 1.0)],
    }
    gaps, counted = find_gaps(Collected(samples, [], {}), make_settings(keys=(first, second)))
    assert counted == {first.address}
    assert [(gap.feed, gap.hotkey) for gap in gaps] == [("fleet", second.address)]
