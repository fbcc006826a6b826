"""Seats by the chain's rules: in which order they are lost, and what they are paid. Amounts are in rao."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from bittensor_core import encode_ss58

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from chutes_exporter.chain.storage import State

_BLOCKS_PER_DAY: Final = 7200
_SECONDS_PER_BLOCK: Final = 12
# With a larger one from the expected emission, the tempo has changed, or an epoch was skipped or forced.
_MAX_DEVIATION: Final = 0.02


@dataclass(frozen=True, slots=True)
class Seat:
    """A seat in a block: its accounts, the block of its registration, and what the last epoch gave it."""

    account: bytes
    coldkey: bytes
    registered: int
    emission: int
    incentive: int
    dividends: int

    def immunity_end(self, state: State) -> int | None:
        """Return the first block in which it is not immune, None if it will not be immune in the next block."""
        end = self.registered + state.immunity_period
        return end if end > state.block + 1 else None


class Outlook(NamedTuple):
    """What a seat can expect. The end of its immunity is in Unix time, and None without immunity.

    The registrations are None for a seat that cannot be lost now, and the pay in rao is None if it is unknown.
    """

    hotkey: str
    registrations_before_loss: int | None
    immune_until: float | None
    alpha_per_day: float | None


@dataclass(frozen=True)
class Subnet:
    """The subnet in a block: seats by UID, accounts whose pay is withheld, and the price of an alpha if it is known."""

    state: State
    seats: Sequence[Seat]
    withheld: Collection[bytes | None]
    spec_version: int
    price: int | None

    @property
    def alpha_per_day(self) -> float | None:
        """The pay of all miners in rao, None if it is unknown."""
        pay = alpha_per_day(self.state, self.seats, self.withheld)
        return math.fsum(pay.values()) if pay else None

    @property
    def registrations(self) -> dict[str, int]:
        """Seats that were registered in a window. A seat that was registered twice counts once."""
        since = self.state.block - _BLOCKS_PER_DAY
        return {"1d": sum(seat.registered > since for seat in self.seats)}

    def outlooks(self) -> Iterator[Outlook]:
        """Yield the outlook of each seat."""
        before = registrations_before_loss(self.state, self.seats)
        pay = alpha_per_day(self.state, self.seats, self.withheld)
        for seat in self.seats:
            end, account = seat.immunity_end(self.state), seat.account
            until = None if end is None else self.state.time + (end - self.state.block) * _SECONDS_PER_BLOCK
            yield Outlook(encode_ss58(account), before.get(account), until, pay.get(account))


def registrations_before_loss(state: State, seats: Sequence[Seat]) -> dict[bytes, int]:
    """Return by account how many registrations in the next block come before the one that takes the seat.

    Seats that no registration can take are missing.
    """
    if not state.registration_open:
        return {}
    safe = _owners_safe_seats(state, seats)
    # The chain replaces the seat with the least emission, then the older registration, then the lower UID.
    ranked = sorted(seats, key=lambda seat: (seat.emission, seat.registered))
    immune = [seat for seat in ranked if seat.account not in safe and seat.immunity_end(state) is not None]
    others = [seat for seat in ranked if seat.account not in safe and seat.immunity_end(state) is None]
    if state.immunity_period:
        # Some seats without immunity always remain. Then immune ones are lost.
        lost, then_lost = others[: max(0, len(others) - state.min_not_immune)], immune
    else:
        # Newcomers are not immune either, and take the seats of each other.
        can_be_lost = len(others) + state.free_seats > state.min_not_immune
        lost, then_lost = [], others if can_be_lost else []
    for seat in then_lost:
        # A newcomer has no emission, so it goes before a seat that has some.
        newcomers_exist = state.free_seats or lost
        if not seat.emission or not newcomers_exist:
            lost.append(seat)
    return {seat.account: state.free_seats + place for place, seat in enumerate(lost)}


def _owners_safe_seats(state: State, seats: Sequence[Seat]) -> set[bytes]:
    """Return the accounts whose seats are never replaced: the owner's hotkey and the owner's oldest seats."""
    owned = [seat.account for seat in sorted(seats, key=lambda seat: seat.registered) if seat.coldkey == state.owner]
    oldest = owned[: state.max_safe]
    first = [seat.account for seat in seats if seat.account == state.owner_hotkey and seat.account not in oldest]
    return {*[*first, *oldest][: state.max_safe]}


def alpha_per_day(state: State, seats: Sequence[Seat], withheld: Collection[bytes | None]) -> dict[bytes, float]:
    """Return by account what each seat is paid in rao for mining in a day, at the pace of the last epoch.

    It is empty if that is unknown. What is paid to the withheld accounts is burned or recycled, and not paid to miners.
    """
    epochs = _epochs_per_day(state)
    follows_other_rules = state.mechanisms != 1 or state.consensus
    if epochs is None or follows_other_rules or not (state.incentive and state.dividends):
        return {}
    nobody_mines = not any(state.incentive)

    def paid(seat: Seat) -> float:
        if nobody_mines or seat.account in withheld:
            return 0.0
        # The emission of a seat with dividends is also for validating.
        parts = seat.incentive + seat.dividends
        return seat.emission * seat.incentive / parts if parts else seat.emission

    return {seat.account: paid(seat) * epochs for seat in seats}


def _epochs_per_day(state: State) -> float | None:
    """Return how often in a day the last emission is paid, None if it is unknown.

    The tempo tells it, unless the tempo has changed, or an epoch was skipped or forced. Then emission continues at the
    pace at which pay has gathered since the last epoch.
    """
    emission, blocks = sum(state.emission), state.block - state.last_paid_epoch
    pending = state.pending_miners + state.pending_validators + state.pending_root
    if not (emission and pending and state.tempo) or blocks <= 0:
        return None
    expected = state.tempo * pending / blocks
    is_usual = abs(emission - expected) <= _MAX_DEVIATION * expected and state.last_epoch == state.last_paid_epoch
    return _BLOCKS_PER_DAY / state.tempo * (1 if is_usual else expected / emission)
