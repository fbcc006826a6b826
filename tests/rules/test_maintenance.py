from __future__ import annotations

from typing import Any

import pytest

from chutes_exporter.api.records import MaintenancePolicy
from chutes_exporter.rules.maintenance import (
    slots_of_older_windows,
    version_accepted,
)
from tests.rules.support import read


def policy(*statuses: str | None, **fields: Any) -> MaintenancePolicy:
    """Return the answer for servers with these statuses, with other fields."""
    servers = []
    for number, status in enumerate(statuses):
        servers.append({"server_id": f"{number}", "maintenance_status": status})
    record: MaintenancePolicy = read(
        MaintenancePolicy, active_window=None, **{"servers": servers} | fields
    )
    return record


@pytest.mark.parametrize(
    ("answer", "older"),
    [
        # Two servers hold a slot. Those of the newest window are in current_slots.
        (policy("pending", "maintenance", "none", current_slots=2), 0),
        (policy("pending", "maintenance", "none", current_slots=1), 1),
        (policy("none", current_slots=1), 0),
        # A status, the current slots or the servers are unknown.
        (policy("maintenance", None, current_slots=0), None),
        (policy("maintenance"), None),
        (policy(servers=None, current_slots=0), None),
    ],
)
def test_slots_that_do_not_count_for_the_newest_window_are_of_older_ones(
    answer: MaintenancePolicy, older: float | None
) -> None:
    assert slots_of_older_windows(answer) == older


@pytest.mark.parametrize(
    ("version", "accepted"),
    [
        ("1.10.0", True),
        # The service may refuse a lower one that is listed.
        ("1.9.0", None),
        ("1.8.0", False),
        # Release candidates are never listed, and boot for some miners.
        ("1.11.0-rc1", None),
        ("1.8.0-RC1", None),
        ("newest", False),
    ],
)
def test_only_the_highest_listed_version_boots_for_certain(
    version: str, *, accepted: bool | None
) -> None:
    assert version_accepted(version, {"1.9.0", "1.10.0"}) == accepted


def test_no_version_is_the_highest_if_one_has_another_form() -> None:
    assert version_accepted("1.10.0", {"1.10.0", "newest"}) is None
