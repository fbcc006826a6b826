from __future__ import annotations

from dataclasses import replace

from chutes_exporter.api.keys import address_of
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.config import make_settings
from chutes_exporter.page.plan import enabled
from tests.support import (
    HOTKEY,
    find_collector,
    watching,
)


def test_collectors_are_on_where_they_can_work_and_where_the_user_says_so() -> None:
    everybody, one, mine = make_settings(), make_settings(hotkeys=[HOTKEY]), watching("http://x")
    assert enabled(find_collector("scores"), everybody)
    assert not enabled(find_collector("scores"), replace(everybody, collectors={"scores": False}))
    assert not enabled(find_collector("stats_per_chute"), everybody)
    assert enabled(find_collector("stats_per_chute"), replace(everybody, collectors={"stats_per_chute": True}))
    assert enabled(find_collector("stats_per_chute"), one)
    assert not enabled(find_collector("servers"), one)
    assert not enabled(find_collector("servers"), replace(one, collectors={"servers": True}))
    assert enabled(find_collector("servers"), mine)
    assert not enabled(find_collector("job_details"), mine)
    assert enabled(find_collector("job_details"), replace(mine, collectors={"job_details": True}))
    many = make_settings(hotkeys=[address_of(bytes([number] * 32)) for number in range(17)])
    assert enabled(find_collector("unique_chute_history"), one)
    assert not enabled(find_collector("unique_chute_history"), everybody)
    assert not enabled(find_collector("unique_chute_history"), many)
    assert enabled(find_collector("unique_chute_history"), replace(many, collectors={"unique_chute_history": True}))


def test_only_collectors_that_tell_of_a_miner_are_asked_about_one() -> None:
    telling = {one.name for one in COLLECTORS if any("hotkey" in metric.labels for metric in one.metrics)}
    assert telling & {"metrics", "chutes", "images"} == set()
