"""The chain of a simulated world: a node that answers about finalized blocks, and registrations by
the chain's rule.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from bittensor_core import encode_ss58

from chutes_exporter.chain import subnet as s
from chutes_exporter.demo.chain import Block, scale_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_START_BLOCK: Final = 9_593_342
"""The block at the start of the world."""
_BLOCK_SECONDS: Final = 12
_TEMPO: Final = 360
_ALPHA_PER_BLOCK: Final = 410_000_000
"""The pay of all miners for a block."""
_EMISSION_PER_BLOCK: Final = 1_000_000_000
"""Of which the subnet's owner, validators and miners get their parts."""
_OWNER: Final = encode_ss58(hashlib.sha256(b"owner").digest())


class Seat(NamedTuple):
    """A seat on the subnet. Its place in a list is its UID.

    Attributes:
        registered_at: Unix time.
        incentive: The chain's number: 65535 times the miner's share, rounded down.
    """

    hotkey: str
    registered_at: float
    incentive: int


def make_block(start: float, seats: Sequence[Seat], now: float) -> Block:
    """Return the newest block at a time, of a world that began at ``start``.

    The chain stores no value that is the default. A node then answers null.
    """
    subnet = _subnet(start, seats, now)
    values = {item: getattr(subnet.state, name) for name, item in s.ITEMS.items()}
    for uid, hotkey in enumerate(subnet.hotkeys):
        values[s.HOTKEY.of_uid(uid)] = hotkey
    for uid, registration_block in enumerate(subnet.registered):
        values[s.REGISTERED.of_uid(uid)] = registration_block
    storage: dict[str, str | None] = {}
    for item, value in values.items():
        if value != item.default:
            storage[item.key] = scale_text(item, value)
    digest = hashlib.sha256(f"{start}/{subnet.state.block}".encode()).hexdigest()
    return Block(f"0x{digest}", storage, "0x35ca3b0400000000")


def next_seat(start: float, seats: Sequence[Seat], now: float) -> int:
    """Return the UID of the seat that a registration takes.

    In a simulated world, no registration is refused, so there always is such a seat.
    """
    subnet = _subnet(start, seats, now)
    return next(uid for uid, seat in enumerate(subnet.seats) if seat.registrations_before_loss == 0)


def _subnet(start: float, seats: Sequence[Seat], now: float) -> s.Subnet:
    """Return the subnet in the newest block. Miners share all emission by their incentive."""
    block = _block_at(now, start)
    # A block begins with the state after the one before it: in block 360, epoch 360 has not been
    # paid yet.
    last_epoch = (block - 1) // _TEMPO * _TEMPO
    incentive = tuple(seat.incentive for seat in seats)
    # Without any incentive, nobody is paid. Dividing by 1 gives 0 for each miner then.
    incentive_of_all = sum(incentive) or 1
    emission_of_all = _TEMPO * _ALPHA_PER_BLOCK
    values = {name: item.default for name, item in s.ITEMS.items()}
    values |= {
        "block": block,
        "milliseconds": int(1000 * (_genesis(start) + _BLOCK_SECONDS * block)),
        "seats": len(seats),
        "max_seats": len(seats),
        "immunity_period": 7200,
        # The chain's default is 10. A small world has fewer.
        "min_not_immune": min(10, len(seats) // 8),
        "owner": _OWNER,
        "emission": tuple(emission_of_all * part // incentive_of_all for part in incentive),
        "incentive": incentive,
        "last_paid_epoch": last_epoch,
        "pending_miners": _ALPHA_PER_BLOCK * (block - last_epoch),
        "emission_per_block": _EMISSION_PER_BLOCK,
        "registration_cost": 412_907_331,
    }
    state = s.State(**values)
    # The simulator needs neither the price nor the pay of a seat, so both may be unknown. The owner
    # has no seat.
    return s.Subnet(
        state=state,
        hotkeys=[seat.hotkey for seat in seats],
        registered=[_block_at(seat.registered_at, start) for seat in seats],
        owned=[],
        spec_version=475,
        price=None,
        miners_per_block=state.miners_per_block(last=None),
    )


def _genesis(start: float) -> float:
    """Return the Unix time of block 0 in a world that started at a time."""
    return start - _BLOCK_SECONDS * _START_BLOCK


def _block_at(time: float, start: float) -> int:
    """Return the number of the newest block at a time."""
    return int((time - _genesis(start)) // _BLOCK_SECONDS)
