"""The subnet in a block: its storage, in which order seats are lost, and what they are paid."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Annotated, Any, Final, get_type_hints

from bittensor_core import decode_ss58, encode_ss58

from chutes_exporter.api.errors import UnavailableError, UndecodableError
from chutes_exporter.duration import MINUTE, human_duration

NETUID: Final = "4000"
"""The number of the subnet, 64: two bytes in hexadecimal digits, the lowest one first."""
_HASHED_NETUID: Final = f"62cf9476b03dd865{NETUID}"
"""The same behind its hash, which some keys need."""
# The hashes of names are constants, and a test computes them.
_SYSTEM: Final = "26aa394eea5630e07c48ae0c9558cef7"
_TIMESTAMP: Final = "f0c365c3cf59d671eb72da0e7a4113c4"
_SUBTENSOR: Final = "658faa385070e074c85bf6b568cf0555"
_ACCOUNT: Final = 32
"""The size of an account in bytes. No number has this size."""
_MAX_AGE: Final = 10 * MINUTE
"""Maximum age of the newest block in seconds. With an older one, the node is behind."""
_BLOCKS_PER_DAY: Final = 7200
_SECONDS_PER_BLOCK: Final = 12


def _number_or_address(data: bytes) -> int | str:
    if len(data) == _ACCOUNT:
        return encode_ss58(data)
    return int.from_bytes(data, "little")


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
    argument: str = NETUID
    is_list: bool = False
    pallet: str = _SUBTENSOR

    @property
    def key(self) -> str:
        """The key of the value."""
        return f"0x{self.pallet}{self.name_hash}{self.argument}"

    def value(self, text: str | None) -> Any:
        """Return the value of a node's answer in hexadecimal digits, or raise UndecodableError.

        Without a value, the node answers None, which means the default. An item without a default
        must have a value.
        """
        if text is None:
            if self.default is None:
                raise UndecodableError(f"{self.name}: it has no value")
            return self.default
        try:
            data = bytes.fromhex(text.removeprefix("0x"))
        except ValueError as error:
            raise UndecodableError(f"{self.name}: {error}") from None
        prefix_size, count = 0, 1
        if self.is_list:
            # The list begins with the count of elements, in one byte up to 63 and in two up to
            # 16,383. The lowest bit says which. The two lowest bits are no part of the count.
            prefix_size = 1 + (int.from_bytes(data[:1]) & 1)
            count = int.from_bytes(data[:prefix_size], "little") >> 2
        expected = prefix_size + count * self.size
        if len(data) != expected:
            raise UndecodableError(f"{self.name}: it has {len(data)} bytes instead of {expected}")
        starts = range(prefix_size, expected, self.size)
        elements = tuple(_number_or_address(data[at : at + self.size]) for at in starts)
        return elements if self.is_list else elements[0]

    def of_uid(self, uid: int) -> Item:
        """Return the item of a seat."""
        return replace(self, argument=NETUID + uid.to_bytes(2, "little").hex())

    def of_account(self, address: str) -> Item:
        """Return the item of an account."""
        account = decode_ss58(address)
        account_hash = hashlib.blake2b(account, digest_size=16)
        return replace(self, argument=account_hash.hexdigest() + account.hex())


@dataclass(frozen=True)
class State:
    """What the storage says about the whole subnet.

    Amounts are in rao, of which a TAO or an alpha has 1e9.

    Attributes:
        block: The number of the block.
        milliseconds: Its Unix time.
        immunity_period: Blocks after its registration in which a seat is immune.
        min_not_immune: Number of seats without immunity that are always left.
        max_safe: Maximum number of the owner's seats that are never replaced.
        emission: What the last epoch gave each seat, by UID.
        incentive: The share of each seat in the pay of miners, by UID, as a number up to 65535.
        last_paid_epoch: The block of the last epoch, 0 before the first one.
        pending_miners: What has gathered for all miners since then.
        consensus: The kind of consensus, 0 for the usual one.
        mechanisms: Number of mechanisms, each with its own incentive.
    """

    block: Annotated[
        int, Item("Number", "02a5c1b19ab7a04f536c519aca4983ac", 4, None, "", pallet=_SYSTEM)
    ]
    milliseconds: Annotated[
        int, Item("Now", "9f1f0515f462cdcf84e0f1d6045dfcbb", 8, None, "", pallet=_TIMESTAMP)
    ]
    seat_count: Annotated[int, Item("SubnetworkN", "a1048e9d244171852dfe8db314dc68ca", 2)]
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
        return max(0, self.max_seats - self.seat_count)

    @property
    def miners_per_block(self) -> float | None:
        """Rao of alpha that all miners are paid a block since the last epoch, None if unknown."""
        # Several mechanisms, and another consensus than the usual one (0), pay by other rules.
        if self.mechanisms != 1 or self.consensus != 0:
            return None
        # Without these, it is not known whose pay has gathered, or since when.
        if not self.incentive or not self.last_paid_epoch:
            return None
        # In the block of an epoch, nothing has gathered. Each later block adds to it.
        blocks = self.block - self.last_paid_epoch
        return self.pending_miners / blocks if self.pending_miners and blocks else None

    def check(self, now: float) -> None:
        """Raise ApiError if the block is old at the Unix time ``now``, or a value is impossible."""
        age = now - self.time
        if age > _MAX_AGE:
            raise UnavailableError(f"its newest block is {human_duration(age)} old, it is behind")
        # An impossible value shows that the chain's storage has changed, so that other values may
        # mean something else, too.
        # 0 is no epoch yet. Epochs are 72 minutes apart.
        since_epoch = self.block - self.last_paid_epoch
        if self.last_paid_epoch and not 0 <= since_epoch <= _BLOCKS_PER_DAY:
            raise UndecodableError("LastMechansimStepBlock: it is not in the day before the block")
        for name, values in (("Emission", self.emission), ("Incentive", self.incentive)):
            if len(values) > self.seat_count:
                raise UndecodableError(
                    f"{name}: it has more values than the {self.seat_count} seats"
                )


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
        emission: Rao of alpha that the last epoch gave it.
        is_owned: Whether it is the subnet owner's, whose pay for mining is withheld.
        alpha_per_day: Rao of alpha that it is paid for mining in a day at the present pace, None if
            that is unknown.
        registrations_before_loss: How many registrations come before the one that takes it, None if
            none can take it now.
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
        """Unix time of the first block in which the seat is not immune, None if the next one is."""
        blocks = self.registered + self.state.immunity_period - self.state.block
        # The next block is the first one in which a registration can take the seat.
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
        price: The price of an alpha in rao of TAO, None if it is unknown.
    """

    state: State
    hotkeys: list[str]
    registered: list[int]
    owned: list[str]
    spec_version: int
    price: int | None

    @cached_property
    def seats(self) -> list[Seat]:
        """The seats by UID."""
        state = self.state
        owned = {*self.owned, state.owner_hotkey}
        # Without any incentive, the sum is 0, and so is each share.
        total = sum(state.incentive) or 1
        per_block = state.miners_per_block
        seats = []
        # The last epoch gave nothing to the seats that are younger, which are the last ones.
        nothing = (0,) * len(self.hotkeys)
        emission = state.emission + nothing
        incentive = state.incentive + nothing
        for uid, hotkey in enumerate(self.hotkeys):
            is_owned = hotkey in owned
            pay = None
            if per_block is not None:
                # The pay of the owner's seats is withheld.
                share = 0.0 if is_owned else incentive[uid] / total
                pay = share * per_block * _BLOCKS_PER_DAY
            seat = Seat(state, hotkey, self.registered[uid], emission[uid], is_owned, pay)
            seats.append(seat)
        # How soon a seat is lost depends on all seats, which are complete only now.
        counts_by_hotkey = registrations_before_loss(state, seats)
        return [
            replace(seat, registrations_before_loss=counts_by_hotkey.get(seat.hotkey))
            for seat in seats
        ]

    @property
    def in_line(self) -> list[str]:
        """The hotkeys whose seat can be lost, the next one first."""
        seats = [seat for seat in self.seats if seat.registrations_before_loss is not None]
        seats.sort(key=attrgetter("registrations_before_loss"))
        return [seat.hotkey for seat in seats]

    @property
    def alpha_per_day(self) -> float | None:
        """Rao of alpha that all miners are paid a day, None if it is unknown."""
        pay = [seat.alpha_per_day for seat in self.seats if seat.alpha_per_day is not None]
        return math.fsum(pay) if pay else None

    @property
    def miners_emission_ratio(self) -> float | None:
        """The part of the subnet's emission that is for miners, None if it is unknown."""
        per_block = self.state.miners_per_block
        if per_block is None or not self.state.emission_per_block:
            return None
        return per_block / self.state.emission_per_block

    @property
    def registrations_of_day(self) -> int:
        """Seats that were registered in the past day. One that was registered twice counts once."""
        a_day_ago = self.state.block - _BLOCKS_PER_DAY
        return sum(block > a_day_ago for block in self.registered)


