"""Rules about a miner's score and its share of the incentive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chutes_exporter.api.records import MetagraphNode

_U16: Final = 65535.0
"""The chain stores incentive and consensus as whole numbers from 0 to this, which stands for 1.0.
"""


def shares_of(values: Mapping[str, float | None]) -> dict[str, float]:
    """Return the share of each value in their sum, 0 to 1.

    The result is empty if a value is unknown, or if the sum is 0 or too large for a number.
    """
    everything = total(values.values())
    if everything is None or everything <= 0:
        return {}
    return {hotkey: value / everything for hotkey, value in values.items() if value is not None}


def incentive_shares(seats: Iterable[MetagraphNode]) -> dict[str, float]:
    """Return each seat's share of the incentive by hotkey, nothing while one is unknown."""
    return shares_of({seat.hotkey: seat.incentive for seat in seats})


def is_blacklisted(seat: MetagraphNode) -> bool | None:
    """Return whether a seat is blacklisted."""
    return None if seat.blacklist_reason is UNSET else bool(seat.blacklist_reason)


def consensus_ratio(seat: MetagraphNode) -> float | None:
    """Return a seat's consensus, 0 to 1."""
    return None if seat.consensus is None else seat.consensus / _U16
