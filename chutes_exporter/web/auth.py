"""Checks passwords in a thread, in a time that reveals nothing.

Right ones are remembered briefly.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import bcrypt
import cachetools

if TYPE_CHECKING:
    from collections.abc import Mapping

_REMEMBERED_SECONDS = 120
_REMEMBERED = 256
_MAX_WAITING = 64
_MAX_WAITING_PER_CLIENT = 4
_BCRYPT_BYTES = 72
"""Bcrypt ignores all bytes after these."""


class BusyError(Exception):
    """Too many passwords wait to be checked."""


class PasswordCheck:
    """Checks passwords. It knows the bcrypt hashes by user name."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = {name: hashed.encode() for name, hashed in users.items()}
        # Hashes for unknown users, with the same costs as real ones, so that their check takes as
        # long. The first 7 characters of a bcrypt hash are the version and the cost, and the other
        # 53 are the salt and the digest.
        self._decoys = sorted({hashed[:7] + b"." * 53 for hashed in self._users.values()})
        self._key = os.urandom(32)
        self._good: cachetools.TTLCache[bytes, bool] = cachetools.TTLCache(
            _REMEMBERED, _REMEMBERED_SECONDS
        )
        # One thread: guesses must not take the time that pages need.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")
        self._waiting: Counter[str] = Counter()

    async def admits(self, authorization: str, client: str = "") -> bool:
        """Return whether an Authorization header has a user's right password, or raise BusyError.

        A recently verified password is not checked again. The guesses of one client do not delay
        others.
        """
        credentials = _credentials(authorization)
        if credentials is None:
            return False
        name, password = credentials
        # Only remember a keyed digest, so that neither memory nor timing reveals the password.
        digest = hmac.digest(self._key, name.encode() + b"\0" + password, hashlib.sha256)
        if digest not in self._good:
            if (
                self._waiting[client] >= _MAX_WAITING_PER_CLIENT
                or self._waiting.total() >= _MAX_WAITING
            ):
                raise BusyError
            self._waiting[client] += 1
            try:
                good = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._check, name, password
                )
            finally:
                self._waiting[client] -= 1
                self._waiting += Counter()  # removes clients with a count of 0
            if not good:
                return False
        # Renew the entry each time, so that a regular scraper never waits behind guesses.
        self._good[digest] = True
        return True

    def _check(self, name: str, password: bytes) -> bool:
        """Return whether a password is right.

        For an unknown user, it checks a decoy and returns False.
        """
        hashed = self._users.get(name)
        if hashed is None:
            # Choose the same hash for the same name, because a real user's check always takes the
            # same time.
            pick = hmac.digest(self._key, name.encode(), hashlib.sha256)[0] % len(self._decoys)
            hashed = self._decoys[pick]
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed) and name in self._users


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError):
        return None
