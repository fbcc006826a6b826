"""Checks passwords in a thread, in a time that reveals nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
from collections import Counter
from typing import TYPE_CHECKING

import bcrypt

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_WAITING = 128
"""Maximum passwords, of all clients together, that wait for their check."""
_MAX_WAITING_PER_CLIENT = 2
_WAIT_SECONDS = 5.0
"""Maximum seconds that a password waits for its check. The end of the process waits as long."""
_BCRYPT_BYTES = 72
"""Bcrypt ignores all bytes after these, and its library refuses longer passwords from 5.0 on."""


class BusyError(Exception):
    """Too many passwords wait to be checked."""


class PasswordCheck:
    """Checks passwords. It knows the bcrypt hashes by user name.

    A right password is checked once. Then guesses cannot delay its user, also after a reload.
    """

    def __init__(self) -> None:
        self._users: dict[str, bytes] = {}
        # The hash for unknown users.
        self._decoy = b""
        # The key of digests, which leaves this process in no form.
        self._key = os.urandom(32)
        # By user, a digest of the hash and the right password. A new hash has another digest.
        self._right: dict[str, bytes] = {}
        # One check at a time: guesses must not take the time that pages need.
        self._turn = asyncio.Lock()
        # How many passwords of each client wait for their check.
        self._waiting: Counter[str] = Counter()

    def adopt(self, users: Mapping[str, str]) -> None:
        """Use these users, with their bcrypt hashes, from now on."""
        self._users = {name: hashed.encode() for name, hashed in users.items()}
        # A hash for unknown users with the highest cost, so that their check takes as long. The
        # first 7 characters of a bcrypt hash are the version and the cost, and the other 53 are
        # the salt and the digest.
        costliest = max(self._users.values(), key=lambda hashed: hashed[4:6], default=b"")
        self._decoy = costliest[:7] + b"." * 53

    async def admits(self, authorization: str, client: str = "") -> bool:
        """Return whether an Authorization header has a user's right password, or raise BusyError.

        Without users, everybody is admitted. The guesses of one client do not delay others.
        """
        if not self._users:
            return True
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            decoded = base64.b64decode(encoded.strip(), validate=True)
            user, _, password = decoded.partition(b":")
            name = user.decode()
        except ValueError:
            # It is no base64, or no UTF-8.
            return False
        password = password[:_BCRYPT_BYTES]
        # An unknown user gets a hash, too, so that the time does not reveal which users exist.
        hashed = self._users.get(name, self._decoy)
        # Only remember a keyed digest, so that neither memory nor timing reveals the password.
        digest = hmac.digest(self._key, hashed + password, hashlib.sha256)
        if hmac.compare_digest(self._right.get(name, b""), digest):
            return True
        has_hash = await self._check(password, hashed, client)
        # The hash may be a decoy, or a reload may have changed it during the check.
        is_right = has_hash and hashed == self._users.get(name)
        if is_right:
            self._right[name] = digest
        return is_right

    async def _check(self, password: bytes, hashed: bytes, client: str) -> bool:
        """Return whether a password has a hash, or raise BusyError."""
        is_full = self._waiting.total() >= _MAX_WAITING
        if is_full or self._waiting[client] >= _MAX_WAITING_PER_CLIENT:
            raise BusyError
        self._waiting[client] += 1
        try:
            async with asyncio.timeout(_WAIT_SECONDS) as deadline, self._turn:
                # Once begun, a check ends.
                deadline.reschedule(None)
                return await asyncio.to_thread(bcrypt.checkpw, password, hashed)
        except TimeoutError:
            raise BusyError from None
        finally:
            self._waiting[client] -= 1
            self._waiting += Counter()  # removes clients with a count of 0
