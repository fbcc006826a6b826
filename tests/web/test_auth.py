from __future__ import annotations

import asyncio
import base64
import math
import threading
import time
from typing import TYPE_CHECKING

import bcrypt
import pytest

from chutes_exporter.web import auth
from chutes_exporter.web.auth import BusyError, PasswordCheck
from tests.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

COST = 8
"""Small enough for many checks, and large enough to be measured."""
HASHES = {
    name: bcrypt.hashpw(password.encode(), bcrypt.gensalt(COST)).decode()
    for name, password in {"alice": "secret", "bob": "ünï", "long": "x" * 72}.items()
}


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def checking(users: Mapping[str, str]) -> PasswordCheck:
    """Return a check that admits these users, by name with their hashes."""
    check = PasswordCheck()
    check.adopt(users)
    return check


@pytest.mark.parametrize(
    ("authorization", "admitted"),
    [
        (basic("alice", "secret"), True),
        (basic("alice", "secret").replace("Basic", "bAsIc"), True),
        (basic("bob", "ünï"), True),
        # Bcrypt looks at 72 bytes, and Go's does the same with what is longer.
        (basic("long", "x" * 100), True),
        (basic("alice", "wrong"), False),
        (basic("alice", ""), False),
        (basic("alice", "secret\0"), False),
        (basic("nobody", "secret"), False),
        (basic("", ""), False),
        ("", False),
        ("Basic", False),
        ("Basic !!!", False),
        ("Basic é", False),
        ("Basic " + base64.b64encode(b"alice").decode(), False),
        ("Basic " + base64.b64encode(b"\xff\xfe:x").decode(), False),
        ("Bearer " + base64.b64encode(b"alice:secret").decode(), False),
    ],
)
async def test_only_a_users_right_password_is_admitted(authorization: str, admitted: bool) -> None:  # noqa: FBT001
    check = checking(HASHES)
    # The second time, the check remembers a right password.
    assert [await check.admits(authorization) for _ in range(2)] == [admitted] * 2


async def seconds(check: PasswordCheck, *authorizations: str) -> list[float]:
    """Return the shortest processor time of each check, whatever else the machine does."""
    times = [math.inf] * len(authorizations)
    for _ in range(9):
        for number, authorization in enumerate(authorizations):
            started = time.process_time()
            await check.admits(authorization)
            times[number] = min(times[number], time.process_time() - started)
    return times


async def test_unknown_users_take_as_long_as_known_ones() -> None:
    check = checking(HASHES)
    known, unknown = await seconds(check, basic("alice", "wrong"), basic("mallory", "wrong"))
    # A hash of another cost would tell users apart; without any hash it would be a thousandth.
    assert 0.5 < unknown / known < 2


async def test_a_right_password_is_checked_once_even_if_users_are_adopted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = checking(HASHES)
    assert await check.admits(basic("alice", "secret"))
    assert await check.admits(basic("long", "x" * 72))
    # From now on, any other password is wrong.
    monkeypatch.setattr(bcrypt, "checkpw", lambda *_: False)
    check.adopt({name: HASHES[name] for name in ("bob", "alice", "long")})
    assert await check.admits(basic("alice", "secret"))
    # Bcrypt ignores what follows 72 bytes.
    assert await check.admits(basic("long", "x" * 73))
    assert not await check.admits(basic("alice", "another"))
    assert not await check.admits(basic("bob", "secret"))
    # With a new hash, the old password must be checked again.
    check.adopt({"alice": HASHES["bob"]})
    assert not await check.admits(basic("alice", "secret"))


@pytest.mark.parametrize(
    ("clients", "refused"),
    [
        # Of 300 guesses, two of each client wait, and at most 128 of all clients.
        (1, 300 - 2),
        (300, 300 - 128),
    ],
)
async def test_guesses_wait_for_each_other_and_never_delay_a_user_who_was_right_before(
    clients: int, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine needs longer for 128 checks than a guess waits.
    monkeypatch.setattr(auth, "_WAIT_SECONDS", PATIENCE)
    checkpw, turn = bcrypt.checkpw, threading.Lock()

    def check_alone(password: bytes, hashed: bytes) -> bool:
        assert turn.acquire(blocking=False), "two checks at the same time"
        try:
            return checkpw(password, hashed)
        finally:
            turn.release()

    monkeypatch.setattr(bcrypt, "checkpw", check_alone)
    check = checking(HASHES)
    assert await check.admits(basic("alice", "secret"), "10.0.0.1")
    guesses = []
    for number in range(300):
        guess = check.admits(basic("alice", f"guess {number}"), f"10.0.0.{number % clients}")
        guesses.append(asyncio.create_task(guess))
    await asyncio.sleep(0)
    assert await check.admits(basic("alice", "secret"), "10.0.0.1")
    # No guess has been checked meanwhile: those that are done were refused.
    assert not any(guess.done() and not guess.exception() for guess in guesses)
    results = await asyncio.gather(*guesses, return_exceptions=True)
    assert [type(result) for result in results].count(BusyError) == refused
    assert results.count(False) == 300 - refused
    # None of them counts any more, so that another password of their client is checked.
    assert await check.admits(basic("long", "x" * 72), "10.0.0.0")
