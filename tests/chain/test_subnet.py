from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
import xxhash
from bittensor_core import decode_ss58
from hypothesis import given, settings
from hypothesis import strategies as st

from chutes_exporter.chain import subnet
from chutes_exporter.chain.subnet import Seat, State, Subnet
from tests.support import HOTKEY, examples

NETUID = (64).to_bytes(2, "little")
PALLETS = {"Number": "System", "Now": "Timestamp"}
ARGUMENTS = {
    "Number": b"",
    "Now": b"",
    "MechanismCountCurrent": xxhash.xxh64(NETUID).digest()[::-1] + NETUID,
}


def twox128(text: str) -> bytes:
    return b"".join(xxhash.xxh64(text.encode(), seed=seed).digest()[::-1] for seed in (0, 1))


def key(name: str, argument: bytes) -> str:
    return "0x" + (twox128(PALLETS.get(name, "SubtensorModule")) + twox128(name) + argument).hex()


def test_a_key_is_made_of_the_hashes_of_the_names() -> None:
    for item in subnet.ITEMS.values():
        assert item.key == key(item.name, ARGUMENTS.get(item.name, NETUID))
    assert subnet.HOTKEY.of_uid(258).key == key("Keys", NETUID + b"\x02\x01")
    assert subnet.REGISTERED.of_uid(1).key == key("BlockAtRegistration", NETUID + b"\x01\x00")
    account = decode_ss58(HOTKEY)
    hashed = hashlib.blake2b(account, digest_size=16).digest() + account
    assert subnet.OWNED_HOTKEYS.of_account(HOTKEY).key == key("OwnedHotkeys", hashed)


@pytest.mark.parametrize("count", [0, 63, 64, 16383, 16384])
def test_a_list_of_any_length_is_read(count: int) -> None:
    # The two lowest bits of the length tell how many bytes it has.
    size, kind = (1, 0) if count < 64 else (2, 1) if count < 16384 else (4, 2)
    text = "0x" + (count << 2 | kind).to_bytes(size, "little").hex() + "0100" * count
    assert subnet.ITEMS["incentive"].value(text) == (1,) * count


HEAD = 1000
# All else is 1.
STATE = replace(
    State(**dict.fromkeys(subnet.ITEMS, 1)),  # type: ignore[arg-type]
    block=HEAD,
    owner_hotkey="",
    consensus=0,
    emission=(100, 300, 600),
    incentive=(10, 30, 60),
    dividends=(0, 0, 0),
    tempo=100,
    last_epoch=HEAD - 50,
    last_paid_epoch=HEAD - 50,
    pending_miners=250,
    pending_validators=200,
    pending_root=50,
)


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
    changes |= {
        "emission": tuple(emission for emission, _, _ in rows),
        "incentive": (),
        "dividends": (),
    }
    state = replace(STATE, seats=len(rows), max_seats=max(0, len(rows) + free), **changes)
    owned = [str(uid) for uid, (_, _, coldkey) in enumerate(rows) if not coldkey]
    found = Subnet(state, [*map(str, range(len(rows)))], [row[1] for row in rows], owned, 1, None)
    assert [seat.registrations_before_loss for seat in found.seats] == replay(
        state, rows, set(owned)
    )


def replay(state: State, rows: list[tuple[int, int, int]], owned: set[str]) -> list[int | None]:
    """Register one newcomer after another in the next block, as the chain's code does, and note
    whom each replaces.
    """
    now, lost = state.block + 1, dict[str, int]()
    table = [(str(uid), registered, emission) for uid, (emission, registered, _) in enumerate(rows)]
    for number in range(len(rows) + state.max_seats + 1):
        newcomer = (f"new {number}", now, 0)
        if not state.registration_open:
            break
        if len(table) < state.max_seats:
            table.append(newcomer)
            continue
        oldest = sorted(
            (registered, uid)
            for uid, (hotkey, registered, _) in enumerate(table)
            if hotkey in owned
        )
        safe = [uid for _, uid in oldest[: state.max_safe]]
        for uid, (hotkey, _, _) in enumerate(table):
            if hotkey == state.owner_hotkey and uid not in safe:
                safe = [uid, *safe][: state.max_safe]
        keys: dict[bool, list[tuple[int, int, int]]] = {True: [], False: []}
        for uid, (_, registered, emission) in enumerate(table):
            if uid not in safe:
                keys[now - registered < state.immunity_period].append((emission, registered, uid))
        among = keys[False] if len(keys[False]) > state.min_not_immune else keys[True]
        if not among:
            break
        *_, uid = min(among)
        lost[table[uid][0]] = number
        table[uid] = newcomer
    return [lost.get(str(uid)) for uid in range(len(rows))]


def pay(
    state: State, *amounts: tuple[int, int, int], owned: int | None = None
) -> list[float | None]:
    seats = [
        Seat(state, "", 0, *of_seat, is_owned=uid == owned) for uid, of_seat in enumerate(amounts)
    ]
    return [seat.alpha_per_day for seat in seats]


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({}, 72),
        ({"pending_miners": 259}, 72),
        # The pace is 1.03 times as fast as the tempo says.
        ({"pending_miners": 265}, 7200 * 10.3 / 1000),
        # The tempo has changed, or an epoch was skipped, and 509 have gathered in 50 blocks.
        ({"pending_miners": 259, "last_epoch": HEAD - 20}, 7200 * 10.18 / 1000),
        ({"tempo": 360, "last_epoch": HEAD - 20}, 72),
        ({"mechanisms": 2}, None),
        ({"consensus": 1}, None),
        ({"incentive": ()}, None),
        ({"dividends": ()}, None),
        ({"emission": (0, 0, 0)}, None),
        ({"pending_miners": 0, "pending_validators": 0, "pending_root": 0}, None),
        ({"last_paid_epoch": HEAD}, None),
        ({"tempo": 0}, None),
    ],
    ids=str,
)
def test_pay_follows_from_the_tempo_or_else_from_what_has_gathered(
    changes: dict[str, Any], epochs: float
) -> None:
    expected = pytest.approx([100 * epochs, 300 * epochs]) if epochs else [None, None]
    assert pay(replace(STATE, **changes), (100, 10, 0), (300, 30, 0)) == expected


def test_pay_is_without_what_is_withheld_or_paid_for_validating() -> None:
    seats = (100, 10, 0), (300, 0, 500), (200, 30, 10), (400, 60, 0), (1, 0, 0)
    assert pay(STATE, *seats, owned=3) == [100 * 72, 0, 150 * 72, 0, 72]
    assert pay(replace(STATE, incentive=(0, 0, 0)), *seats) == [0] * 5
