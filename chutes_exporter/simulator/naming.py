"""Ids and random generators that depend only on the seed of a world."""

from __future__ import annotations

import hashlib
import random


def make_uuid(*parts: object) -> str:
    """Return the UUID for these parts."""
    digits = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def make_random(*parts: object) -> random.Random:
    """Return the random generator for these parts."""
    return random.Random("/".join(map(str, parts)))
