from __future__ import annotations

from chutes_exporter.collectors.instances import THRASH_COOLDOWNS_COLLECTOR as COLLECTOR
from chutes_exporter.feeds.definitions import THRASH_COOLDOWNS
from tests.collectors.support import ME, collected

EXPIRES = "chutes_thrash_cooldown_expires_timestamp_seconds"
ENDED = {
    "chute_id": "a",
    "chute_name": "acme/model",
    "deleted_at": "2026-05-01T10:00:00.5",
    "cooldown_expires_at": "2026-05-01T12:00:00.5",
}
"""An answer before May 2026, whose times have no offset."""


def test_a_cooldown_of_a_service_before_may_2026_ends_at_a_time_in_utc() -> None:
    # The end of the first one, 12:00:00.5 on May 1, is in Unix time below.
    of_b = ENDED | {"chute_id": "b", "cooldown_expires_at": None}
    assert collected(COLLECTOR, {THRASH_COOLDOWNS: [ENDED, of_b]}) == {
        f"{EXPIRES}{{hotkey={ME},chute_id=a}}": 1_777_636_800.5
    }
