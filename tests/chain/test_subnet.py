from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import pytest
import xxhash
from bittensor_core import decode_ss58
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_exporter.chain import subnet
from chutes_exporter.chain.subnet import State, Subnet
from tests.chain.support import NETUID, key
from tests.support import HOTKEY, examples

ARGUMENTS = {
    "Number": b"",
    "Now": b"",
    "MechanismCountCurrent": xxhash.xxh64(NETUID).digest()[::-1] + NETUID,
}
"""The ends of the keys that are not just the number of the subnet."""


def test_a_key_is_made_of_the_hashes_of_the_names() -> None:
    for item in subnet.ITEMS.values():
        assert item.key == key(item.name, ARGUMENTS.get(item.name, NETUID))
    # A UID has two bytes, the lower one first.
    assert subnet.HOTKEY.of_uid(258).key == key("Keys", NETUID + b"\x02\x01")
    assert subnet.REGISTERED.of_uid(1).key == key("BlockAtRegistration", NETUID + b"\x01\x00")
    # An account comes after its hash.
    account = decode_ss58(HOTKEY)
    hashed = hashlib.blake2b(account, digest_size=16).digest() + account
    assert subnet.OWNED_HOTKEYS.of_account(HOTKEY).key == key("OwnedHotkeys", hashed)


@pytest.mark.parametrize("count", [0, 63, 64, 16383, 16384])
def test_a_list_of_any_length_is_read(count: int) -> None:
    # The two lowest bits of the length tell how many bytes it has.
    if count < 64:
        size, kind = 1, 0
    elif count < 16384:
        size, kind = 2, 1
    else:
        size, kind = 4, 2
    text = "0x" + (count << 2 | kind).to_bytes(size, "little").hex() + "0100" * count
    assert subnet.ITEMS["incentive"].value(text) == (1,) * count


HEAD = 1000
"""The number of the block."""
# All else is 1.
STATE = replace(
    State(**dict.fromkeys(subnet.ITEMS, 1)),  # type: ignore[arg-type]
    block=HEAD,
    owner_hotkey="",
    consensus=0,
    emission=(100, 300, 600),
    incentive=(10, 30, 60),
    last_paid_epoch=HEAD - 50,
    pending_miners=250,
    emission_per_block=10,
)
"""50 blocks after the last epoch, 250 rao have gathered for miners: 5 a block."""


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(HEAD - 8, HEAD), st.integers(0, 2)), max_size=9
    ),
    free=st.integers(-1, 2),
    changes=st.fixed_dictionaries(
        {
            "immunity_period": st.integers(0, 9),
            "min_not_immune": st.integers(0, 6),
            "max_safe": st.integers(1, 3),
            "owner_hotkey": st.sampled_from(["", "0", "1", "gone"]),
            "registration_open": st.sampled_from([1, 1, 1, 0]),
        }
    ),
)
@settings(max_examples=examples(1000))
def test_seats_are_lost_in_the_order_of_a_replay(
    rows: list[tuple[int, int, int]], free: int, changes: dict[str, Any]
) -> None:
    """A row is a seat: its emission, the block of its registration and its coldkey. The coldkey 0
    is the owner's. ``free`` are the free seats. With -1, there is one seat more than allowed.
    """
    changes |= {"emission": tuple(emission for emission, _, _ in rows), "incentive": ()}
    state = replace(STATE, seats=len(rows), max_seats=max(0, len(rows) + free), **changes)
    hotkeys = [str(uid) for uid in range(len(rows))]
    registered = [block for _, block, _ in rows]
    owned = [str(uid) for uid, (_, _, coldkey) in enumerate(rows) if coldkey == 0]
    found = subnet_of(state, hotkeys, registered, owned)
    registrations = [seat.registrations_before_loss for seat in found.seats]
    assert registrations == replay(state, rows, set(owned))


@dataclass(frozen=True)
class Registration:
    """A seat of the replay."""

    hotkey: str
    block: int
    emission: int


