"""An audit report of one instance, as the API sends it."""

from __future__ import annotations

import json
from typing import Any

INSTANCE: dict[str, Any] = {
    "instance_id": "i",
    "miner_hotkey": "me",
    "created_at": "2026-11-24T10:00:00",
    **dict.fromkeys(
        ("activated_at", "deleted_at", "stop_billing_at", "billed_to", "valid_termination")
    ),
    # Free text, with all characters that have a meaning in JSON.
    "deletion_reason": 'a "quoted" text, {brace} [and] \\, {"started_at": 1}}',
    "compute_multiplier": 1.5,
}
RECORD = {
    "instance_id": "i",
    "compute_multiplier": 1.5,
    "started_at": "2026-11-24T10:00:00",
    "ended_at": None,
}


def body(instances: list[Any], records: list[Any] = [RECORD]) -> bytes:  # noqa: B006 - never changed
    """Return the body of a report."""
    return json.dumps({"instance_audit": instances, "compute_history": records}).encode()