def registrations_before_loss(state: State, seats: list[Seat]) -> dict[str, int]:
    """Return by hotkey how many registrations in the next block come before the one that takes the
    seat.

    Seats that no registration can take are missing. Registrations take the free seats first. Then
    the chain replaces a seat without immunity, as long as more than ``min_not_immune`` have none.
    After that, it replaces one with immunity. It takes the seat with the least emission. Among
    equals, that is the one that was registered first, and then the one with the lowest UID.
    """
    if not state.registration_open:
        return {}
    # The old seats, and the number of those that later registrations have got: both by immunity.
    replaceable: dict[bool, deque[Seat]] = {False: deque(), True: deque()}
    newcomers = {False: 0, True: 0}
    for seat in _replaceable(state, seats):
        replaceable[seat.immune_until is not None].append(seat)
    newcomers_are_immune = state.immunity_period > 0
    newcomers[newcomers_are_immune] = state.free_seats
    registrations: dict[str, int] = {}
    # Each turn is a registration, which takes a seat and makes a newcomer.
    while True:
        without_immunity = len(replaceable[False]) + newcomers[False]
        takes_immune = without_immunity <= state.min_not_immune
        candidates = replaceable[takes_immune]
        # A newcomer has no emission. As soon as it can be replaced, each registration does that,
        # after the old seats without emission. No other seat is lost then.
        if not candidates or (newcomers[takes_immune] and candidates[0].emission):
            return registrations
        registrations[candidates.popleft().hotkey] = newcomers[newcomers_are_immune]
        newcomers[newcomers_are_immune] += 1


def _replaceable(state: State, seats: list[Seat]) -> list[Seat]:
    """Return the seats that can be replaced, the first candidate first.

    The owner's own hotkey and the oldest of the owner's others are safe, ``max_safe`` in all.
    """
    # The owner's own hotkey comes first, because False sorts before True.
    owned = [seat for seat in seats if seat.is_owned]
    owned.sort(key=lambda seat: (seat.hotkey != state.owner_hotkey, seat.registered))
    safe = owned[: state.max_safe]
    # Seats come by UID, and sorting keeps that order among equals.
    ranked = sorted(seats, key=lambda seat: (seat.emission, seat.registered))
    return [seat for seat in ranked if seat not in safe]
