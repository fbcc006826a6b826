from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from chutes_exporter.simulator.instances import End
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


def test_maintenance_ends_the_instances_of_its_server_validly(world: World) -> None:
    ended = 0
    for miner in world.miners:
        lives = world.all_instances(NOON + 6 * DAY, miner.hotkey)
        for server in miner.servers:
            mine = [one for one in lives if one.gpus[0].server_id == server.server_id]
            ended += sum(one.end is End.MAINTENANCE for one in mine)
            for upgrade in () if server.upgrades is None else server.upgrades.until(NOON + 5 * DAY):
                middle = (upgrade.begins_at + upgrade.ends_at) / 2
                assert not any(one.exists(middle) for one in mine)
                for one in mine:
                    assert one.end is not End.MAINTENANCE or one.activated_at is None or one.counts(one.ended_at + 1)
    assert ended > 10
