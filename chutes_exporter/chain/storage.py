"""The chain's storage: where a node keeps what is known about the subnet, and how to read it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# The number of the subnet, 64, as an argument of keys, and the same behind its hash.
_NETUID: Final = "4000"
_HASHED_NETUID: Final = f"62cf9476b03dd865{_NETUID}"
# The hashes of names are constants, and a test computes them.
_PALLETS: Final = {
    "System": "26aa394eea5630e07c48ae0c9558cef7",
    "Timestamp": "f0c365c3cf59d671eb72da0e7a4113c4",
    "SubtensorModule": "658faa385070e074c85bf6b568cf0555",
}
_ACCOUNT: Final = 32
# Takes the place of a default where the chain always has a value.
_MUST: Final = object()
# How many bytes the length of a list has, by the last two bits of the first byte.
_LENGTH_BYTES: Final = {0: 1, 1: 2, 2: 4}


@dataclass(frozen=True)
class Item:
    """An item of the storage: a number or an account of ``size`` bytes, or a list of them.

    It has a value of the whole subnet, or a value of each seat or account. Then its key is the start of their keys.
    Without a value, the chain means the default.
    """

    name: str
    key: str
    size: int
    default: Any = _MUST
    is_list: bool = False

    def value(self, text: str | None) -> Any:
        """Return the value that a node answers with in hexadecimal digits, or raise ValueError."""
        if text is None and self.default is _MUST:
            raise ValueError("it is null, but the chain always has a value")
        if text is None:
            return self.default
        data, start, count = bytes.fromhex(text.removeprefix("0x")), 0, 1
        if self.is_list:
            # It begins with its length.
            if not data or data[0] & 3 not in _LENGTH_BYTES:
                raise ValueError("its length cannot be read")
            start = _LENGTH_BYTES[data[0] & 3]
            count = int.from_bytes(data[:start], "little") >> 2
        if len(data) != (expected := start + count * self.size):
            raise ValueError(f"it has {len(data)} bytes instead of {expected}")
        parts: list[Any] = [data[at : at + self.size] for at in range(start, len(data), self.size)]
        if self.size != _ACCOUNT:
            parts = [int.from_bytes(part, "little") for part in parts]
        return parts if self.is_list else parts[0]

    def of_uid(self, uid: int) -> Item:
        """Return the item of a seat."""
        return replace(self, key=self.key + uid.to_bytes(2, "little").hex())

    def of_account(self, account: bytes) -> Item:
        """Return the item of an account."""
        return replace(self, key=self.key + hashlib.blake2b(account, digest_size=16).hexdigest() + account.hex())


def _item(
    name: str, name_hash: str, size: int, default: Any = _MUST, *, argument: str = _NETUID, is_list: bool = False
) -> Item:
    """Return an item of the pallet that the name begins with, by default SubtensorModule."""
    pallet, _, name = name.rpartition(".")
    pallet = pallet or "SubtensorModule"
    return Item(f"{pallet}.{name}", f"0x{_PALLETS[pallet]}{name_hash}{argument}", size, default, is_list)


def _field(*arguments: Any, **more: Any) -> Any:
    return field(metadata={"item": _item(*arguments, **more)})


@dataclass(frozen=True)
class State:
    """The state of the subnet in a block. Amounts are in rao, of which a TAO or an alpha has 1e9."""

    block: int = _field("System.Number", "02a5c1b19ab7a04f536c519aca4983ac", 4, argument="")
    milliseconds: int = _field("Timestamp.Now", "9f1f0515f462cdcf84e0f1d6045dfcbb", 8, argument="")
    seats: int = _field("SubnetworkN", "a1048e9d244171852dfe8db314dc68ca", 2)
    max_seats: int = _field("MaxAllowedUids", "fabe6b131d9fa6e6d6cacbe7586c3b8a", 2)
    immunity_period: int = _field("ImmunityPeriod", "b6522cfe03433e9e101a258ee2f580ab", 2)
    min_not_immune: int = _field("MinNonImmuneUids", "a05969c978d170e66c89fd3ef91c2bb9", 2, 10)
    max_safe: int = _field("ImmuneOwnerUidsLimit", "d2f25f568a6f876b2e3f13784dcd778a", 2, 1)
    owner: bytes = _field("SubnetOwner", "36e3e82152c8758267395fe524fbbd16", _ACCOUNT)
    owner_hotkey: bytes | None = _field("SubnetOwnerHotkey", "68b7553499633fe05caf4d8a51aefe5c", _ACCOUNT, None)
    emission: Sequence[int] = _field("Emission", "93916af563e2313a574d6cd48caec1a5", 8, is_list=True)
    incentive: Sequence[int] = _field("Incentive", "89c69c2c416b8105d37501394f4de849", 2, (), is_list=True)
    dividends: Sequence[int] = _field("Dividends", "86752d66f11480ecef37769cdd736b9b", 2, (), is_list=True)
    tempo: int = _field("Tempo", "7641384bb339f3758acddfd7053d3317", 2)
    last_epoch: int = _field("LastEpochBlock", "90010c37124c14146041452f9ffba0df", 8, 0)
    last_paid_epoch: int = _field("LastMechansimStepBlock", "90a5927434316ff88c68f65cd390bb70", 8, 0)
    pending_miners: int = _field("PendingServerEmission", "7f31afa3e070ac1d98b1546887927609", 8, 0)
    pending_validators: int = _field("PendingValidatorEmission", "6459b861fc6b4d87d2515a77a950df0b", 8, 0)
    pending_root: int = _field("PendingRootAlphaDivs", "ed70b5ba3510918e3a9b3d1d0220ba2d", 8, 0)
    registration_cost: int = _field("Burn", "01be1755d08418802946bca51b686325", 8)
    min_cost: int = _field("MinBurn", "b5ebf5d60c129a116973e38cd593e6e6", 8, 500_000)
    max_cost: int = _field("MaxBurn", "113e5f8ae432b71a8c1ac60fd9d6ff2e", 8, 10**11)
    registration_open: int = _field("NetworkRegistrationAllowed", "d5fe74da02c7b4bbb340fb368eee3e77", 1, 1)
    consensus: int = _field("SubnetEpochConsensus", "12a2afa59d7389e40b256460d9b1fdcd", 1, 0)
    mechanisms: int = _field("MechanismCountCurrent", "604fb97037feb8522bf37d42d54fa6e9", 1, 1, argument=_HASHED_NETUID)

    @property
    def time(self) -> float:
        """The Unix time of the block."""
        return self.milliseconds / 1000

    @property
    def free_seats(self) -> int:
        """The seats that registrations take before they replace others."""
        return max(0, self.max_seats - self.seats)

    def nonsense(self) -> Iterator[tuple[str, str]]:
        """Yield each value that cannot be meant as this version understands it, by attribute, and why."""
        for name in ("emission", "incentive", "dividends"):
            if len(getattr(self, name)) > self.seats:
                yield name, f"it has more values than the {self.seats} seats"
        if self.registration_open > 1:
            yield "registration_open", "it is neither true nor false"
        if not self.min_cost <= self.registration_cost <= self.max_cost:
            yield "registration_cost", "it is not between its least and its greatest value"


SUBNET_ITEMS: Final[dict[str, Item]] = {one.name: one.metadata["item"] for one in fields(State)}
"""The items of :class:`State`, by its attributes."""
HOTKEY: Final = _item("Keys", "9f99a2ce711f3a31b2fc05604c93f179", _ACCOUNT)
REGISTERED: Final = _item("BlockAtRegistration", "5306000b65aa58c97bf98ad9f8619049", 8, 0)
COLDKEY: Final = _item("Owner", "eca6b7a1fdc9f689184ecb4f359c0518", _ACCOUNT, bytes(_ACCOUNT), argument="")
OWNED_HOTKEYS: Final = _item(
    "OwnedHotkeys", "882f0d11afa27a40918e90f095800125", _ACCOUNT, (), is_list=True, argument=""
)
PRICE: Final = Item("SwapRuntimeApi.current_alpha_price", "", 8)
"""What a function of the runtime returns."""