def replay(state: State, rows: list[tuple[int, int, int]], owned: set[str]) -> list[int | None]:
    """Register one newcomer after another in the next block, as the chain's code does.

    Return, by UID, how many of them come before the one that replaces the seat, None if none does.
    """
    lost: dict[str, int] = {}
    seats = [
        Registration(str(uid), registered, emission)
        for uid, (emission, registered, _) in enumerate(rows)
    ]
    # After so many, newcomers replace only each other.
    for number in range(len(rows) + state.max_seats + 1):
        newcomer = Registration(f"new {number}", state.block + 1, 0)
        if not state.registration_open:
            break
        if len(seats) < state.max_seats:
            seats.append(newcomer)
            continue
        uid = next_to_lose(state, seats, owned)
        if uid is None:
            break
        lost[seats[uid].hotkey] = number
        seats[uid] = newcomer
    return [lost.get(str(uid)) for uid in range(len(rows))]


def next_to_lose(state: State, seats: list[Registration], owned: set[str]) -> int | None:
    """Return the seat that a newcomer replaces in the next block, None if there is none."""
    safe = owners_seats(state, seats, owned)
    immune: list[tuple[int, int, int]] = []
    others: list[tuple[int, int, int]] = []
    for uid, seat in enumerate(seats):
        if uid not in safe:
            is_immune = state.block + 1 - seat.block < state.immunity_period
            group = immune if is_immune else others
            group.append((seat.emission, seat.block, uid))
    # As long as enough seats are not immune, one of these is lost.
    among = others if len(others) > state.min_not_immune else immune
    if not among:
        return None
    _, _, uid = min(among)
    return uid


def owners_seats(state: State, seats: list[Registration], owned: set[str]) -> list[int]:
    """Return the UIDs of the owner's seats that nobody replaces: that of the owner's hotkey, and
    the oldest, ``max_safe`` in total.
    """
    oldest = sorted((seat.block, uid) for uid, seat in enumerate(seats) if seat.hotkey in owned)
    safe = [uid for _, uid in oldest[: state.max_safe]]
    for uid, seat in enumerate(seats):
        if seat.hotkey == state.owner_hotkey and uid not in safe:
            safe = [uid, *safe][: state.max_safe]
    return safe


def subnet_of(state: State, hotkeys: list[str], registered: list[int], owned: list[str]) -> Subnet:
    """Return a subnet whose pay follows from its state alone."""
    return Subnet(
        state=state,
        hotkeys=hotkeys,
        registered=registered,
        owned=owned,
        spec_version=1,
        price=None,
        miners_per_block=state.miners_per_block(None),
    )


def pay(state: State, owned: str = "") -> list[float | None]:
    """Return the rao a day of four seats, of which the last is younger than the last epoch.

    The hotkey that is owned is that of the subnet's owner.
    """
    found = subnet_of(state, ["a", "b", "c", "new"], [1, 1, 1, HEAD], [owned])
    return [seat.alpha_per_day for seat in found.seats]


@pytest.mark.parametrize(
    ("changes", "per_block"),
    [
        # 250 rao have gathered in 50 blocks, or in a single one.
        ({}, 5),
        ({"last_paid_epoch": HEAD - 1}, 250),
        # The next three follow other rules.
        ({"mechanisms": 2}, None),
        ({"consensus": 1}, None),
        ({"incentive": ()}, None),
        # A 0 stands for a value that the chain does not have any more.
        ({"pending_miners": 0}, None),
        ({"last_paid_epoch": 0}, None),
        # Nothing has gathered in the block of an epoch, and no earlier block is known.
        ({"last_paid_epoch": HEAD}, None),
    ],
    ids=str,
)
def test_a_seat_is_paid_its_share_of_the_incentive_of_what_gathers_for_miners(
    changes: dict[str, Any], per_block: float | None
) -> None:
    paid = pay(replace(STATE, **changes))
    if per_block is None:
        assert paid == [None] * 4
    else:
        # A day has 7200 blocks.
        day = 7200 * per_block
        assert paid == pytest.approx([0.1 * day, 0.3 * day, 0.6 * day, 0])
