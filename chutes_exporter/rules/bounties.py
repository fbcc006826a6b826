"""Rules about the bounties of chutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    from chutes_exporter.api.records import Bounty


def bounty_boost(bounty: Bounty) -> float | None:
    """Return the factor by which a bounty raises the multiplier of the instance that is activated
    first.

    It grows in a straight line from 1.1 for a new bounty to 1.5 for one of 3 hours.
    """
    age = bounty.seconds_elapsed
    if age is None:
        return None
    return 1.1 + min(max(age / (3 * HOUR), 0.0), 1.0) * (1.5 - 1.1)


def bounty_expires_at(bounty: Bounty) -> float | None:
    """Return when a bounty expires, None where the service does not know. Correct to 2 seconds."""
    created, age, left = bounty.created_at, bounty.seconds_elapsed, bounty.time_remaining
    if created is None or age is None or not left:
        return None
    return created + age + left
