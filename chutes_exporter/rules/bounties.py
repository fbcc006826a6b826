"""Rules about the bounties of chutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chutes_exporter.duration import HOUR

if TYPE_CHECKING:
    from chutes_exporter.api.records import Bounty


def bounty_boost(bounty: Bounty) -> float | None:
    """Return the factor by which a bounty raises the multiplier of the instance that is activated
    first, None if it is unknown.

    It grows in a straight line from 1.1 for a new bounty to 1.5 for one of 3 hours, and stays
    there.
    """
    age = bounty.seconds_elapsed
    if age is None:
        return None
    growth_ratio = min(max(age / (3 * HOUR), 0.0), 1.0)
    return 1.1 + growth_ratio * (1.5 - 1.1)


def bounty_expires_at(bounty: Bounty) -> float | None:
    """Return the Unix time at which a bounty expires, correct to 2 seconds. None if it is unknown.

    The service sends the age of the bounty, and how many seconds are left at that age. It sends 0
    seconds if it does not know how many are left.
    """
    created_at, age, left = bounty.created_at, bounty.seconds_elapsed, bounty.time_remaining
    if created_at is None or age is None or not left:
        return None
    measured_at = created_at + age
    return measured_at + left
