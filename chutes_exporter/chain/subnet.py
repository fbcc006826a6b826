"""The subnet in a block: what the chain's storage says, in which order seats are lost, and what
they are paid.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from typing import Annotated, Any, Final, get_type_hints

from bittensor_core import decode_ss58, encode_ss58

from chutes_exporter.api.errors import UndecodableError

# The number of the subnet, 64, as an argument of keys, and the same behind its hash.
_NETUID: Final = "4000"
_HASHED_NETUID: Final = f"62cf9476b03dd865{_NETUID}"
# The hashes of names are constants, and a test computes them.
_SYSTEM: Final = "26aa394eea5630e07c48ae0c9558cef7"
_TIMESTAMP: Final = "f0c365c3cf59d671eb72da0e7a4113c4"
_SUBTENSOR: Final = "658faa385070e074c85bf6b568cf0555"
_ACCOUNT: Final = 32
_BLOCKS_PER_DAY: Final = 7200
_SECONDS_PER_BLOCK: Final = 12


@dataclass(frozen=True)
class Item:
    """An item of the storage: a number of ``size`` bytes, an account (by its address), or a list of
    them.

    It has a value of the whole subnet, or one of each seat or account. Without a value, the chain
    means the default. An item without a default always has a value. The argument is the end of the
    key.
    """

    name: str
    name_hash: str
    size: int
    default: Any = None
    argument: str = _NETUID
    is_list: bool = False
    pallet: str = _SUBTENSOR

    @property
    def key(self) -> str:
        """The key of the value."""
        return f"0x{self.pallet}{self.name_hash}{self.argument}"

    def value(self, text: str | None) -> Any:
        """Return the value that a node answers with in hexadecimal digits, or raise
        UndecodableError.

        None is the default, and is refused without one.
        """
        if text is None and self.default is not None:
            return self.default
        try:
            data = bytes.fromhex((text or "").removeprefix("0x"))
        except ValueError as error:
            raise UndecodableError(f"{self.name}: {error}") from None
        start, count = 0, 1
        if self.is_list:
            # It begins with its length in 1, 2 or 4 bytes, as its lowest two bits tell. No seats
            # need the longer form: with 0 bytes expected, it is refused below.
            start = (1, 2, 4, 0)[int.from_bytes(data[:1]) & 3]
            count = int.from_bytes(data[:start], "little") >> 2
        expected = start + count * self.size
        if len(data) != expected:
            raise UndecodableError(
                f"{self.name}: it has {len(data) or 'no'} bytes instead of {expected}"
            )
        places = range(start, len(data), self.size)
        values = tuple(self._decoded(data[at : at + self.size]) for at in places)
        return values if self.is_list else values[0]

    def _decoded(self, data: bytes) -> str | int:
        if self.size == _ACCOUNT:
            return encode_ss58(data)
        return int.from_bytes(data, "little")

    def of_uid(self, uid: int) -> Item:
        """Return the item of a seat."""
        return replace(self, argument=_NETUID + uid.to_bytes(2, "little").hex())

    def of_account(self, address: str) -> Item:
        """Return the item of an account."""
        account = decode_ss58(address)
        return replace(
            self, argument=hashlib.blake2b(account, digest_size=16).hexdigest() + account.hex()
        )


@dataclass(frozen=True)
class State:
    """What the storage says about the whole subnet.

    Amounts are in rao, of which a TAO or an alpha has 1e9.
    """

    block: Annotated[
        int, Item("Number", "02a5c1b19ab7a04f536c519aca4983ac", 4, None, "", pallet=_SYSTEM)
    ]
    milliseconds: Annotated[
        int, Item("Now", "9f1f0515f462cdcf84e0f1d6045dfcbb", 8, None, "", pallet=_TIMESTAMP)
    ]
    seats: Annotated[int, Item("SubnetworkN", "a1048e9d244171852dfe8db314dc68ca", 2)]
    max_seats: Annotated[int, Item("MaxAllowedUids", "fabe6b131d9fa6e6d6cacbe7586c3b8a", 2)]
    immunity_period: Annotated[int, Item("ImmunityPeriod", "b6522cfe03433e9e101a258ee2f580ab", 2)]
    min_not_immune: Annotated[
        int, Item("MinNonImmuneUids", "a05969c978d170e66c89fd3ef91c2bb9", 2, 10)
    ]
    max_safe: Annotated[int, Item("ImmuneOwnerUidsLimit", "d2f25f568a6f876b2e3f13784dcd778a", 2, 1)]
    owner: Annotated[str, Item("SubnetOwner", "36e3e82152c8758267395fe524fbbd16", _ACCOUNT)]
    owner_hotkey: Annotated[
        str, Item("SubnetOwnerHotkey", "68b7553499633fe05caf4d8a51aefe5c", _ACCOUNT, "")
    ]
    emission: Annotated[
        tuple[int, ...], Item("Emission", "93916af563e2313a574d6cd48caec1a5", 8, is_list=True)
    ]
    incentive: Annotated[
        tuple[int, ...], Item("Incentive", "89c69c2c416b8105d37501394f4de849", 2, (), is_list=True)
    ]
    last_paid_epoch: Annotated[
        int, Item("LastMechansimStepBlock", "90a5927434316ff88c68f65cd390bb70", 8, 0)
    ]
    pending_miners: Annotated[
        int, Item("PendingServerEmission", "7f31afa3e070ac1d98b1546887927609", 8, 0)
    ]
    emission_per_block: Annotated[
        int, Item("SubnetAlphaOutEmission", "25257fbc5458419b7bc7e8c44c521521", 8, 0)
    ]
    registration_cost: Annotated[int, Item("Burn", "01be1755d08418802946bca51b686325", 8)]
    min_cost: Annotated[int, Item("MinBurn", "b5ebf5d60c129a116973e38cd593e6e6", 8, 500_000)]
    max_cost: Annotated[int, Item("MaxBurn", "113e5f8ae432b71a8c1ac60fd9d6ff2e", 8, 10**11)]
    registration_open: Annotated[
        int, Item("NetworkRegistrationAllowed", "d5fe74da02c7b4bbb340fb368eee3e77", 1, 1)
    ]
    consensus: Annotated[
        int, Item("SubnetEpochConsensus", "12a2afa59d7389e40b256460d9b1fdcd", 1, 0)
    ]
    mechanisms: Annotated[
        int, Item("MechanismCountCurrent", "604fb97037feb8522bf37d42d54fa6e9", 1, 1, _HASHED_NETUID)
    ]

    @property
    def time(self) -> float:
        """The Unix time of the block."""
        return self.milliseconds / 1000

    @property
    def free_seats(self) -> int:
        """The seats that registrations take before they replace others."""
        return max(0, self.max_seats - self.seats)

    def miners_per_block(self, last: float | None) -> float | None:
        """Return what miners are paid for a block on average since the last epoch, None if it is
        unknown.

        Args:
            last: The value of an earlier block. It is the result in the block of an epoch itself,
                because nothing has gathered since.
        """
        follows_other_rules = self.mechanisms != 1 or self.consensus or not self.incentive
        if follows_other_rules or not self.last_paid_epoch:
            return None
        blocks = self.block - self.last_paid_epoch
        if not blocks:
            return last
        if not self.pending_miners:
            return None
        return self.pending_miners / blocks

    def check(self) -> None:
        """Raise UndecodableError if a value cannot be meant as this version understands it."""
        for name, values in (("Emission", self.emission), ("Incentive", self.incentive)):
            if len(values) > self.seats:
                raise UndecodableError(f"{name}: it has more values than the {self.seats} seats")
        if self.registration_open > 1:
            raise UndecodableError("NetworkRegistrationAllowed: it is neither true nor false")
        if not self.min_cost <= self.registration_cost <= self.max_cost:
            raise UndecodableError("Burn: it is not between its least and its greatest value")


ITEMS: Final = {
    name: kind.__metadata__[0] for name, kind in get_type_hints(State, include_extras=True).items()
}
"""The items of :class:`State`, by its attributes."""
HOTKEY: Final = Item("Keys", "9f99a2ce711f3a31b2fc05604c93f179", _ACCOUNT)
REGISTERED: Final = Item("BlockAtRegistration", "5306000b65aa58c97bf98ad9f8619049", 8, 0)
OWNED_HOTKEYS: Final = Item(
    "OwnedHotkeys", "882f0d11afa27a40918e90f095800125", _ACCOUNT, (), is_list=True
)
PRICE: Final = Item("current_alpha_price", "", 8)
"""What a function of the runtime returns."""


@dataclass(frozen=True)
class Seat:
    """A seat in a block.

    Attributes:
        registered: The block of its registration.
        emission: What the last epoch gave it.
        is_owned: Whether it is the subnet owner's, whose pay for mining is withheld.
        alpha_per_day: What it is paid for mining in a day at the present pace, None if that is
            unknown.
        registrations_before_loss: None if no registration can take it now.
    """

    state: State
    hotkey: str
    registered: int
    emission: int
    is_owned: bool
    alpha_per_day: float | None = None
    registrations_before_loss: int | None = None

    @property
    def immune_until(self) -> float | None:
        """The Unix time of the first block without immunity, None if it is not immune in the next
        block.
        """
        blocks = self.registered + self.state.immunity_period - self.state.block
        if blocks <= 1:
            return None
        return self.state.time + blocks * _SECONDS_PER_BLOCK


@dataclass(frozen=True)
class Subnet:
    """The subnet in a block.

    Attributes:
        hotkeys: The hotkeys by UID.
        registered: The blocks of registrations by UID.
        owned: The hotkeys of the owner.
        price: The price of an alpha, None if it is unknown.
        miners_per_block: What miners are paid for a block, None if it is unknown.
    """

    state: State
    hotkeys: list[str]
    registered: list[int]
    owned: list[str]
    spec_version: int
    price: int | None
    miners_per_block: float | None

    @cached_property
    def seats(self) -> list[Seat]:
        """The seats by UID."""
        state, owned = self.state, {*self.owned, self.state.owner_hotkey}
        # A new seat can be younger than the last epoch. Then these lists have no value for it.
        amounts = zip_longest(state.emission, state.incentive, self.registered, fillvalue=0)
        seats = []
        for hotkey, (emission, incentive, registered) in zip(self.hotkeys, amounts, strict=True):
            is_owned = hotkey in owned
            pay = self._pay_per_day(0 if is_owned else incentive)
            seats.append(Seat(state, hotkey, registered, emission, is_owned, pay))
        before = registrations_before_loss(state, seats)
        return [replace(seat, registrations_before_loss=before.get(seat.hotkey)) for seat in seats]

    def _pay_per_day(self, incentive: int) -> float | None:
        """Return the pay for a part of the incentive of all seats, None if it is unknown."""
        if self.miners_per_block is None:
            return None
        share = incentive / (sum(self.state.incentive) or 1)
        return share * self.miners_per_block * _BLOCKS_PER_DAY

    @property
    def alpha_per_day(self) -> float | None:
        """The pay of all miners, None if it is unknown."""
        pay = [seat.alpha_per_day for seat in self.seats if seat.alpha_per_day is not None]
        return math.fsum(pay) if pay else None

    @property
    def miners_emission_ratio(self) -> float | None:
        """The part of the subnet's emission that is for miners, None if it is unknown."""
        if self.miners_per_block is None or not self.state.emission_per_block:
            return None
        return self.miners_per_block / self.state.emission_per_block

    @property
    def registrations(self) -> dict[str, int]:
        """Seats that were registered in a window. A seat that was registered twice counts once."""
        since = self.state.block - _BLOCKS_PER_DAY
        return {"1d": sum(block > since for block in self.registered)}


