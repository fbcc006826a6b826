"""Rules about a miner's score and its share of the incentive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from chutes_exporter.rules.sums import total

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chutes_exporter.api.records import MetagraphNode

_U16: Final = 65535.0
"""The chain stores incentive and consensus as whole numbers from 0 to this, which stands for 1.0.
"""


def incentive_shares(nodes: Iterable[MetagraphNode]) -> dict[str, float]:
    """Return each seat's share of the incentive, 0 to 1, by hotkey.

    The result is empty if the incentive of a seat is unknown, or if no seat has any.
    """
    incentives = {node.hotkey: node.incentive for node in nodes}
    everything = total(incentives.values())
    if everything is None or everything <= 0:
        return {}
    return {hotkey: value / everything for hotkey, value in incentives.items() if value is not None}


def is_blacklisted(node: MetagraphNode) -> bool | None:
    """Return whether a seat is blacklisted."""
    if node.blacklist_reason is UNSET:
        return None
    return bool(node.blacklist_reason)


def consensus_ratio(node: MetagraphNode) -> float | None:
    """Return a seat's consensus, 0 to 1."""
    if node.consensus is None:
        return None
    return node.consensus / _U16
