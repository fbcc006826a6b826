from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import pytest

from chutes_exporter.api.records import Instance, decode_hook
from chutes_exporter.rules.instances import purged_at

NOON = "2026-11-24T12:00:00+00:00"
LATER = "2026-11-24T12:30:00+00:00"
"""Half an hour after noon."""


STARTING = {"active": False, "activated_at": None, "last_verified_at": None}
VERIFIED = {"active": False, "activated_at": None, "last_verified_at": LATER}
DISABLED = {"active": False, "activated_at": NOON, "last_verified_at": NOON}
ACTIVE = {"active": True, "activated_at": NOON, "last_verified_at": LATER}


@pytest.mark.parametrize(
    ("fields", "hours"),
    [
        # 3.5 hours after its creation, or 3 hours after its verification if that is sooner. The
        # one that was verified after half an hour reaches both at the same time.
        (STARTING | {"verified": False}, 3.5),
        (VERIFIED | {"verified": True}, 3.5),
        (STARTING | {"verified": True, "last_verified_at": NOON}, 3),
        # Without the time of its verification, or whether it is verified, it is unknown.
        (STARTING | {"verified": True}, None),
        (STARTING, None),
        # Starting or disabled.
        ({"active": False, "last_verified_at": NOON}, None),
        # A disabled one has 3 hours after its verification, and an active one has no deadline.
        (DISABLED, 3),
        (DISABLED | {"last_verified_at": None}, None),
        (ACTIVE, None),
    ],
)
def test_a_starting_and_a_disabled_instance_have_a_deadline(
    fields: dict[str, Any], hours: float | None
) -> None:
    record = {"instance_id": "i", "chute_id": "c", "created_at": NOON} | fields
    deadline = purged_at(msgspec.convert(record, Instance, dec_hook=decode_hook))
    if hours is None:
        assert deadline is None
    else:
        assert deadline == datetime.fromisoformat(NOON).timestamp() + hours * 3600