def registrations_before_loss(state: State, seats: list[Seat]) -> dict[str, int]:
    """Return by hotkey how many registrations in the next block come before the one that takes the
    seat.

    Seats that no registration can take are missing.
    """
    if not state.registration_open:
        return {}
    lost = _order_of_loss(state, seats)
    return {seat.hotkey: state.free_seats + place for place, seat in enumerate(lost)}


def _order_of_loss(state: State, seats: list[Seat]) -> list[Seat]:
    """Return the seats that registrations can take, the next one first.

    The chain replaces the seat with the least emission, then the older registration, then the lower
    UID.
    """
    safe = _safe_hotkeys(state, seats)
    ranked = sorted(seats, key=lambda seat: (seat.emission, seat.registered))
    ranked = [seat for seat in ranked if seat.hotkey not in safe]
    immune = [seat for seat in ranked if seat.immune_until is not None]
    others = [seat for seat in ranked if seat.immune_until is None]
    if state.immunity_period:
        # Some seats without immunity always remain. Then immune ones are lost.
        lost = others[: max(0, len(others) - state.min_not_immune)]
        return _lost_among_newcomers(state, lost, immune)
    # Newcomers are not immune either, and take the seats of each other.
    if len(others) + state.free_seats <= state.min_not_immune:
        return []
    return _lost_among_newcomers(state, [], others)


def _safe_hotkeys(state: State, seats: list[Seat]) -> set[str]:
    """Return the owner's hotkey and the owner's oldest seats, which are never replaced."""
    owned = [seat for seat in seats if seat.is_owned]
    owned.sort(key=lambda seat: (seat.hotkey != state.owner_hotkey, seat.registered))
    return {seat.hotkey for seat in owned[: state.max_safe]}


def _lost_among_newcomers(state: State, before: list[Seat], seats: list[Seat]) -> list[Seat]:
    """Return lost seats, and then those that newcomers do not replace each other before.

    A newcomer has no emission, so it goes before a seat that has some.
    """
    lost = [*before]
    for seat in seats:
        newcomers_exist = state.free_seats or lost
        if not seat.emission or not newcomers_exist:
            lost.append(seat)
    return lost
