"""Ids and draws that follow from the seed of a world."""

from __future__ import annotations

import hashlib
import random


def make_uuid(*parts: object) -> str:
    """Return the UUID that belongs to something."""
    digits = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def make_random(*parts: object) -> random.Random:
    """Return the source of randomness that belongs to something."""
    return random.Random("/".join(map(str, parts)))
