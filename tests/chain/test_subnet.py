from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_exporter.chain import subnet
from chutes_exporter.chain.subnet import State, Subnet
from tests.support import examples

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
    state = replace(STATE, seat_count=len(rows), max_seats=max(0, len(rows) + free), **changes)
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
    """Return the UIDs of the owner's seats that nobody replaces: its hotkey's and the oldest."""
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
    )
