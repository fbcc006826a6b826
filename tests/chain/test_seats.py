from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_exporter.chain.seats import Seat, alpha_per_day, registrations_before_loss
from chutes_exporter.chain.storage import State
from tests.support import examples

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = 1000
OWNER, OTHER = b"owner", b"other"
STATE = State(
    block=HEAD,
    milliseconds=0,
    seats=3,
    max_seats=3,
    immunity_period=5,
    min_not_immune=1,
    max_safe=1,
    owner=OWNER,
    owner_hotkey=None,
    emission=[100, 300, 600],
    incentive=[10, 30, 60],
    dividends=[0, 0, 0],
    tempo=100,
    last_epoch=HEAD - 50,
    last_paid_epoch=HEAD - 50,
    pending_miners=250,
    pending_validators=200,
    pending_root=50,
    registration_cost=1,
    min_cost=1,
    max_cost=1,
    registration_open=1,
    consensus=0,
    mechanisms=1,
)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(HEAD - 8, HEAD), st.sampled_from([OWNER, OTHER, OTHER])), max_size=9
    ),
    free=st.integers(-1, 2),
    changes=st.fixed_dictionaries(
        {
            "immunity_period": st.integers(0, 9),
            "min_not_immune": st.integers(0, 6),
            "max_safe": st.integers(1, 3),
            "owner_hotkey": st.none() | st.sampled_from([b"0", b"1", b"gone"]),
            "registration_open": st.sampled_from([1, 1, 1, 0]),
        }
    ),
)
@settings(max_examples=examples(1000))
def test_seats_are_lost_in_the_order_of_a_replay(
    rows: list[tuple[int, int, bytes]], free: int, changes: dict[str, Any]
) -> None:
    seats = [
        Seat(str(uid).encode(), coldkey, registered, emission, 0, 0)
        for uid, (emission, registered, coldkey) in enumerate(rows)
    ]
    state = replace(STATE, seats=len(seats), max_seats=max(0, len(seats) + free), **changes)
    assert registrations_before_loss(state, seats) == replay(state, seats)


def replay(state: State, seats: Sequence[Seat]) -> dict[bytes, int]:
    """Register one newcomer after another in the next block, as the chain's code does, and note whom each replaces."""
    now, table, lost = state.block + 1, list(seats), {}
    for number in range(len(seats) + state.max_seats + 1):
        newcomer = Seat(f"new {number}".encode(), OTHER, now, 0, 0, 0)
        if not state.registration_open:
            break
        if len(table) < state.max_seats:
            table.append(newcomer)
            continue
        owned = sorted((seat.registered, uid) for uid, seat in enumerate(table) if seat.coldkey == OWNER)
        safe = [uid for _, uid in owned[: state.max_safe]]
        for uid, seat in enumerate(table):
            if seat.account == state.owner_hotkey and uid not in safe:
                safe = [uid, *safe][: state.max_safe]
        keys: dict[bool, list[tuple[int, int, int]]] = {True: [], False: []}
        for uid, seat in enumerate(table):
            if uid not in safe:
                keys[now - seat.registered < state.immunity_period].append((seat.emission, seat.registered, uid))
        among = keys[False] if len(keys[False]) > state.min_not_immune else keys[True]
        if not among:
            break
        *_, uid = min(among)
        lost[table[uid].account] = number
        table[uid] = newcomer
    return {seat.account: lost[seat.account] for seat in seats if seat.account in lost}


def pay(state: State, *seats: tuple[int, int, int], withheld: Sequence[bytes] = ()) -> list[float]:
    named = [Seat(str(uid).encode(), OTHER, 0, *amounts) for uid, amounts in enumerate(seats)]
    return list(alpha_per_day(state, named, withheld).values())


MINERS = ((100, 10, 0), (300, 30, 0), (600, 60, 0))


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({}, 72),
        ({"pending_miners": 259}, 72),
        # The pace is 1.03 times as fast as the tempo says.
        ({"pending_miners": 265}, 7200 * 10.3 / 1000),
        # The tempo has changed, or an epoch was skipped, and 500 have gathered in 50 blocks.
        ({"last_epoch": HEAD - 20}, 7200 * 10 / 1000),
        ({"tempo": 360, "last_epoch": HEAD - 20}, 72),
    ],
)
def test_pay_follows_from_the_tempo_or_else_from_what_has_gathered(changes: dict[str, Any], epochs: float) -> None:
    assert pay(replace(STATE, **changes), *MINERS) == pytest.approx([100 * epochs, 300 * epochs, 600 * epochs])


@pytest.mark.parametrize(
    "changes",
    [
        {"mechanisms": 2},
        {"consensus": 1},
        {"incentive": ()},
        {"dividends": ()},
        {"emission": [0, 0, 0]},
        {"pending_miners": 0, "pending_validators": 0, "pending_root": 0},
        {"last_paid_epoch": HEAD},
        {"tempo": 0},
    ],
    ids=str,
)
def test_pay_is_absent_if_it_cannot_be_known(changes: dict[str, Any]) -> None:
    assert pay(replace(STATE, **changes), *MINERS) == []


def test_pay_is_without_what_is_withheld_or_paid_for_validating() -> None:
    seats = (100, 10, 0), (300, 0, 500), (200, 30, 10), (400, 60, 0), (1, 0, 0)
    assert pay(STATE, *seats, withheld=[b"3"]) == [100 * 72, 0, 150 * 72, 0, 72]
    assert pay(replace(STATE, incentive=[0, 0, 0]), *seats) == [0] * 5
