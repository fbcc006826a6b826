from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from chutes_exporter.simulator.world import DAY, HOUR
from tests.support import NOON

if TYPE_CHECKING:
    from chutes_exporter.simulator import World


def test_tee_servers_boot_with_the_target_version_after_their_maintenance(world: World) -> None:
    tee = [server for miner in world.miners for server in miner.servers if server.is_tee]
    changed = 0
    for server in tee:
        versions = [server.version_at(NOON + hours * HOUR) for hours in range(-16, 24 * 24)]
        pending = [server.maintenance_pending(NOON + hours * HOUR) for hours in range(-16, 24 * 24)]
        assert versions[0] == server.version
        for number, (before, after) in enumerate(itertools.pairwise(versions), 1):
            if before != after:
                changed += 1
                assert pending[number - 1]
                assert not pending[number]
                assert after in ("0.3.0", "0.4.0", "0.5.0")
        assert any(pending) == (len(set(versions)) > 1)
    assert changed > len(tee)
    # Some miss a window.
    assert any(server.version_at(NOON + 4 * DAY) == "0.2.9" for server in tee)


def test_a_maintenance_window_is_open_for_four_days_of_ten(world: World) -> None:
    open_at = [world.window(NOON + (hours - 15) * HOUR) for hours in range(24 * 20)]
    assert sum(window is not None for window in open_at) == 2 * 4 * 24
    assert {window.target for window in open_at if window is not None} == {"0.3.0", "0.4.0"}
    assert world.window(NOON - DAY) is None
