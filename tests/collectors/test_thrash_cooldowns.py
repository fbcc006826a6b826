from __future__ import annotations

from chutes_exporter.collectors.thrash_cooldowns import COLLECTOR
from chutes_exporter.feeds.table import THRASH_COOLDOWNS
from tests.collectors.support import HOUR, NOON, collected

# Times without an offset mean UTC.
UNTIL_NOON = {"chute_id": "c", "deleted_at": "2026-11-24T11:00:00", "cooldown_expires_at": "2026-11-24T12:00:00"}
UNTIL_ELEVEN = {"chute_id": "c", "deleted_at": "2026-11-24T10:00:00", "cooldown_expires_at": "2026-11-24T11:00:00"}
COUNT = "chutes_miner_thrash_cooldowns{hotkey=me}"
EXPIRES = "chutes_thrash_cooldown_expires_timestamp_seconds{hotkey=me,chute_id=c}"
DELETED = "chutes_thrash_cooldown_deleted_timestamp_seconds{hotkey=me,chute_id=c}"


def test_the_longest_cooldown_of_a_chute_is_shown() -> None:
    for answer in ([UNTIL_NOON, UNTIL_ELEVEN], [UNTIL_ELEVEN, UNTIL_NOON]):
        made = collected(COLLECTOR, {THRASH_COOLDOWNS: answer})
        assert made.samples == {COUNT: 2, EXPIRES: NOON, DELETED: NOON - HOUR}


def test_a_cooldown_with_an_unknown_end_may_last_longest() -> None:
    other = {"chute_id": "d", "cooldown_expires_at": "2026-11-24T12:00:00"}
    made = collected(COLLECTOR, {THRASH_COOLDOWNS: [UNTIL_NOON, {"chute_id": "c"}, other]})
    assert made.samples == {COUNT: 3, EXPIRES.replace("=c", "=d"): NOON}
