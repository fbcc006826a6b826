from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.collectors.instances import ROLLING_UPDATES_COLLECTOR as COLLECTOR
from chutes_exporter.duration import HOUR
from chutes_exporter.feeds.definitions import INSTANCES, ROLLING_UPDATES
from tests.collectors.support import collected
from tests.support import NOON

# Times without an offset mean UTC.
UPDATE = {
    "chute_id": "c",
    "old_version": "v1",
    "new_version": "v2",
    "started_at": "2026-11-24T11:00:00",
}
STARTED = {"chutes_rolling_update_started_timestamp_seconds{chute_id=c}": NOON - HOUR}
INSTANCE = {"instance_id": "i", "chute_id": "c", "version": "v1", "active": True, "verified": True}


def run(*updates: dict[str, Any], doubted: Any = (), **fields: Any) -> dict[str, float]:
    """Return the samples with an instance of these fields."""
    answers: dict[Any, Any] = {ROLLING_UPDATES: list(updates), INSTANCES: [INSTANCE | fields]}
    return collected(COLLECTOR, answers, doubted=doubted)


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({}, 1),
        ({"version": "v2"}, 0),
        # An instance of a still older version than the old one is outdated, too.
        ({"version": "v0"}, 1),
        ({"version": None}, None),
        ({"chute_id": "d"}, 0),
        # Without an update of its chute, the version of an instance does not matter.
        ({"chute_id": "d", "version": None}, 0),
        ({"chute_id": None}, None),
        # Only active, verified instances are replaced.
        ({"active": False}, 0),
        ({"verified": False}, 0),
        ({"active": None}, None),
        ({"verified": None}, None),
    ],
)
def test_an_instance_is_outdated_if_an_update_will_replace_it(
    fields: dict[str, Any], value: float | None
) -> None:
    outdated = {} if value is None else {"chutes_instance_outdated{hotkey=me,instance_id=i}": value}
    assert run(UPDATE, **fields) == STARTED | outdated


def test_an_update_to_an_unknown_version_decides_nothing() -> None:
    assert run({"chute_id": "c"}) == {}
